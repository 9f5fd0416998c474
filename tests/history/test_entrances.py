"""Entrances: what a client is answered that comes into a room, or is there, and asks for what was before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support import eventually
from tests.support.clocks import HandClock
from tests.support.holding import ROOM, Guest, House, house
from velocity_ws import BackplaneUnavailable
from velocity_ws.history import feeds as feeds_module

SLOW: dict[str, Any] = {"slow_client": "drop", "send_queue_size": 4096}
LARGE = "x" * 1500


async def drops(place: House, guest: Guest, room: str = ROOM) -> dict[str, Any]:
    """Let a member be too slow for some messages; the gap that it is told."""
    await place.say(*[f"{number}{LARGE}" for number in range(8)], room=room)
    while (message := await guest.take())["event"] == "said":
        pass
    assert message["event"] == "gap"
    gap: dict[str, Any] = message["data"]
    return gap


async def test_what_was_dropped_can_be_had_once_also_where_the_engine_was_away_when_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, **SLOW) as place, place.guest() as guest:
        await guest.join()
        gap = await drops(place, guest)
        assert gap["reason"] == "dropped"
        await place.broker.remove_user("somebody", ROOM)  # so that the engine has to be asked for removals
        place.store.failing.add("removed")
        assert (await guest.join(since=gap["from"]))["code"] == "UNAVAILABLE"
        place.store.failing.clear()
        answer = await guest.join(since=gap["from"])
        assert (answer["recovered"], answer["missed"]) == (True, gap["missed"])
        assert [data[0] for data in await guest.reads(gap["missed"])] == [str(8 - gap["missed"] + n) for n in range(6)]
        assert (await guest.join(since=gap["from"]))["missed"] == 0


async def test_what_was_dropped_is_not_all_there_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch, **SLOW) as place, place.guest() as guest:
        await guest.join()
        gap = await drops(place, guest)
        await place.broker.clear_history(ROOM)
        answer = await guest.join(since=gap["from"])
        assert (answer["recovered"], answer["reason"]) == (False, "evicted")
        await place.say("new")
        assert await guest.reads(1) == ["new"]


async def test_of_what_was_dropped_of_a_newest_message_the_newest_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch, **SLOW) as place, place.guest() as guest:
        await guest.join("price:x")
        gap = await drops(place, guest, "price:x")
        answer = await guest.join("price:x", since=gap["from"])
        assert (answer["recovered"], answer["missed"]) == (True, 1)
        assert [data[0] for data in await guest.reads(1)] == ["7"]


async def test_who_was_let_in_while_the_engine_was_away_may_ask_for_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds_module, "WAIT", 0.01)
    async with house(monkeypatch) as place, place.guest() as guest:
        at = await place.say("a")
        await place.say("b")
        place.store.failing.add("tops")
        joined = await place.broker.join_room(guest.session.id, ROOM)
        assert (joined.at, joined.recovered) == (None, None)
        assert (await guest.join(since=at))["code"] == "UNAVAILABLE"
        place.store.failing.clear()
        answer = await guest.join(since=at)
        assert (answer["recovered"], answer["missed"]) == (True, 1)
        assert await guest.reads(1) == ["b"]
        await place.say("c")
        assert await guest.reads(1) == ["c"]
        assert (await guest.join(since=at))["missed"] == 0


async def test_who_was_let_in_while_the_engine_was_away_and_asks_after_something_new_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds_module, "WAIT", 0.01)
    async with house(monkeypatch) as place, place.guest() as guest:
        at = await place.say("a")
        await place.say("b")
        place.store.failing.add("tops")
        await place.broker.join_room(guest.session.id, ROOM)
        place.store.failing.clear()
        await eventually(lambda: place.histories.place(ROOM))
        await place.say("c")
        assert await guest.reads(1) == ["c"]
        answer = await guest.join(since=at)
        assert (answer["recovered"], answer["reason"]) == (False, "expired")


async def test_who_asks_late_may_ask_again_where_the_engine_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as place, place.guest() as guest:
        at = await place.say("a")
        await place.say("b")
        await place.broker.remove_user("somebody", ROOM)
        await place.broker.join_room(guest.session.id, ROOM)
        place.store.failing.add("removed")
        assert (await guest.join(since=at))["code"] == "UNAVAILABLE"
        await place.say("c")
        assert await guest.reads(1) == ["c"]  # and it is not held any more
        place.store.failing.clear()
        assert (await guest.join(since=at))["reason"] == "expired"


async def test_who_comes_in_by_two_ways_at_once_gets_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as place, place.guest() as guest:
        at = await place.say("a")
        await place.say("b")
        place.store.hold("read")
        first = asyncio.create_task(place.broker.join_room(guest.session.id, ROOM, since=at))
        await eventually(lambda: place.store.calls["read"])
        second = asyncio.create_task(place.broker.join_room(guest.session.id, ROOM, since=at))
        asks_nothing = await place.broker.join_room(guest.session.id, ROOM)
        assert asks_nothing.recovered is None
        place.store.let_go("read")
        assert ((await first).missed, (await second).missed) == (1, 0)
        await place.say("c")
        assert await guest.reads(2) == ["b", "c"]


async def test_what_is_too_old_by_the_engines_clock_is_in_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, node = HandClock(), HandClock()
    clock: dict[str, Any] = {"clock": node}
    make = feeds_module.Feeds
    monkeypatch.setattr("velocity_ws.history.histories.Feeds", lambda *parts, **more: make(*parts, **more | clock))
    async with house(monkeypatch, clock=engine) as place, place.guest() as first:
        for room in ("open:x", "price:x"):
            await first.join(room)
            await place.say("a", room=room)
            await first.reads(1)
        engine.advance(61)
        node.advance(61)
        async with place.guest() as guest:
            assert (await guest.join("open:x", since="start"))["missed"] == 0
            assert (await guest.join("open:x", since=5))["missed"] == 0
            await guest.join("price:x")
            await place.say("b", room="price:x")
            assert await guest.reads(1) == ["b"]


async def test_what_the_engine_does_not_keep_here_cannot_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as place, place.guest() as guest:
        with pytest.raises(BackplaneUnavailable, match="not kept"):
            await place.histories.entrances.enter(guest.session, ROOM, None, None)
