"""Inbound: a client's text becomes a `Message`, or an error to answer it with. Pure: knows no client and no hook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from velocity_ws.messages.names import MAX_NAME_LENGTH
from velocity_ws.messages.scan import MAX_DEPTH, find_id, is_too_deep
from velocity_ws.process.garbage import LARGE, collection_paused

__all__ = ["Head", "Malformed", "Message", "decode", "head_of"]

SHORT = 256
"""Characters up to which it does not matter that some numbers take long to round."""


class Message(msgspec.Struct, frozen=True):
    """A message from a client: ``{"event": "name", "data": any, "id"?: int|str, "room"?: str}``.

    Attributes:
        event: the name; 1 to 256 characters.
        data: the decoded JSON value; ``None`` if the message had none.
        id: the client's id of this request, which its answer repeats; ``None`` if the client asked for no answer.
        room: the room that the client has sent it to, and is in; ``None`` if it named none.
    """

    event: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    data: Any = None
    id: int | str | None = None
    room: Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)] | None = None
    injected_as: ClassVar[str] = "message"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Be a type for pydantic, so that FastAPI takes it as that of a dependency's parameter."""
        return core_schema.is_instance_schema(cls)


@dataclass(frozen=True, slots=True)
class Malformed:
    """The reason why a text is not a `Message`; it becomes the answer to the sender.

    Attributes:
        code: ``INVALID_JSON`` or ``INVALID_EVENT``.
        message: what is wrong, for the client's developer.
        id: the id of the request, if it could be read.
    """

    code: Literal["INVALID_JSON", "INVALID_EVENT"]
    message: str
    id: int | str | None = None


class Head(msgspec.Struct, frozen=True):
    """What stands beside the data of a message."""

    event: str
    id: int | str | None = None
    room: str | None = None


class _Outside(msgspec.Struct):
    """A message whose data is checked to be JSON and not built."""

    event: Any = None
    id: Any = None
    room: Any = None


def _number(text: str) -> float:
    """Parse a number with a fraction or an exponent by Python's own function.

    msgspec takes 8 µs for one near the largest or the smallest, and 0.7 s for 512 KiB of those. For all others this
    takes 0.1 µs longer, so short messages do without it.
    """
    number = float(text)
    if -math.inf < number < math.inf:
        return number
    raise ValueError("a number is out of range")


_decode_message = msgspec.json.Decoder(Message).decode
_decode_long_message = msgspec.json.Decoder(Message, float_hook=_number).decode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_outside = msgspec.json.Decoder(_Outside, float_hook=_number).decode
_decode_any = msgspec.json.Decoder(float_hook=_number).decode


def decode(text: str | bytes) -> Message | Malformed:
    """Decode one inbound text message. Never raises.

    Returns:
        The message; or a `Malformed`, if the text is not JSON or not of the shape of a `Message`.
    """
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


def head_of(text: str) -> Head | None:
    """Read what stands beside a message's data, which takes a tenth of the time of `decode` where there is much of it.

    Returns:
        The same as `decode` would find; ``None`` if the text is no message. Of the data it is only looked whether it is
        JSON, and not whether it can be decoded.
    """
    try:
        return _decode_head(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


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
    """Find out what is wrong with JSON of another shape; ``None`` if the text is not JSON.

    msgspec stops at the first thing that does not fit, before it has seen whether the rest is JSON.
    """
    request_id = None
    try:
        if text.lstrip(" \n\r\t").startswith("{"):
            outside = _decode_outside(text)
            request_id = outside.id if type(outside.id) in (int, str) else None
            is_event = isinstance(outside.event, str) and 0 < len(outside.event) <= MAX_NAME_LENGTH
            is_room = outside.room is None or (isinstance(outside.room, str) and len(outside.room) <= MAX_NAME_LENGTH)
            if is_event and is_room and (request_id is not None or outside.id is None):
                return None  # a number within is beyond what can be decoded
        else:
            _decode_any(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    expected = 'expected {"event": name, "data": …, "id"?: int|str, "room"?: str}'
    return Malformed("INVALID_EVENT", f"{expected}: {error}", request_id)
