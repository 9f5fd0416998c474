"""CatchingUp: what members get that were held, piece by piece, whatever they do and is done to them meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support import eventually
from tests.support.holding import ROOM, Guest, House, house
from velocity_ws import Broker, Client, History
from velocity_ws.history import catching_up
from velocity_ws.history import feeds as feeds_module
from velocity_ws.history.items import Append


class Door:
    """An ``authorize`` that waits, where the test says so, and lets in who is not banned."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.asked = 0
        self.banned: set[str] = set()

    async def authorize(self, client: Client, room: str) -> bool:
        self.asked += 1
        await self.is_open.wait()
        return client.id not in self.banned


def guarded(door: Door, size: int = 1000) -> Callable[[Broker], None]:
    """Rooms that remember, behind a door."""

    def prepare(broker: Broker) -> None:
        broker.rooms("chat:{name}", history=History(size=size, ttl="1m", max_bytes="8MiB")).authorize(door.authorize)

    return prepare


def data(number: int, size: int = 1000) -> str:
    return f"{number}:{'x' * size}"


async def numbers(guest: Guest, count: int) -> list[int]:
    return [int(each.split(":")[0]) for each in await guest.reads(count)]


async def begin(place: House) -> str:
    """The position at which a room begins."""
    async with place.guest() as guest:
        at: str = (await guest.join())["at"]
    return at


async def test_a_large_replay_comes_in_pieces_then_what_was_said_meanwhile_then_what_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, guarded(Door())) as place:
        at = await begin(place)
        await place.say(*[data(number) for number in range(300)])
        async with place.guest() as guest:
            assert (await guest.join(since=at))["missed"] == 300
            await place.say(*[data(number) for number in range(300, 320)])
            await asyncio.sleep(0)
            most = guest.transport.queued_bytes
            found = await numbers(guest, 320)
            assert found == list(range(320))
            assert most <= catching_up.PIECE
            await eventually(lambda: not place.broker.node.hub._held)
            await place.say(data(320))
            assert await numbers(guest, 1) == [320]
        assert place.store.calls["read"] == 1


async def test_what_the_node_has_no_more_is_read_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch, guarded(Door()), send_queue_size=20_000) as place, place.guest() as other:
        at = (await other.join())["at"]
        await place.say(data(0))
        await other.reads(1)
        async with place.guest() as guest:
            assert (await guest.join(since=at))["missed"] == 1
            door_is_shut = place.broker.node.hub.hold(guest.session.id, ROOM, 1000)
            assert door_is_shut is not None
            for number in range(1, 61):
                await place.say(data(number))
                await other.reads(1)
            feed = place.histories.feeds.of(ROOM)
            assert feed is not None
            for _ in range(50):
                feed.ring.popleft()
            place.broker.node.hub.release(door_is_shut)
            assert await numbers(guest, 61) == list(range(61))
        assert place.store.calls["read"] >= 6


async def test_a_client_that_does_not_read_is_as_slow_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catching_up, "PATIENCE", 0.01)
    async with house(monkeypatch, guarded(Door()), send_queue_size=10_000) as place:
        at = await begin(place)
        await place.say(*[data(number) for number in range(50)])
        async with place.guest() as guest:
            await guest.join(since=at)
            await eventually(lambda: not guest.session.is_connected)
            await eventually(lambda: not place.histories._catching_up._tasks)
        assert place.broker.get_stats().slow_closes == 1


async def test_who_is_asked_about_while_it_catches_up_gets_the_rest_when_it_may_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door()
    async with house(monkeypatch, guarded(door)) as place:
        at = await begin(place)
        await place.say(*[data(number) for number in range(300)])
        async with place.guest() as guest:
            await guest.join(since=at)
            door.is_open.clear()
            asking = asyncio.create_task(place.broker.reauthorize(ROOM))
            await eventually(lambda: door.asked == 3)
            had = await numbers(guest, len(guest.transport.queue))
            await place.say(data(300))
            await eventually(lambda: guest.transport.is_free)
            door.is_open.set()
            await asking
            assert had + await numbers(guest, 301 - len(had)) == list(range(301))


async def test_who_is_put_out_while_it_catches_up_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door()
    async with house(monkeypatch, guarded(door)) as place:
        at = await begin(place)
        await place.say(*[data(number) for number in range(300)])
        async with place.guest() as guest:
            await guest.join(since=at)
            door.banned.add(guest.session.id)
            await place.broker.reauthorize(ROOM)
            events = [(await guest.take())["event"] for _ in range(len(guest.transport.queue))]
            assert events[-1] == "left"
            assert events.count("said") < 300
            await eventually(lambda: not place.histories._catching_up._tasks)
            assert not guest.transport.queue


async def test_what_nobody_here_can_read_is_told_to_who_was_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds_module, "WAIT", 0.0)
    async with house(monkeypatch, guarded(Door())) as place, place.guest() as guest, place.guest() as other:
        await guest.join()
        await other.join()
        hold = place.broker.node.hub.hold(guest.session.id, ROOM, 1000)
        assert hold is not None
        feed = place.histories.feeds.of(ROOM)
        assert feed is not None
        await place.say(data(0))
        await place.store.append([Append(feed.log, b"of a version to come")])
        await place.say(data(1))
        assert await numbers(other, 1) == [0]
        gap = await other.expect("gap")
        assert await numbers(other, 1) == [1]
        place.broker.node.hub.release(hold)
        assert await numbers(guest, 1) == [0]
        assert await guest.expect("gap") == gap
        assert (gap["missed"], gap["reason"]) == (1, "evicted")
        assert await numbers(guest, 1) == [1]


@pytest.mark.parametrize("ends", ["evicted", "epoch", "away"])
async def test_what_is_gone_meanwhile_is_told_once(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.setattr(catching_up, "AGAIN", 0.01)
    async with house(monkeypatch, guarded(Door(), size=5)) as place, place.guest() as guest:
        await guest.join()
        hold = place.broker.node.hub.hold(guest.session.id, ROOM, 1000)
        assert hold is not None
        await place.say(*[data(number) for number in range(12)])
        if ends == "epoch":
            engine = place.store._connected()
            engine._logs.clear()
            engine._dues.clear()
            place.histories.feeds.deaf(place.histories.feeds.of(ROOM).log.topic)  # type: ignore[union-attr]
            epoch = place.histories.place(ROOM).epoch  # type: ignore[union-attr]
            await eventually(lambda: place.histories.place(ROOM).epoch != epoch)  # type: ignore[union-attr]
        if ends == "away":
            place.store.failing.add("read")
        place.broker.node.hub.release(hold)
        if ends == "away":
            await eventually(lambda: place.store.calls["read"] > 1)
            place.store.failing.clear()
        gap = await guest.expect("gap")
        if ends == "epoch":
            assert (gap["missed"], gap["reason"]) == (None, "epoch")
            await eventually(lambda: hold.is_over)
            await place.say(data(12))
            assert await numbers(guest, 1) == [12]
        else:
            assert (gap["missed"], gap["reason"]) == (7, "evicted")
            assert await numbers(guest, 5) == list(range(7, 12))


async def test_an_engine_that_says_less_than_was_heard_is_asked_again_and_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catching_up, "AGAIN", 0.01)
    async with house(monkeypatch, guarded(Door())) as place, place.guest() as guest:
        await guest.join()
        hold = place.broker.node.hub.hold(guest.session.id, ROOM, 1000)
        feed = place.histories.feeds.of(ROOM)
        assert hold is not None
        assert feed is not None
        log = place.store._connected()._logs[feed.log.topic]
        before = log.top(0), list(log._entries)
        await place.say(data(0))
        after = log._offset, log._mark, list(log._entries)
        log._offset, log._mark = before[0].position.offset, before[0].position.mark
        log._entries.clear()
        feed.ring.clear()
        monkeypatch.setattr(place.histories.feeds, "deaf", lambda _topic: None)
        place.broker.node.hub.release(hold)
        await eventually(lambda: place.store.calls["read"] > 1)
        log._offset, log._mark = after[0], after[1]
        log._entries.extend(after[2])
        assert await numbers(guest, 1) == [0]
