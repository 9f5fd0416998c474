"""Resuming: rooms that the application joins, for clients that say where they stopped, or do not, or too late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support import eventually
from tests.support.holding import ROOM, Guest, House, house, open_to_all
from velocity_ws import Broker, Client
from velocity_ws.history import feeds as feeds_module
from velocity_ws.history import resuming
from velocity_ws.history.recoveries import Entrance, Since
from velocity_ws.history.resuming import Returning
from velocity_ws.history.values import Joined
from velocity_ws.sessions.holds import Hold
from velocity_ws.sessions.session import Session


def joined_at_once(*rooms: str) -> Callable[[Broker], None]:
    """A broker that puts every client into some rooms."""

    def prepare(broker: Broker) -> None:
        open_to_all(broker)

        @broker.on_connect
        async def welcome(client: Client) -> None:
            for room in rooms:
                await broker.join_room(client.id, room)

    return prepare


async def begins(guest: Guest) -> None:
    """Have its ``on_connect`` hooks end."""
    assert "token" in await guest.expect("session")


async def test_who_says_where_it_stopped_gets_what_it_missed_in_each_room(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = [f"chat:{number}" for number in range(5)]
    async with house(monkeypatch, joined_at_once(*rooms)) as place:
        said = {room: await place.say(room, room=room) for room in rooms}
        for room in rooms[:4]:
            await place.say("new", room=room)
        await eventually(lambda: place.histories.resumptions.key)
        async with place.guest("resume=1") as guest:
            await begins(guest)
            await guest.say("resume", {"rooms": {**dict(list(said.items())[:3]), rooms[3]: "garbage"}}, id=7)
            found = [await guest.take() for _ in range(5 + 3 + 1)]
    told = {each["data"]["room"]: each["data"].get("missed") for each in found if each["event"] == "joined"}
    assert told == {**dict.fromkeys(rooms[:3], 1), rooms[3]: None, rooms[4]: None}
    assert [each["room"] for each in found if each["event"] == "said"] == rooms[:3]
    assert found[-1]["id"] == 7


async def test_an_engine_that_does_not_answer_is_waited_for_once_and_not_for_each_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming, "AGAIN", 0.01)
    rooms = [f"chat:{number}" for number in range(40)]
    async with house(monkeypatch, joined_at_once(*rooms), timeout="0.3s") as place:
        said = {}
        for room in rooms:
            said[room] = await place.say("a", room=room)
            await place.say("b", room=room)
        await eventually(lambda: place.histories.resumptions.key)
        async with place.guest("resume=1") as guest:
            await begins(guest)
            place.store.hold("read")
            begin = asyncio.get_running_loop().time()
            await guest.say("resume", {"rooms": said}, id=7)
            assert await guest.expect("reply") == {}
            assert asyncio.get_running_loop().time() - begin < 6  # and not 12 s
            place.store.let_go("read")
            found = [await guest.take() for _ in range(80)]
    assert sorted(each["room"] for each in found if each["event"] == "said") == sorted(rooms)


async def test_who_was_let_in_while_the_engine_was_away_is_told_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming, "AGAIN", 0.01)
    monkeypatch.setattr(feeds_module, "WAIT", 0.01)
    async with house(monkeypatch, joined_at_once(ROOM)) as place:
        at = await place.say("a")
        await place.say("b")
        await eventually(lambda: place.histories.resumptions.key)
        place.store.failing.add("tops")
        async with place.guest("resume=1") as guest, place.guest("resume=1") as goes:
            await begins(guest)
            await begins(goes)
            for each in (guest, goes):
                await each.say("resume", {"rooms": {ROOM: at}}, id=7)
                assert await each.expect("reply") == {}
            await eventually(lambda: len(place.histories.resumptions._tasks) == 2)
            await place.broker.disconnect(goes.session.id)
            await eventually(lambda: len(place.histories.resumptions._tasks) == 1)  # nobody waits for who has gone
            place.store.failing.clear()
            told = await guest.expect("joined")
            assert (told["recovered"], told["missed"]) == (True, 1)
            assert await guest.reads(1) == ["b"]


async def test_who_says_nothing_is_let_go_after_a_moment_and_who_says_something_else_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming, "PATIENCE", 0.02)
    async with house(monkeypatch, joined_at_once(ROOM)) as place:
        await eventually(lambda: place.histories.resumptions.key)
        async with place.guest("resume=1") as silent, place.guest() as bare:
            await begins(silent)
            assert (await silent.expect("joined"))["room"] == ROOM
            await place.say("a")
            assert (await silent.reads(1), await bare.reads(1)) == (["a"], ["a"])
        monkeypatch.setattr(resuming, "PATIENCE", 100.0)
        async with place.guest("resume=1") as other:
            await begins(other)
            await place.say("b")
            await other.say("unknown", id=1)
            assert {(await other.take())["event"] for _ in range(3)} == {"joined", "said", "error"}


async def test_the_application_says_where_a_client_stopped_of_which_that_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming, "PATIENCE", 0.05)
    async with house(monkeypatch, joined_at_once(ROOM)) as place:
        at = await place.say("a")
        await place.say("b")
        await place.broker.remove_user("somebody", ROOM)
        await eventually(lambda: place.histories.resumptions.key)
        async with place.guest("resume=1") as guest:
            await begins(guest)
            place.store.hold("removed")
            joining = asyncio.create_task(place.broker.join_room(guest.session.id, ROOM, since=at))
            await eventually(lambda: place.store.calls["removed"])
            await eventually(lambda: not place.histories.resumptions._schedule)  # its time is over meanwhile
            place.store.let_go("removed")
            assert (await joining).missed == 1
            assert (await guest.expect("joined"))["missed"] == 1
            assert await guest.reads(1) == ["b"]


async def test_a_client_is_waited_for_again_where_the_engine_could_not_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, joined_at_once(ROOM)) as place:
        at = await place.say("a")
        await place.say("b")
        await place.broker.remove_user("somebody", ROOM)
        await eventually(lambda: place.histories.resumptions.key)
        async with place.guest("resume=1") as guest:
            await begins(guest)
            place.store.failing.add("removed")
            with pytest.raises(ConnectionError):
                await place.broker.join_room(guest.session.id, ROOM, since=at)
            place.store.failing.clear()
            await guest.say("resume", {"rooms": {ROOM: at}})
            assert (await guest.expect("joined"))["missed"] == 1
            assert await guest.reads(1) == ["b"]


def enters(place: House, guest: Guest) -> Entrance:
    """Put a client into the room, as the application does."""
    place.broker.node.hub.join(guest.session.id, ROOM)
    hold = place.histories.entrances.hold_back(guest.session, ROOM)
    hold.cursor = place.histories.place(ROOM)
    return Entrance(Joined(ROOM), hold)


async def test_a_way_in_that_is_over_does_not_take_the_place_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as place, place.guest() as other:
        await other.join()
        await eventually(lambda: place.histories.resumptions.key)
        async with place.guest("resume=1") as guest:
            await begins(guest)
            returning = guest.session.returning
            assert isinstance(returning, Returning)
            first = enters(place, guest)
            place.broker.node.hub.leave(guest.session.id, ROOM)
            second = enters(place, guest)
            returning.came(second)
            returning.came(first)
            await guest.say("unknown")
            await eventually(lambda: second.hold is not None and second.hold.is_over)
            await place.say("a")
            assert {(await guest.take())["event"] for _ in range(3)} == {"joined", "error", "said"}


async def test_nobody_tries_again_while_there_is_no_connection_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "AGAIN", 0.0)
    monkeypatch.setattr(feeds_module, "WAIT", 0.01)
    async with house(monkeypatch, joined_at_once(ROOM)) as place:
        at = await place.say("a")
        await place.say("b")
        resumptions = place.histories.resumptions
        await eventually(lambda: resumptions.key)
        place.store.failing.add("connect")
        place.store.lose()
        await eventually(lambda: not resumptions.is_up.is_set())
        ask, tries = resumptions._ask_again, []

        async def counted(session: Session, room: str, since: Since | None, hold: Hold[Session] | None) -> Entrance:
            tries.append(room)
            return await ask(session, room, since, hold)

        monkeypatch.setattr(resumptions, "_ask_again", counted)
        async with place.guest("resume=1") as guest:
            await begins(guest)
            await guest.say("resume", {"rooms": {ROOM: at}}, id=7)
            assert await guest.expect("reply") == {}
            for _ in range(100):
                await asyncio.sleep(0)
            assert tries == [ROOM]
            place.store.failing.clear()
            assert (await guest.expect("joined"))["missed"] == 1
            assert await guest.reads(1) == ["b"]
