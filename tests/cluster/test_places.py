"""Places: two brokers of one process have one place only where both are twins, and only while they run."""

from __future__ import annotations

import pytest

from velocity_ws import BrokerError
from velocity_ws.cluster.places import taking_place


class SomeBroker:
    """One that takes its place when it begins."""

    def __init__(self, place: str | None, *, is_twin: bool = False) -> None:
        self.name = "main"
        self.place = place
        self.is_twin = is_twin
        self.has_begun = False

    def begin(self) -> None:
        with taking_place(self):
            self.has_begun = True


def test_a_second_broker_in_a_place_is_refused_until_the_first_has_stopped() -> None:
    first, second = SomeBroker("redis://a:6379 velocity"), SomeBroker("redis://a:6379 velocity")
    first.begin()
    first.begin()  # again, which is no second one
    with pytest.raises(BrokerError, match="another broker named 'main' runs on the same engine"):
        second.begin()
    assert not second.has_begun
    first.has_begun = False
    second.begin()


def test_brokers_in_places_of_their_own_do_not_meet() -> None:
    brokers = [SomeBroker("redis://b:6379 velocity"), SomeBroker("redis://b:6379 shop"), SomeBroker(None)]
    for broker in (*brokers, SomeBroker(None)):
        broker.begin()


def test_twins_share_a_place_with_twins_alone() -> None:
    twins = [SomeBroker("redis://c:6379 velocity", is_twin=True) for _ in range(2)]
    for twin in twins:
        twin.begin()
    with pytest.raises(BrokerError, match="twin=True"):
        SomeBroker("redis://c:6379 velocity").begin()
