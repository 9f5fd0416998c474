"""ClientDirectory: what is done to a client of another node is done, and refused, as it is to one of this node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support import eventually, settings
from tests.support.holding import ROOM, Guest, HeldHistory, House, open_to_all
from velocity_ws import BackplaneUnavailable, Broker, ClientNotFound, HistoryError

Pair = tuple[Broker, Broker, Guest]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two nodes in one process, and a client of the second."""
    brokers = [Broker(settings(backplane_url="memory://pair", backplane_timeout="3s")) for _ in range(2)]
    for broker in brokers:
        open_to_all(broker)
    async with brokers[0] as here, brokers[1] as there, House(there, HeldHistory()).guest() as guest:
        await eventually(lambda: len(here.node.cluster.membership.ids()) == 1)  # type: ignore[union-attr]
        yield here, there, guest


async def test_it_comes_in_where_it_stopped(pair: Pair) -> None:
    here, there, guest = pair
    places = [(await here.to_room(ROOM).send("said", number)).at for number in range(3)]
    joined = await here.join_room(guest.session.id, ROOM, since=places[0])
    assert (joined.room, joined.at, joined.recovered, joined.missed) == (ROOM, places[0], True, 2)
    assert await guest.reads(2) == [1, 2]
    await here.leave_room(guest.session.id, ROOM)
    assert (await here.join_room(guest.session.id, ROOM, since="start")).missed == 3
    await here.leave_room(guest.session.id, ROOM)
    assert (await here.join_room(guest.session.id, ROOM, since=1)).missed == 1
    assert (await here.join_room(guest.session.id, ROOM)).recovered is None
    assert there.get_stats().recoveries["recovered"] == 3


@pytest.mark.parametrize("since", ["x", "", -1, True, 1.5, [], {}, b"x"])
async def test_what_says_nowhere_is_refused_wherever_the_client_is(pair: Pair, since: Any) -> None:
    for broker in pair[:2]:
        with pytest.raises(HistoryError, match="a position is the text"):
            await broker.join_room(pair[2].session.id, ROOM, since=since)
        with pytest.raises(HistoryError):
            await broker.join_room(pair[2].session.id, "plain:7", since=since)
    assert pair[2].session.rooms == frozenset()


async def test_a_room_without_history_has_nothing_to_look_back_into_wherever_the_client_is(pair: Pair) -> None:
    for broker in pair[:2]:
        with pytest.raises(HistoryError, match="has no history"):
            await broker.join_room(pair[2].session.id, "plain:7", since="start")
        assert (await broker.join_room(pair[2].session.id, "plain:7")).at is None


async def test_who_is_nowhere_is_not_found(pair: Pair) -> None:
    here, there, guest = pair
    gone = guest.session.id[:-1] + ("a" if guest.session.id[-1] != "a" else "b")
    for room in (ROOM, "plain:7"):
        for broker in (here, there):
            with pytest.raises(ClientNotFound):
                await broker.join_room(gone, room)


async def test_the_engine_is_away_for_its_node(pair: Pair) -> None:
    here, there, guest = pair
    at = (await here.to_room(ROOM).send("said", 1)).at
    histories = there.node.histories
    assert histories is not None
    await histories._link.stop()
    with pytest.raises(BackplaneUnavailable, match="could not do it"):
        await here.join_room(guest.session.id, ROOM, since=at)
    assert guest.session.rooms == frozenset()
    async with asyncio.timeout(5):
        assert (await here.join_room(guest.session.id, ROOM)).at is None
    assert guest.session.rooms == {ROOM}
