"""Readers: whose connection ends, and who comes and goes, while something is still to be given."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

from tests.support import eventually
from velocity_ws.sessions.hub import Hub
from velocity_ws.streams.copies import Copies, StreamCopy
from velocity_ws.streams.pieces import Piece
from velocity_ws.streams.readers import Readers, read_positions
from velocity_ws.streams.room_streams import RoomStreams

ROOM = "chat"


class _Session:
    """A member whose outbox is closed, as its connection has ended, before it hears of that."""

    id = "1"
    user_id = None
    is_connected = True
    outbox = SimpleNamespace(is_free=False)

    def __init__(self) -> None:
        self.puts = 0

    async def put(self, _message: object, _seconds: float) -> bool:
        self.puts += 1
        assert self.puts < 100, "the loop gets no turn"
        return False

    def end(self) -> None:
        self.is_connected = False


def _reading() -> tuple[Readers, RoomStreams, _Session, Hub[Any]]:
    hub: Hub[Any] = Hub()
    readers, room, session = Readers(hub, lambda *_: []), RoomStreams(ROOM, "topic", 0.0), _Session()
    hub.add(session)
    hub.join(session.id, ROOM)

    def run(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(work)

    readers.following = cast("Any", SimpleNamespace(rooms={ROOM: room}, run=run))
    copy = room.copies["a"] = StreamCopy("a", ROOM, "topic", Copies(1000))
    copy.heard(Piece(0, 0, 4, "text", "", b"text"))
    return readers, room, session, hub


async def test_a_connection_that_has_ended_leaves_the_loop_to_what_tells_of_it() -> None:
    readers, room, session, _ = _reading()
    readers.read(cast("Any", session), room.copies["a"], 0)
    asyncio.get_running_loop().call_soon(session.end)
    await eventually(lambda: not readers._readers)
    assert not room.copies["a"].behind


async def test_who_comes_again_before_streams_are_known_waits_for_its_second_answer() -> None:
    readers, room, session, hub = _reading()
    readers.came(cast("Any", session), ROOM)
    readers.go(cast("Any", session), ROOM, {})
    hub.leave(session.id, ROOM)
    hub.join(session.id, ROOM)
    readers.came(cast("Any", session), ROOM)
    room.is_known = True
    readers.known(room)
    assert room.waiting == {session.id}
    assert not readers._readers


def test_what_a_client_says_it_has_is_of_ids_that_streams_may_have() -> None:
    said = {"a": 4, "b": 0, "": 1, "x" * 257: 1, "\0fa": 1, "a\0": 1, "c": -1, "d": "1", "e": True}
    assert read_positions(said) == {"a": 4, "b": 0}
    assert read_positions(["a"]) == {}
