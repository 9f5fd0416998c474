"""The wire format: an inbound message decoded, an outbound one encoded once for all who get it.

Knows no connection and no room; addresses are here because they travel between processes with the message.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from velocity_ws.errors import EncodeError, InvalidNameError
from velocity_ws.messages.frames import BINARY, TEXT, deflate, header
from velocity_ws.messages.plain import plain
from velocity_ws.messages.scan import MAX_DEPTH, find_id, is_too_deep
from velocity_ws.process.garbage import LARGE, collection_paused

__all__ = [
    "Address",
    "Frame",
    "Malformed",
    "Message",
    "decode",
    "encode",
    "encode_bytes",
    "encode_error",
    "event_of",
    "validate_room",
    "validate_text",
]

DEFLATE_FROM = 256
"""Bytes from which a message is worth compressing. JSON of 128 bytes gets shorter by 29, of 200 by 62, of 300 by 104,
for 7 to 9 µs each: below this it saves neither a packet nor, where one client alone gets it, time."""
SHORT = 256
"""Characters up to which it does not matter that some numbers take long to round."""
MAX_NAME_LENGTH = 256
"""Longest event or room name, in characters."""


class Message(msgspec.Struct, frozen=True):
    """A message from a client: ``{"event": "name", "data": any, "id"?: int|str}``.

    Attributes:
        event: the name; 1 to 256 characters.
        data: the decoded JSON value; ``None`` where there was none.
        id: what the client wants to find its answer by; ``None`` where it asked for none.
    """

    event: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    data: Any = None
    id: int | str | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """Why a text could not become a `Message`: what is answered to its sender.

    Attributes:
        code: ``INVALID_JSON`` or ``INVALID_EVENT``.
        message: what is wrong, for the client's developer.
        id: the id of the request, where it could be read.
    """

    code: Literal["INVALID_JSON", "INVALID_EVENT"]
    message: str
    id: int | str | None = None


class _Outside(msgspec.Struct):
    """A message of which only the outside is looked at: its data is checked to be JSON, and not built."""

    event: Any = None
    id: Any = None


def _number(text: str) -> float:
    """A number with a fraction or an exponent, by Python's own function.

    msgspec takes 8 µs for one near the largest or the smallest, and 0.7 s for 512 KiB of those. For all others this
    takes 0.1 µs longer, so that short messages do without.
    """
    number = float(text)
    if -math.inf < number < math.inf:
        return number
    raise ValueError("a number is out of range")


_decode_message = msgspec.json.Decoder(Message).decode
_decode_long_message = msgspec.json.Decoder(Message, float_hook=_number).decode
_decode_outside = msgspec.json.Decoder(_Outside, float_hook=_number).decode
_decode_any = msgspec.json.Decoder(float_hook=_number).decode


def decode(text: str | bytes) -> Message | Malformed:
    """Decode one inbound text message; anything can be passed, nothing is raised."""
    if not isinstance(text, str):
        try:
            text = text.decode()  # as a whole: what msgspec skips, it does not check
        except UnicodeDecodeError:
            return Malformed("INVALID_JSON", "the message is not valid UTF-8")
    if len(text) > SHORT:
        return _decode_long(text)
    try:
        return _decode_message(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        return _malformed(text, error)


def _decode_long(text: str) -> Message | Malformed:
    if len(text) >= LARGE:
        with collection_paused:
            return _decode_carefully(text)
    return _decode_carefully(text)


def _decode_carefully(text: str) -> Message | Malformed:
    if is_too_deep(text):
        return Malformed("INVALID_JSON", f"the message is nested more than {MAX_DEPTH} levels deep", find_id(text))
    try:
        return _decode_long_message(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        return _malformed(text, error)


def _malformed(text: str, error: Exception) -> Malformed:
    problem = _not_a_message(text, error) if isinstance(error, msgspec.ValidationError) else None
    return problem or Malformed("INVALID_JSON", "the message is not valid JSON", find_id(text))


def _not_a_message(text: str, error: msgspec.ValidationError) -> Malformed | None:
    """What to say of a text that does not fit; ``None`` where it is no JSON.

    msgspec stops at the first thing that does not fit, before it has seen whether the rest is JSON.
    """
    request_id = None
    try:
        if text.lstrip(" \n\r\t").startswith("{"):
            outside = _decode_outside(text)
            request_id = outside.id if type(outside.id) in (int, str) else None
            is_event = isinstance(outside.event, str) and 0 < len(outside.event) <= MAX_NAME_LENGTH
            if is_event and (request_id is not None or outside.id is None):
                return None  # a number within is beyond what can be decoded
        else:
            _decode_any(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return Malformed("INVALID_EVENT", f'expected {{"event": name, "data": …, "id"?: int|str}}: {error}', request_id)


class Frame:
    """An outbound message, ready to be sent to any number of clients.

    Attributes:
        payload: the bytes of the message.
        is_text: whether it goes out as a text frame.
        size: payload bytes.
        cost: what it counts for in a queue: its size, but never nothing, so that a queue of empty ones is bounded too.
    """

    __slots__ = ("_deflated", "_plain", "_text", "cost", "is_text", "payload", "size")

    def __init__(self, payload: bytes, is_text: bool = True) -> None:
        self.payload = payload
        self.is_text = is_text
        self.size = len(payload)
        self.cost = self.size or 1
        self._text: str | None = None
        self._plain: bytes | None = None
        self._deflated: dict[int, bytes] | None = None

    def wire(self, window_bits: int) -> bytes:
        """The bytes of the whole frame; made once for each form.

        Args:
            window_bits: what was negotiated with the client for permessage-deflate; 0 for none. A message too small
                to gain from it goes out plain, which RFC 7692, section 6, allows for each.
        """
        if window_bits and self.size >= DEFLATE_FROM:
            if self._deflated is None:
                self._deflated = {}
            found = self._deflated.get(window_bits)
            if found is None:
                payload = deflate(self.payload, window_bits)
                found = header(self._opcode, len(payload), compressed=True) + payload
                self._deflated[window_bits] = found
            return found
        if self._plain is None:
            self._plain = header(self._opcode, self.size) + self.payload
        return self._plain

    @property
    def _opcode(self) -> int:
        return TEXT if self.is_text else BINARY

    @property
    def text(self) -> str:
        """The payload as ASGI wants a text message; decoded once."""
        if self._text is None:
            self._text = self.payload.decode()
        return self._text


_encode = msgspec.json.Encoder(enc_hook=plain).encode


def encode(event: str, data: object = None, request_id: int | str | None = None) -> Frame:
    """Encode one outbound message, ``{"event", "data"}``, with the ``id`` of the request where it answers one.

    Raises:
        InvalidNameError: the event is not a string of 1 to 256 characters.
        EncodeError: the data has no JSON form.
    """
    if not isinstance(event, str) or not 0 < len(event) <= MAX_NAME_LENGTH:
        raise InvalidNameError(f"an event name is a string of 1 to {MAX_NAME_LENGTH} characters, not {event!r:.80}")
    envelope: dict[str, object] = {"event": event, "data": data}
    if request_id is not None:
        envelope = {"event": event, "id": request_id, "data": data}
    try:
        return Frame(_encode(envelope))
    except RecursionError:
        raise EncodeError(event, "it is nested too deeply, or holds itself") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise EncodeError(event, str(error)) from error


_TO_NAME = len(b'{"event":')
_read_json = json.JSONDecoder().raw_decode


def event_of(frame: Frame) -> str:
    """What a message that `encode` made is called; a binary one has no name but that."""
    if not frame.is_text:
        return "binary"
    head = frame.payload[_TO_NAME : _TO_NAME + 6 * MAX_NAME_LENGTH + 2]  # a character is at most six when escaped
    try:
        return str(_read_json(head.decode(errors="replace"))[0])
    except ValueError:
        return "?"


def encode_error(
    code: str, message: str, details: dict[str, Any] | None = None, request_id: int | str | None = None
) -> Frame:
    """Encode ``event: "error"``.

    Raises:
        EncodeError: the details have no JSON form.
    """
    return encode("error", {**(details or {}), "code": code, "message": message}, request_id)


def encode_bytes(data: bytes | bytearray | memoryview) -> Frame:
    """A binary message.

    Raises:
        TypeError: it is not bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"a binary message is bytes, not {data!r:.80}; send(event, data) sends everything else")
    return Frame(bytes(data), is_text=False)


def validate_room(room: str) -> str:
    """Check a room's name, which may be any string of up to 256 characters.

    Raises:
        InvalidNameError: it is not.
    """
    if not isinstance(room, str) or len(room) > MAX_NAME_LENGTH:
        raise InvalidNameError(f"a room is a string of at most {MAX_NAME_LENGTH} characters, not {room!r:.80}")
    return room


def validate_text(name: str) -> str:
    """Check a name that is to travel between processes, which half a surrogate pair cannot.

    Raises:
        InvalidNameError: it is no valid Unicode.
    """
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidNameError(f"between processes a name must be valid Unicode, not {name!r:.80}") from None
    return name


@dataclass(frozen=True, slots=True)
class Address:
    """To whom a message goes; plain data, so that it can travel to other processes.

    Attributes:
        kind: everyone, the members of rooms, all clients of users, or single clients.
        names: the rooms, the user ids or the client ids.
        excluded: ids of clients that do not get it.
    """

    kind: Literal["all", "rooms", "users", "clients"]
    names: Collection[str] = ()
    excluded: frozenset[str] = frozenset()
