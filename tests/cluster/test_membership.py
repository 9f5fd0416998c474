"""Membership: a node lives as long as it is heard, and says that it does every quarter of its lease."""

from __future__ import annotations

import asyncio
import time

from tests.support import eventually
from velocity_ws.cluster.envelopes import Heartbeat
from velocity_ws.cluster.membership import Membership

NODE = "elevenchars"


def membership_at(now: list[float], told: list[str]) -> Membership:
    """One whose clock is set by hand, and what it tells of others."""
    return Membership(
        NODE,
        10.0,
        True,
        lambda *_: None,
        lambda node: told.append(f"+{node}"),
        lambda node: told.append(f"-{node}"),
        lambda: now[0],
    )


def membership_that_says(said: list[tuple[str | None, Heartbeat]], lease: float, *, is_node: bool = True) -> Membership:
    """One whose heartbeats are kept, to whom and what."""
    return Membership(
        NODE,
        lease,
        is_node,
        lambda to, heartbeat: said.append((to, heartbeat)),
        lambda _: None,
        lambda _: None,
        time.monotonic,
    )


def test_a_node_lives_as_long_as_it_is_heard() -> None:
    now, told = [0.0], list[str]()
    members = membership_at(now, told)
    members.received("a", Heartbeat("hello", 10.0))
    members.received("b", Heartbeat("alive", 2.0))
    members.received("script", Heartbeat("hello", 10.0, (), False))
    now[0] = 1.9
    members.expire()
    assert told == ["+a", "+b", "-b"]
    members.received("b", Heartbeat("alive", 2.0))
    now[0] = 9.9
    members.renew()  # this node was deaf
    members.expire()
    assert members.ids() == {"a", "b"}
    members.received("a", Heartbeat("bye", 0.0))
    members.received("a", Heartbeat("bye", 0.0))
    now[0] = 12.0
    members.expire()
    assert told == ["+a", "+b", "-b", "+b", "-a", "-b"]
    assert len(members) == 0


def test_a_node_that_went_without_a_word_may_live_for_a_while() -> None:
    now = [0.0]
    members = membership_at(now, [])
    for name in ("held up", "said goodbye", "back again", "late goodbye"):
        members.received(name, Heartbeat("alive", 2.0))
    members.received("said goodbye", Heartbeat("bye", 0.0))
    now[0] = 2.0
    members.expire()
    members.received("back again", Heartbeat("alive", 1000.0))
    members.received("late goodbye", Heartbeat("bye", 0.0))
    assert len(members) == 1
    found = [name for name in ("held up", "said goodbye", "back again", "late goodbye") if members.may_live(name)]
    assert found == ["held up", "back again"]
    assert members.ids() == {"back again"}
    assert members.ids(lost=True) == {"back again", "held up"}
    now[0] = 62.0
    members.expire()
    assert not members.may_live("held up")
    for number in range(1500):
        members.received(f"node {number}", Heartbeat("alive", 1.0))
    now[0] = 64.0
    members.expire()
    assert sum(members.may_live(f"node {number}") for number in range(1500)) == 1000


async def test_a_heartbeat_is_sent_every_quarter_of_the_lease_while_the_others_are_heard() -> None:
    said: list[tuple[str | None, Heartbeat]] = []
    is_healthy = False
    members = membership_that_says(said, 0.2)
    task = asyncio.create_task(members.run(lambda: is_healthy))
    began = time.monotonic()
    await eventually(lambda: time.monotonic() - began > 0.1)
    assert said == [], "nobody hears it either"
    is_healthy = True
    began = time.monotonic()
    await eventually(lambda: len(said) >= 4)
    assert said[:4] == [(None, Heartbeat("alive", 0.2))] * 4
    assert time.monotonic() - began > 0.9 * 3 * 0.2 / 4
    task.cancel()
    await asyncio.wait([task])


async def test_nodes_are_discovered_when_all_that_others_know_have_answered() -> None:
    said: list[tuple[str | None, Heartbeat]] = []
    members = membership_that_says(said, 60.0)
    discovery = asyncio.create_task(members.discover())
    await asyncio.sleep(0)
    assert said == [(None, Heartbeat("hello", 60.0))]
    members.received("a", Heartbeat("welcome", 60.0, ("b", NODE)))
    await asyncio.sleep(0)
    assert not discovery.done()
    members.received("b", Heartbeat("welcome", 60.0, ("a", NODE)))
    await discovery
    await members.wait_discovered()
    assert members.ids() == {"a", "b"}


async def test_a_hello_is_answered_by_nodes_alone() -> None:
    said: list[tuple[str | None, Heartbeat]] = []
    members = membership_that_says(said, 60.0)
    members.received("a", Heartbeat("hello", 5.0))
    members.received("script", Heartbeat("hello", 5.0, (), False))
    assert said == [("a", Heartbeat("welcome", 60.0, ("a",))), ("script", Heartbeat("welcome", 60.0, ("a",)))]
    membership_that_says(said, 60.0, is_node=False).received("a", Heartbeat("hello", 5.0))
    assert len(said) == 2
