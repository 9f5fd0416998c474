"""What travels between nodes, as bytes: a fixed header, then MessagePack of a known shape. Pure, and trusts nothing.

The header says which version, who sent it and how many this sender has published to this topic before, so that a loss
shows. A later version may add fields at the end of a shape, which this one skips; whoever changes the meaning of
what is there counts `VERSION` up, and each side drops, and counts, what it does not know.

Whoever can publish on the engine chose what arrives: the types here say how long a name may be and how large a number,
and what is inside of a question, an answer or a note is of such types too.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec

from velocity_ws.messages.ids import CLIENT_ID, NODE_ID, NODE_ID_LENGTH
from velocity_ws.messages.names import MAX_NAME_LENGTH

__all__ = [
    "Answer",
    "Ask",
    "Beat",
    "Body",
    "ClientId",
    "Count",
    "Foreign",
    "Header",
    "Name",
    "NodeId",
    "Note",
    "Post",
    "Probe",
    "Topic",
    "decode_as",
    "decode_body",
    "decode_header",
    "encode_body",
    "encode_header",
]  # fmt: skip

MAGIC: Final = b"VWS"
VERSION: Final = 1
MAX_SEQUENCE: Final = 2**48
"""Messages of one sender to one topic: one each microsecond for nine years."""
MAX_PEERS: Final = 10_000
"""Nodes that one names at once; many more than an engine connects."""
_IS_NODE_ID = re.compile(NODE_ID.encode()).fullmatch
_is_client_id = re.compile(CLIENT_ID, re.ASCII).fullmatch
_HEAD = len(MAGIC) + 1
_SEQUENCE_AT = _HEAD + NODE_ID_LENGTH
_BODY_AT = _SEQUENCE_AT + 8


NodeId = Annotated[str, msgspec.Meta(pattern=rf"^{NODE_ID}\Z")]
ClientId = Annotated[str, msgspec.Meta(pattern=rf"^{CLIENT_ID}\Z")]
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
"""Of a room or a user."""
Topic = Annotated[str, msgspec.Meta(max_length=512)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_What = Annotated[str, msgspec.Meta(max_length=64)]
_Lease = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Peers = Annotated[tuple[NodeId, ...], msgspec.Meta(max_length=MAX_PEERS)]
_Error = Annotated[str, msgspec.Meta(max_length=64 * 1024)]

T = TypeVar("T")

MAX_ORIGINS: Final = 1000
_origins: dict[bytes, str] = {}
"""Senders whose names were looked at, as that is done for each message."""


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
    names: tuple[Name, ...]
    number: Count
    excluded: tuple[Name, ...]
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
    lease: _Lease
    peers: _Peers = ()
    is_node: bool = True


class Ask(msgspec.Struct, array_like=True, frozen=True, tag="ask"):
    """A question, answered to the inbox of who asks."""

    id: Count
    what: _What
    args: msgspec.Raw


class Answer(msgspec.Struct, array_like=True, frozen=True, tag="answer"):
    """The answer to a question, or a part of a long one; ``error`` where it could not be answered.

    Attributes:
        id: of the question.
        result: MessagePack, or the next bytes of it.
        error: why there is none.
        more: how many parts follow this one.
    """

    id: Count
    result: bytes
    error: _Error = ""
    more: Count = 0


class Note(msgspec.Struct, array_like=True, frozen=True, tag="note"):
    """Something to know, with no answer."""

    what: _What
    args: msgspec.Raw


class Probe(msgspec.Struct, array_like=True, frozen=True, tag="probe"):
    """A message of a node to itself, that proves it hears."""

    nonce: Count


Body = Post | Beat | Ask | Answer | Note | Probe

encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(Body).decode


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
    name = data[_HEAD:_SEQUENCE_AT]
    origin = _origins.get(name)
    if origin is None:
        if not _IS_NODE_ID(name):
            raise Foreign("its sender has no name")
        if len(_origins) >= MAX_ORIGINS:
            _origins.clear()
        origin = _origins[name] = name.decode("ascii")
    sequence = int.from_bytes(data[_SEQUENCE_AT:_BODY_AT], "big")
    if not 0 < sequence <= MAX_SEQUENCE:
        raise Foreign("its number is none that a sender comes to")
    return Header(origin, sequence)


def decode_body(data: bytes) -> Body:
    """What it says.

    Raises:
        Foreign: it has no shape that is known, or something in it is out of its bounds.
    """
    try:
        body: Body = _decode_body(memoryview(data)[_BODY_AT:])
        if isinstance(body, Post):
            _check(body)
        elif isinstance(body, Beat) and not body.lease and body.state != "bye":
            raise Foreign("it is of a node that is gone at once")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Foreign(str(error)) from None
    return body


def decode_as(decoder: msgspec.msgpack.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """What is inside of a question, an answer or a note.

    Raises:
        Foreign: it has not the shape it should have.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Foreign(str(error)) from None


def _check(post: Post) -> None:
    if post.is_text:
        post.payload.decode()  # clients would end a connection that brings them anything else
    if post.kind in ("rooms", "users") and len(post.names) != 1:
        raise Foreign("it is for one room or user, and names another number of them")
    if post.kind == "clients" and not all(map(_is_client_id, post.names)):
        raise Foreign("it is for clients, and names what is none")
