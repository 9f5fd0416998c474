"""What nodes tell each other about the users of rooms: the shapes of it, and how much goes into one. Pure.

The first four of each shape are as old as presence. A node that does not know what follows skips it, and understands
what is split: parts of a state are changes, each of the version before it, and the first of none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import msgspec

from velocity_ws.cluster.envelopes import Count, InvalidEnvelope, Name, NodeId

__all__ = [
    "MAX_INFO", "Change", "Counts", "Info", "Infos", "Piece", "Size", "State", "Versions", "check_infos", "in_notes",
    "in_pages", "in_pieces", "size_of",
]  # fmt: skip

MAX_INFO = 2048
"""Bytes of JSON that are told of a user, beside its id."""

Counts = dict[Name, Count]
"""Clients by user; those without one under an empty name."""
Size = Callable[[str], int]
"""The bytes that a name takes."""


class Info(msgspec.Struct, array_like=True, frozen=True):
    """What an application says of a user: when, in milliseconds since the epoch, and a JSON object; empty for none."""

    at: Count
    json: Annotated[bytes, msgspec.Meta(max_length=MAX_INFO)] = b""


Infos = dict[Name, Info]
Piece = tuple[Counts, Infos]
"""Some users of one node, and what it says of them."""


class Change(msgspec.Struct, array_like=True, frozen=True):
    """What changed in a room on one node.

    Attributes:
        room: the room.
        before: the version it changes; 0 for a room that begins.
        version: the version that it makes.
        users: the clients of the users who changed; 0 for one who left.
        infos: what is said of those of whom something else is said.
        part: where it is a part of a state: the number of the part, from 1.
        parts: how many parts the state has; 0 where it is a change.
    """

    room: Name
    before: Count
    version: Count
    users: Counts
    infos: Infos = {}
    part: Count = 0
    parts: Count = 0

    @property
    def wire(self) -> object:
        """What travels: as ever, where there is no more to say."""
        return self if self.infos or self.parts else (self.room, self.before, self.version, self.users)


class State(msgspec.Struct, array_like=True, frozen=True):
    """All that one node has of the rooms it was asked about.

    Attributes:
        asked: the rooms; those that are not in ``rooms`` are empty.
        rooms: version and clients of each.
        infos: what is said of their users, by room.
    """

    asked: tuple[Name, ...]
    rooms: dict[Name, tuple[Count, Counts]]
    infos: dict[Name, Infos] = {}

    @property
    def wire(self) -> object:
        """What travels: as ever, where there is no more to say."""
        return self if self.infos else (self.asked, self.rooms)


class Versions(msgspec.Struct, array_like=True, frozen=True):
    """What a node has of a room, and what it has heard of others, to be compared with what they have.

    Attributes:
        room: the room.
        version: the node's own; 0 where it has nobody there.
        known: what it was told by others, by node.
    """

    room: Name
    version: Count
    known: dict[NodeId, Count]


def size_of(name: str) -> int:
    """At most how many bytes a name takes with its number, between nodes."""
    return 15 + (len(name) if name.isascii() else 4 * len(name))


def in_pages(names: Iterable[str], limit: int) -> Iterator[tuple[str, ...]]:
    """Split names into pages of at most ``limit`` bytes; one name may have more."""
    page: list[str] = []
    left = limit
    for name in names:
        if page and left < size_of(name):
            yield tuple(page)
            page, left = [], limit
        page.append(name)
        left -= size_of(name)
    if page:
        yield tuple(page)


def in_notes(rooms: Iterable[tuple[str, int, list[Piece]]], limit: int) -> Iterator[State | Change]:
    """All that a node has of some rooms, in notes of ``limit`` bytes at most: small rooms together, others in parts.

    Args:
        rooms: name, version and pieces of each; version 0 where it has nothing, no piece where nobody is there.
        limit: bytes; one piece may have more.
    """
    asked: list[str] = []
    known: dict[str, tuple[int, Counts]] = {}
    said: dict[str, Infos] = {}
    left = limit
    for room, version, pieces in rooms:
        if len(pieces) > 1:
            yield from _in_parts(room, version, pieces)
            continue
        users, infos = pieces[0] if pieces else ({}, {})
        need = 2 * size_of(room) + sum(map(size_of, users)) + sum(map(_size_of_info, infos.items()))
        if asked and need > left:
            yield State(tuple(asked), known, said)
            asked, known, said, left = [], {}, {}, limit
        asked.append(room)
        left -= need
        if version:
            known[room] = (version, users)
        if infos:
            said[room] = infos
    if asked:
        yield State(tuple(asked), known, said)


def _in_parts(room: str, version: int, pieces: list[Piece]) -> Iterator[Change]:
    parts, before = len(pieces), 0
    for part, (users, infos) in enumerate(pieces, 1):
        number = version - parts + part
        yield Change(room, before, number, users, infos, part, parts)
        before = number


def _size_of_info(item: tuple[str, Info]) -> int:
    return size_of(item[0]) + len(item[1].json)


def in_pieces(
    users: Iterable[str], count: Callable[[str], int], info: Callable[[str], Info | None], limit: int
) -> Iterator[Piece]:
    """Split users into pieces of at most ``limit`` bytes; one user may have more.

    Args:
        users: their names.
        count: how many clients each has.
        info: what is said of each.
        limit: bytes.
    """
    counts: Counts = {}
    infos: Infos = {}
    left = limit
    for user in users:
        said = info(user)
        need = size_of(user) if said is None else size_of(user) + _size_of_info((user, said))
        if counts and need > left:
            yield counts, infos
            counts, infos, left = {}, {}, limit
        counts[user] = count(user)
        if said is not None:
            infos[user] = said
        left -= need
    if counts:
        yield counts, infos


def check_infos(infos: Infos) -> None:
    """Check what another node's application says of users: it goes into messages as it is.

    Raises:
        InvalidEnvelope: one is no JSON object.
    """
    for info in infos.values():
        if info.json:
            try:
                _decode_object(info.json)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise InvalidEnvelope(f"what is said of a user is no JSON object: {error}") from None


_decode_object = msgspec.json.Decoder(dict[str, object]).decode
