"""RoomStreams: what is missed while it is read what was missed, and what comes after the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, cast

import pytest

from tests.support import eventually
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.streams.copies import StreamCopy
from velocity_ws.streams.following import Following
from velocity_ws.streams.items import Part, Query, Summary
from velocity_ws.streams.pieces import Piece, pack
from velocity_ws.streams.room_streams import RoomStreams


class _Link:
    """An engine that has pieces, and answers a read with those it had when it was asked, once it may."""

    def __init__(self) -> None:
        self.on_up: list[Any] = []
        self.stored: list[bytes] = []
        self.end: Literal["", "lost"] = ""
        self.reads = self.lists = 0
        self.may_answer = asyncio.Event()
        self.may_list = asyncio.Event()
        self.may_list.set()

    def summary(self) -> Summary:
        empty = {"lost": 2, "": 0}[self.end]
        pieces, length = len(self.stored) + empty, len(self.stored)
        return Summary("a", "topic", "room", b"w" * 16, pieces, length, self.end, 1000, 0)

    async def listed(self, _topic: str) -> Sequence[Summary]:
        found = [self.summary()] if self.stored else []
        self.lists += 1
        await self.may_list.wait()
        return found

    async def read(self, query: Query) -> Part:
        self.reads += 1
        found = Part(self.summary(), self.stored[query.after :])
        await self.may_answer.wait()
        return found


class _Gives:
    def __init__(self) -> None:
        self.given: list[int] = []
        self.ends: list[str] = []

    def give(self, _copy: StreamCopy, piece: Piece, _message: PreparedMessage) -> None:
        self.given.append(piece.number)
        self.ends.append(piece.end)

    def known(self, room: RoomStreams) -> None:
        pass

    def forget(self, room: RoomStreams) -> None:
        pass


def _following(*deaf: bool) -> tuple[Following, _Link, _Gives]:
    """It hears nothing for so many questions whether it does."""
    link, gives, is_deaf = _Link(), _Gives(), list(deaf)

    async def wait_heard(_room: str) -> bool:
        return not (is_deaf and is_deaf.pop())

    return Following(cast("Any", link), gives, wait_heard, keep=1000, lease=10, clock=lambda: 0.0), link, gives


def _piece(number: int) -> bytes:
    return pack(Piece(number, number, 1, "text", "", b"x"))


async def test_what_is_stored_while_it_is_read_what_was_missed_is_read_too() -> None:
    following, link, gives = _following()
    room = following.open("room", "topic")
    await eventually(lambda: room.is_known)
    for number in (0, 1, 2):
        link.stored.append(_piece(number))
    for number in (0, 2):  # 1 is not heard
        following.heard("room", "a", _piece(number))
    await eventually(lambda: link.reads)
    link.stored += [_piece(3), _piece(4)]
    following.heard("room", "a", _piece(4))  # nor is 3, and the read knows of neither
    link.may_answer.set()
    await eventually(lambda: gives.given == [0, 1, 2, 3, 4])
    await following.stop()


@pytest.mark.parametrize("texts", [0, 1, 3])
async def test_an_end_behind_pieces_of_nothing_is_read_though_none_of_them_is(texts: int) -> None:
    """An engine leaves out pieces without text: that by which a stream begins, and the end."""
    following, link, gives = _following()
    link.may_answer.set()
    room = following.open("room", "topic")
    await eventually(lambda: room.is_known)
    link.stored += [_piece(number) for number in range(texts)]
    link.end = "lost"
    following.heard("room", "a", pack(Piece(5, 5, 1, "text", "", b"x")))  # of which no more is known
    await eventually(lambda: gives.ends[-1:] == ["lost"])
    assert gives.given == [*range(texts), texts + 1]
    await following.stop()


async def test_members_get_what_has_begun_while_nothing_was_heard() -> None:
    following, link, gives = _following()
    link.may_answer.set()
    room = following.open("room", "topic")
    await eventually(lambda: room.is_known)
    link.stored += [_piece(0), _piece(1)]
    following.look_for_new()
    await eventually(lambda: gives.given == [0, 1])
    following.look_for_new()
    await eventually(lambda: following._learning._looking is None)
    assert gives.given == [0, 1]
    await following.stop()


async def test_what_has_begun_before_a_room_was_heard_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.streams.learning.AGAIN", 0.01)
    following, link, gives = _following(True, True, True)
    link.may_answer.set()
    room = following.open("room", "topic")
    await eventually(lambda: room.is_known)
    link.stored.append(_piece(0))
    await eventually(lambda: gives.given == [0])
    await following.stop()


async def test_what_has_begun_while_a_room_was_asked_about_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer may be older than the connection by which the node hears what begins."""
    monkeypatch.setattr("velocity_ws.streams.learning.AGAIN", 0.01)
    following, link, gives = _following()
    link.may_answer.set()
    link.may_list.clear()
    following.open("room", "topic")
    await eventually(lambda: link.lists)
    link.stored.append(_piece(0))
    following.look_for_new()
    link.may_list.set()
    await eventually(lambda: gives.given == [0])
    await following.stop()


async def test_nothing_runs_after_a_stop() -> None:
    following, _, _ = _following()
    await following.stop()
    task = following.run(asyncio.sleep(3600))
    await asyncio.wait([task])
    assert task.cancelled()
