"""Events: every event that the server sends by itself, named and encoded. Pure: knows no client and no room.

============================  ==================================================================================
``reply``                     what a handler returned, to a request, with its ``id``
``error``                     why a message was not handled: ``code``, ``message``, and more
``rate_limit_exceeded``       a message was refused: ``message``, ``retry_after`` in seconds
``gap``                       messages are missing: how many were ``dropped``, or ``missed`` in a ``room``
``presence``                  who is in a room: ``room``, ``users``, ``anonymous``, ``full``
============================  ==================================================================================

``velocity.js`` treats the first three as answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from velocity_ws.messages.outbound import PreparedMessage, encode

__all__ = [
    "ANSWERS",
    "REPLY",
    "encode_dropped",
    "encode_error",
    "encode_missed",
    "encode_presence",
    "encode_rate_limit_exceeded",
]

REPLY: Final = "reply"
_ERROR: Final = "error"
_RATE_LIMIT_EXCEEDED: Final = "rate_limit_exceeded"
_GAP: Final = "gap"
_PRESENCE: Final = "presence"
ANSWERS: Final = frozenset({REPLY, _ERROR, _RATE_LIMIT_EXCEEDED})
"""Those that answer a request, with its ``id``."""


def encode_error(
    code: str, message: str, details: dict[str, Any] | None = None, request_id: int | str | None = None
) -> PreparedMessage:
    """Encode ``event: "error"``.

    Raises:
        EncodeError: the details have no JSON form.
    """
    return encode(_ERROR, {**(details or {}), "code": code, "message": message}, request_id)


def encode_rate_limit_exceeded(
    message: str, retry_after: float, request_id: int | str | None = None
) -> PreparedMessage:
    """Encode ``event: "rate_limit_exceeded"``: a message was not handled, as there were too many.

    Args:
        message: why.
        retry_after: seconds until the next would be taken; told in whole milliseconds, rounded up.
        request_id: of the message, where it had one.
    """
    data = {"message": message, "retry_after": math.ceil(retry_after * 1000) / 1000}
    return encode(_RATE_LIMIT_EXCEEDED, data, request_id)


def encode_dropped(count: int) -> PreparedMessage:
    """Encode ``event: "gap"``: so many messages were dropped, as the client did not read them in time."""
    return encode(_GAP, {"dropped": count})


def encode_missed(room: str | None, count: int | None) -> PreparedMessage:
    """Encode ``event: "gap"``: messages of other nodes were missed.

    Args:
        room: in which; ``None`` where it was no room's.
        count: how many; ``None`` where that is not known.
    """
    return encode(_GAP, {"room": room, "missed": count})


def encode_presence(room: str, users: Mapping[str, int], anonymous: int, *, is_full: bool) -> PreparedMessage:
    """Encode ``event: "presence"``.

    Args:
        room: the room.
        users: for each user, the number of clients.
        anonymous: clients without a user.
        is_full: whether these are all users of the room, rather than those whose number has changed.
    """
    return encode(_PRESENCE, {"room": room, "users": users, "anonymous": anonymous, "full": is_full})
