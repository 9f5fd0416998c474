"""Envelopes: the wire between nodes: a header with version, sender and number, then MessagePack of a known shape.

Pure, and trusts nothing: anybody who can publish on the engine chose what arrives. The types here say how long a name
may be and how large a number, and the contents of requests, responses and notifications are of such types too.

The header says which version it is, who sent it and how many messages this sender has published to this topic so far,
so that a loss shows. A later version may add fields at the end of a shape, which this one skips. A change of what is
there needs a new `VERSION`; each side drops, and counts, what it does not know. The classes may be renamed; their tags
and the order of their fields are the wire, and stay.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec

from velocity_ws.messages.ids import CLIENT_ID, NODE_ID, NODE_ID_LENGTH
from velocity_ws.messages.names import MAX_NAME_LENGTH

__all__ = [
    "Body", "ClientId", "Count", "Header", "Heartbeat", "InvalidEnvelope", "Name", "NodeId", "Notification",
    "PlainNotification", "PlainPublication", "Probe", "Publication", "Request", "Response", "StreamPiece", "Topic",
    "decode_as", "decode_body", "decode_header", "encode_body", "encode_header", "encode_unstamped",
]  # fmt: skip

MAGIC: Final = b"VWS"
VERSION: Final = 1
MAX_SEQUENCE: Final = 2**48
"""Messages of one sender to one topic: one each microsecond for nine years."""
MAX_PEERS: Final = 10_000
"""Nodes that one heartbeat names; many more than an engine connects."""
POSITION_SIZE: Final = 40
"""Bytes of what an engine says of a message that it keeps: a stamp."""
_IS_NODE_ID = re.compile(NODE_ID.encode()).fullmatch
_is_client_id = re.compile(CLIENT_ID, re.ASCII).fullmatch
_HEAD = len(MAGIC) + 1
_SEQUENCE_AT = _HEAD + NODE_ID_LENGTH
_BODY_AT = _SEQUENCE_AT + 8


NodeId = Annotated[str, msgspec.Meta(pattern=rf"^{NODE_ID}\Z")]
ClientId = Annotated[str, msgspec.Meta(pattern=rf"^{CLIENT_ID}\Z")]
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
"""The name of a room, the id of a user, or a key."""
Topic = Annotated[str, msgspec.Meta(max_length=512)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_What = Annotated[str, msgspec.Meta(max_length=64)]
_Lease = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Peers = Annotated[tuple[NodeId, ...], msgspec.Meta(max_length=MAX_PEERS)]
_Error = Annotated[str, msgspec.Meta(max_length=64 * 1024)]
_Position = Annotated[bytes, msgspec.Meta(min_length=POSITION_SIZE, max_length=POSITION_SIZE)]  # where there is one

T = TypeVar("T")

MAX_ORIGINS: Final = 1000
_origins: dict[bytes, str] = {}
"""Senders whose names were checked once, as a name comes with each message."""


class InvalidEnvelope(Exception):
    """Bytes that no node of this version has sent; the text says why."""


class Header(NamedTuple):
    """What goes before a body.

    Attributes:
        origin: the id of the node that sent it.
        sequence: its number among what this sender published to this topic, from 1.
    """

    origin: str
    sequence: int


class PlainPublication(msgspec.Struct, array_like=True, frozen=True, tag="post"):
    """A message for clients that no engine keeps, as it is sent.

    Attributes:
        kind: the kind of the address.
        names: the names of the address: the room or user whose topic this is, or the ids of clients.
        number: the same for all envelopes that carry one message to several rooms, so that a client gets one; else 0.
        excluded: ids of clients that do not get it.
        is_text: whether the payload is text.
        payload: the message's bytes, as clients get them.
        is_volatile: whether clients for which something waits do not get it.
        key: replaces a message of the same event and key that waits for a client; empty for none.
    """

    kind: Literal["all", "rooms", "users", "clients"]
    names: tuple[Name, ...]
    number: Count
    excluded: tuple[Name, ...]
    is_text: bool
    payload: bytes
    is_volatile: bool = False
    key: Name = ""


class Publication(PlainPublication, array_like=True, frozen=True, tag="post"):
    """A message for clients, as it is read. One without a position is sent as a `PlainPublication`.

    Attributes:
        position: the engine's stamp, if it keeps the message; else empty. It is the last field for ever, as the engine
            writes it behind what `encode_unstamped` has made.
    """

    position: _Position = b""


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag="beat"):
    """A node says that it lives: ``hello`` asks all nodes for a ``welcome``, ``bye`` is the last.

    Attributes:
        state: which of them it is.
        lease: seconds unheard after which the node counts as gone.
        peers: in a ``welcome``, the ids of the nodes it knows.
        is_node: false for a sender that has no clients and only asks.
    """

    state: Literal["hello", "welcome", "alive", "bye"]
    lease: _Lease
    peers: _Peers = ()
    is_node: bool = True


class Request(msgspec.Struct, array_like=True, frozen=True, tag="ask"):
    """A call of a procedure, answered to the topic of the node that sent it.

    Attributes:
        id: counted by the caller; the response has the same.
        what: the procedure's name.
        args: its arguments, as MessagePack.
    """

    id: Count
    what: _What
    args: msgspec.Raw


class Response(msgspec.Struct, array_like=True, frozen=True, tag="answer"):
    """The result of a call, or a part of a long one.

    Attributes:
        id: the request's.
        result: MessagePack, or the next bytes of it.
        error: why there is no result; else empty.
        more: how many parts follow this one.
    """

    id: Count
    result: bytes
    error: _Error = ""
    more: Count = 0


class PlainNotification(msgspec.Struct, array_like=True, frozen=True, tag="note"):
    """Something that others are told, with no response, as it is sent where it has no place among a room's messages.

    Attributes:
        what: its name.
        args: its content, as MessagePack.
    """

    what: _What
    args: msgspec.Raw


class Notification(PlainNotification, array_like=True, frozen=True, tag="note"):
    """Something that others are told, with no response, as it is read. See `Publication`.

    Attributes:
        position: the engine's stamp, where it was told among the messages of a room; else empty. The last field, as in
            a `Publication`.
    """

    position: _Position = b""


class StreamPiece(msgspec.Struct, array_like=True, frozen=True, tag="piece"):
    """A piece of a stream, as the engine keeps and publishes it. It is counted by its own number, and not the header's.

    Attributes:
        room: the room of the stream; ``None`` where it is of none.
        id: the stream's.
        payload: see `velocity_ws.streams.pieces`. The last field for ever: the engine puts there what it
            keeps.
    """

    room: Name | None
    id: Name
    payload: bytes


class Probe(msgspec.Struct, array_like=True, frozen=True, tag="probe"):
    """A message of a node to itself, which proves that it hears what it publishes.

    Attributes:
        nonce: counted by the node; tells this probe from those before.
    """

    nonce: Count


Body = Publication | Heartbeat | Request | Response | Notification | StreamPiece | Probe

encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(Body).decode
_STAMP_FOLLOWS: Final = bytes([POSITION_SIZE])


def encode_header(origin: str, sequence: int) -> bytes:
    """Encode the header of an envelope.

    Args:
        origin: the id of the node that sends it.
        sequence: its number among what this node published to the topic, from 1.
    """
    return b"%s%c%s%s" % (MAGIC, VERSION, origin.encode("ascii"), sequence.to_bytes(8, "big"))


def encode_unstamped(origin: str, body: Publication | Notification) -> bytes:
    """Encode a message for an engine that puts its stamp behind it, and keeps and publishes the two as one envelope.

    The header has the number 1, as these messages are counted by their offsets: for a node that knows none, none of
    them is ever missing.

    Args:
        origin: the id of the node that sends it.
        body: with no position yet.
    """
    # An empty position is two bytes: that it is bytes, and how many, which is told to be those of the stamp.
    return b"".join((_head_of(origin), memoryview(encode_body(body))[:-1], _STAMP_FOLLOWS))


@lru_cache(MAX_ORIGINS)
def _head_of(origin: str) -> bytes:
    """The header of all that a sender has an engine keep."""
    return encode_header(origin, 1)


def decode_header(data: bytes) -> Header:
    """Read the header of an envelope.

    Raises:
        InvalidEnvelope: the bytes are no envelope, or one of another version.
    """
    if len(data) < _BODY_AT or not data.startswith(MAGIC):
        raise InvalidEnvelope("it does not begin as it should")
    if data[len(MAGIC)] != VERSION:
        raise InvalidEnvelope(f"it is of version {data[len(MAGIC)]}, this is {VERSION}")
    name = data[_HEAD:_SEQUENCE_AT]
    origin = _origins.get(name)
    if origin is None:
        if not _IS_NODE_ID(name):
            raise InvalidEnvelope("its sender has no name")
        if len(_origins) >= MAX_ORIGINS:
            _origins.clear()
        origin = _origins[name] = name.decode("ascii")
    sequence = int.from_bytes(data[_SEQUENCE_AT:_BODY_AT], "big")
    if not 0 < sequence <= MAX_SEQUENCE:
        raise InvalidEnvelope("its number is none that a sender comes to")
    return Header(origin, sequence)


def decode_body(data: bytes) -> Body:
    """Read the body of an envelope, whose header `decode_header` has accepted.

    Raises:
        InvalidEnvelope: it has no shape that is known, or something in it is out of its bounds.
    """
    try:
        body: Body = _decode_body(memoryview(data)[_BODY_AT:])
        if isinstance(body, Publication):
            _check(body)
        elif isinstance(body, Heartbeat) and not body.lease and body.state != "bye":
            raise InvalidEnvelope("it is of a node that is gone at once")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEnvelope(str(error)) from None
    return body


def decode_as(decoder: msgspec.msgpack.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """Read the content of a request, a response or a notification.

    Raises:
        InvalidEnvelope: it has not the shape it should have.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEnvelope(str(error)) from None


def _check(publication: Publication) -> None:
    if publication.is_text:
        publication.payload.decode()  # clients would end a connection that brings them anything else
    if publication.kind in ("rooms", "users") and len(publication.names) != 1:
        raise InvalidEnvelope("it is for one room or user, and names another number of them")
    if publication.kind == "clients" and not all(map(_is_client_id, publication.names)):
        raise InvalidEnvelope("it is for clients, and names what is none")
