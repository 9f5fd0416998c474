"""Recoveries: what a client is answered, by the ring of the node and by the engine, and what is counted of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support import eventually
from tests.support.holding import ROOM, House, house
from velocity_ws.history.feed import Feed
from velocity_ws.history.items import Top
from velocity_ws.history.recoveries import marks_of, user_mark

OPEN = "open:x"


async def answer(place: House, since: Any, room: str = ROOM) -> dict[str, Any]:
    """What a client is answered that comes, and what it gets then."""
    async with place.guest() as guest:
        found: dict[str, Any] = await guest.join(room, since)
        count = found.get("missed") or 0
        return {**found, "got": await guest.reads(count)}


@pytest.mark.parametrize("ring", ["16MiB", 1])
async def test_all_that_was_missed_or_the_reason_why_not_with_and_without_a_ring(
    monkeypatch: pytest.MonkeyPatch, ring: Any
) -> None:
    async with house(monkeypatch, history_ring=ring, recovery_limit=8) as place, place.guest() as member:
        begin = (await member.join())["at"]
        places = [begin, *[await place.say(number) for number in range(1, 16)]]
        for number, at in enumerate(places):
            found = await answer(place, at)
            if number >= 7:
                assert (found["recovered"], found["got"]) == (True, list(range(number + 1, 16)))
                assert found["at"] == at
            else:
                assert (found["recovered"], found["at"]) == (False, places[-1])
                assert found["reason"] == ("too_many" if number >= 5 else "evicted")
        stats = place.broker.get_stats()
        assert {name: count for name, count in stats.recoveries.items() if count} == {
            "recovered": 9, "evicted": 5, "too_many": 2,
        }  # fmt: skip
        assert stats.recovered_messages == sum(range(9))


@pytest.mark.parametrize("ring", ["16MiB", 1])
async def test_a_room_is_looked_back_into_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch, ring: Any) -> None:
    async with house(monkeypatch, history_ring=ring, recovery_limit=8) as place:
        assert (await answer(place, "start", OPEN))["got"] == []
        for number in range(1, 8):
            await place.say(number, room=OPEN)
        for since, got in (("start", range(1, 8)), (0, []), (3, [5, 6, 7]), (7, range(1, 8)), (100, range(1, 8))):
            found = await answer(place, since, OPEN)
            assert (found["recovered"], found["got"]) == (True, list(got)), since
        await place.say(8, 9, 10, room=OPEN)
        assert (await answer(place, "start", OPEN))["reason"] == "too_many"
        assert (await answer(place, 9, OPEN))["reason"] == "too_many"
        assert (await answer(place, 8, OPEN))["got"] == list(range(3, 11))


async def test_who_was_removed_by_its_user_or_by_an_id_of_before_has_no_way_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as place:
        at = await place.say(1)
        await eventually(lambda: place.histories.resumptions.key)
        async with place.guest("resume=1") as guest:
            token = (await guest.expect("session"))["token"]
            assert marks_of(guest.session, [guest.session.id]) == [f"c{guest.session.id}"]
            await place.histories.put_out(guest.session, ROOM)
        await place.say(2)
        assert (await answer(place, at))["missed"] == 1  # who is not known to be the same
        async with place.guest("resume=1") as again:
            await again.expect("session")
            await again.say("resume", {"rooms": {}, "session": token})
            await again.expect("session")
            assert (await again.join(since=at))["reason"] == "forbidden"
    assert user_mark("ann") == "uann"


async def test_nobody_gets_its_own_messages_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as place:
        at = await place.say(1)
        await eventually(lambda: place.histories.resumptions.key)
        async with place.guest("resume=1") as guest:
            token = (await guest.expect("session"))["token"]
            await place.broker.to_room(ROOM).except_(guest.session.id).send("said", "of its own")
        await place.say(2)
        async with place.guest("resume=1") as again:
            await again.expect("session")
            await again.say("resume", {"rooms": {}, "session": token})
            await again.expect("session")
            assert (await again.join(since=at))["missed"] == 1
            assert await again.reads(1) == [2]
        assert (await answer(place, at))["got"] == ["of its own", 2]


async def test_a_log_that_began_anew_is_told_with_the_newest_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as place:
        at = await place.say(1, room="price:x")
        place.store.forget()
        await place.say(2, room="price:x")
        async with place.guest() as guest:
            found = await guest.join("price:x", at)
            assert (found["recovered"], found["reason"]) == (False, "epoch")
            assert await guest.reads(1) == [2]


async def test_who_has_missed_nothing_stands_where_it_said_though_more_is_said_while_that_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, history_ring=1) as place, place.guest() as member:
        await member.join()
        await eventually(lambda: place.histories.resumptions.key)
        at = await place.say(1)
        async with place.guest("resume=1") as guest:
            token = (await guest.expect("session"))["token"]
            await place.broker.to_room(ROOM).except_(guest.session.id).send("said", "of its own")
        async with place.guest("resume=1") as again:
            await again.expect("session")
            await again.say("resume", {"rooms": {}, "session": token})
            await again.expect("session")
            place.store.hold_answers("read")
            joining = asyncio.create_task(again.join(since=at))
            await eventually(lambda: place.store.calls["read"] == 1)
            place.store.let_go("read")
            place.store.hold_answers("read")
            await eventually(lambda: place.store.calls["read"] == 2)  # which is of this client alone
            await place.say(2)
            place.store.let_go("read")
            found = await joining
            assert (found["recovered"], found["missed"], found["at"]) == (True, 0, at)  # or 2 is lost with a connection
            assert await again.reads(1) == [2]


@pytest.mark.parametrize("is_over", [False, True])
async def test_nobody_is_led_back_by_what_was_read_before_it_came(
    monkeypatch: pytest.MonkeyPatch, *, is_over: bool
) -> None:
    async with house(monkeypatch) as place, place.guest() as member:
        await member.join()
        await place.say(1)
        feed = place.histories.feeds.of(ROOM)
        assert feed is not None
        place.store.hold_answers("read")
        reading = asyncio.create_task(place.histories.feeds.ranged(feed))
        await eventually(lambda: place.store.calls["read"] == 1)
        has_come = asyncio.Event()
        monkeypatch.setattr(place.histories.feeds, "ranged", _noted(place.histories.feeds.ranged, has_come))
        places = []
        for _ in range(1 + is_over):  # another node is quicker, and its client comes here
            place.store.forget()
            (top,) = await place.store.tops([feed.log])
            assert isinstance(top, Top)
            places.append(top.position.at)
        async with place.guest() as guest:
            joining = asyncio.create_task(guest.join(since=places[0]))
            await has_come.wait()
            place.store.let_go("read")
            found = await joining
            assert found["at"] == places[-1]
            assert found.get("reason") == ("epoch" if is_over else None)
        await reading


def _noted(read: Callable[[Feed], Awaitable[None]], has_come: asyncio.Event) -> Callable[[Feed], Awaitable[None]]:
    async def noted(feed: Feed) -> None:
        has_come.set()
        await read(feed)

    return noted
