"""What travels between nodes, as bytes: a fixed header, then MessagePack of a known shape. Pure, and trusts nothing.

The header says which version, who sent it and how many this sender has published to this topic before, so that a loss
shows. A later version may add fields at the end of a shape, which this one skips; whoever changes the meaning of
what is there counts `VERSION` up, and each side drops, and counts, what it does not know.
"""

from __future__ import annotations

import re
import secrets
from typing import Final, Literal, NamedTuple

import msgspec

__all__ = [
    "Answer",
    "Ask",
    "Beat",
    "Body",
    "Foreign",
    "Header",
    "Note",
    "Post",
    "Probe",
    "decode_body",
    "decode_header",
    "encode_body",
    "encode_header",
    "new_node_id",
    "node_of",
]  # fmt: skip

MAGIC: Final = b"VWS"
VERSION: Final = 1
NODE_ID_LENGTH: Final = 11
_CLIENT_ID = re.compile(rf"([A-Za-z0-9_-]{{{NODE_ID_LENGTH}}})\.[A-Za-z0-9_-]+", re.ASCII)
_HEAD = len(MAGIC) + 1
_SEQUENCE_AT = _HEAD + NODE_ID_LENGTH
_BODY_AT = _SEQUENCE_AT + 8


class Foreign(Exception):
    """Bytes that no node of this version has sent, and why."""


class Header(NamedTuple):
    """Who sent it, and its number among what this sender published to this topic, from 1."""

    origin: str
    sequence: int


class Post(msgspec.Struct, array_like=True, frozen=True, tag="post"):
    """A message for clients.

    Attributes:
        kind: of the address.
        names: of the address: the room or user whose topic this is, or the clients.
        number: the same for all that carry one message to several rooms, of which a client gets one; else 0.
        excluded: ids of clients that do not get it.
        is_text: whether the payload is text.
        payload: what clients get.
    """

    kind: Literal["all", "rooms", "users", "clients"]
    names: tuple[str, ...]
    number: int
    excluded: tuple[str, ...]
    is_text: bool
    payload: bytes


class Beat(msgspec.Struct, array_like=True, frozen=True, tag="beat"):
    """A node says that it lives: ``hello`` asks everyone for a ``welcome``, ``bye`` is the last.

    Attributes:
        state: which of them.
        lease: seconds after which, unheard, it counts as gone.
        peers: in a ``welcome``, whom it knows.
        is_node: false for one that only asks.
    """

    state: Literal["hello", "welcome", "alive", "bye"]
    lease: float
    peers: tuple[str, ...] = ()
    is_node: bool = True


class Ask(msgspec.Struct, array_like=True, frozen=True, tag="ask"):
    """A question, answered to the inbox of who asks."""

    id: int
    what: str
    args: msgspec.Raw


class Answer(msgspec.Struct, array_like=True, frozen=True, tag="answer"):
    """The answer to a question, or a part of a long one; ``error`` where it could not be answered.

    Attributes:
        id: of the question.
        result: MessagePack, or the next bytes of it.
        error: why there is none.
        more: how many parts follow this one.
    """

    id: int
    result: bytes
    error: str = ""
    more: int = 0


class Note(msgspec.Struct, array_like=True, frozen=True, tag="note"):
    """Something to know, with no answer."""

    what: str
    args: msgspec.Raw


class Probe(msgspec.Struct, array_like=True, frozen=True, tag="probe"):
    """A message of a node to itself, that proves it hears."""

    nonce: int


Body = Post | Beat | Ask | Answer | Note | Probe

encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(Body).decode


def new_node_id() -> str:
    """A name for a node: unguessable, and part of the id of each of its clients."""
    return secrets.token_urlsafe(8)


def node_of(client_id: str) -> str | None:
    """The node a client is connected to, as its id tells; ``None`` where it is no client's id."""
    found = _CLIENT_ID.fullmatch(client_id)
    return None if found is None else found[1]


def encode_header(origin: str, sequence: int) -> bytes:
    """What goes before a body."""
    return b"%s%c%s%s" % (MAGIC, VERSION, origin.encode("ascii"), sequence.to_bytes(8, "big"))


def decode_header(data: bytes) -> Header:
    """Who sent this.

    Raises:
        Foreign: it is none of ours, or of another version.
    """
    if len(data) < _BODY_AT or not data.startswith(MAGIC):
        raise Foreign("it does not begin as it should")
    if data[len(MAGIC)] != VERSION:
        raise Foreign(f"it is of version {data[len(MAGIC)]}, this is {VERSION}")
    origin = data[_HEAD:_SEQUENCE_AT]
    if not origin.isascii():
        raise Foreign("its sender has no name")
    return Header(origin.decode("ascii"), int.from_bytes(data[_SEQUENCE_AT:_BODY_AT], "big"))


def decode_body(data: bytes) -> Body:
    """What it says.

    Raises:
        Foreign: it has no shape that is known.
    """
    try:
        body: Body = _decode_body(memoryview(data)[_BODY_AT:])
        if isinstance(body, Post):
            _check(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Foreign(str(error)) from None
    return body


def _check(post: Post) -> None:
    if post.is_text:
        post.payload.decode()  # clients would end a connection that brings them anything else
    if post.kind in ("rooms", "users") and len(post.names) != 1:
        raise Foreign("it is for one room or user, and names another number of them")
