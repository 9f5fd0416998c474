"""Entering: what is true of a client that comes into a room that remembers, while the engine gets in the way."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import eventually
from tests.support.holding import ROOM, house
from velocity_ws import BackplaneUnavailable


async def test_a_member_that_asks_while_the_engine_is_away_stays_and_may_look_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as place:
        async with place.guest() as guest:
            at = (await guest.join())["at"]
            place.store.failing.add("connect")
            place.store.lose()
            await eventually(lambda: not place.histories.entrances.is_up)
            assert (await guest.join(since=at))["code"] == "UNAVAILABLE"
            assert guest.session.rooms == {ROOM}
            place.store.failing.clear()
            await eventually(lambda: place.histories.entrances.is_up)
            await place.say("a")
            assert await guest.reads(1) == ["a"]
        async with place.guest() as guest:
            assert (await guest.join(since=at))["missed"] == 1


async def test_who_cannot_come_in_now_is_not_in_and_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch, timeout="0.3s") as place, place.guest() as guest:
        at = await place.say("a")
        place.store.hold("tops")
        assert (await guest.join(since=at))["code"] == "UNAVAILABLE"
        assert guest.session.rooms == frozenset()
        place.store.let_go("tops")
        await place.say("b")
        assert (await guest.join(since=at))["missed"] == 1
        assert await guest.reads(1) == ["b"]


async def test_a_join_that_fails_does_not_take_out_who_was_put_in_again_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, timeout="0.3s") as place, place.guest() as guest:
        place.store.hold("tops")
        first = asyncio.create_task(place.broker.join_room(guest.session.id, ROOM, since="A" * 32))
        await eventually(lambda: place.store.calls["tops"])
        await place.broker.leave_room(guest.session.id, ROOM)
        second = asyncio.create_task(place.broker.join_room(guest.session.id, ROOM))
        with pytest.raises(BackplaneUnavailable):
            await first
        place.store.let_go("tops")
        await second
        assert guest.session.rooms == {ROOM}
        await place.say("a")
        assert await guest.reads(1) == ["a"]


async def test_who_is_let_in_before_the_engine_answers_gets_what_is_said_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, timeout="0.3s") as place, place.guest() as guest:
        place.store.hold("tops")
        assert (await place.broker.join_room(guest.session.id, ROOM)).at is None
        for what in ("a", "b"):
            await place.say(what)
        place.store.let_go("tops")
        assert await guest.reads(2) == ["a", "b"]
        await place.say("c")
        assert await guest.reads(1) == ["c"]


async def test_who_is_put_out_and_in_again_while_it_joins_is_not_told_of_messages_that_do_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as place, place.guest() as guest:
        at = await place.say("a")
        await place.say("b")
        place.store.hold("read")
        await guest.say("join", {"room": ROOM, "since": at}, id=1)
        await eventually(lambda: place.store.calls["read"])
        await place.broker.leave_room(guest.session.id, ROOM)
        again = asyncio.create_task(place.broker.join_room(guest.session.id, ROOM))
        place.store.let_go("read")
        await again
        assert (await guest.expect("error"))["code"] == "UNAVAILABLE"
        assert (await guest.join(since=at))["recovered"]
        assert await guest.reads(1) == ["b"]


async def test_who_does_not_wait_for_its_join_leaves_the_client_in_the_room_and_not_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as place, place.guest() as guest:
        place.store.hold("tops")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await place.broker.join_room(guest.session.id, ROOM)
        place.store.let_go("tops")
        await eventually(lambda: place.histories.place(ROOM))
        await place.say("a")
        assert await guest.reads(1) == ["a"]
