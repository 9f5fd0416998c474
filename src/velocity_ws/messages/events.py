"""Events: every event that the server sends by itself, named and encoded. Pure: knows no client and no room.

============================  ==================================================================================
``reply``                     what a handler returned, to a request, with its ``id``
``error``                     why a message was not handled: ``code``, ``message``, and more
``rate_limit_exceeded``       a message was refused: ``message``, ``retry_after`` in seconds
``gap``                       messages are missing: how many were ``dropped``, or ``missed`` in a ``room``; of a room
                              with history also why, and between which positions
``presence``                  the users of a room: ``room``, ``users``, ``anonymous``, ``full``, and ``info`` where the
                              application says something of them; of too many, ``count`` and ``user_count``
``session``                   when the client's login ends: ``expires_in`` in seconds; without it, never; and, for a
                              client that announced that it comes back, the ``token`` by which it is known again
``session_expired``           it has ended, and the connection will soon
``joined``                    the client came into a ``room`` that it asked for, without an ``id``; where the room has
                              history, also where it stands and what it gets of what it missed
``left``                      the client is out of a ``room``: as it wished, without an ``id``, or for a ``reason``
``$pong``                     the answer to ``$ping``, by which a page finds out whether its connection lives; the
                              number of the protocol, if the ping had one
============================  ==================================================================================

``velocity.js`` treats the first three as answers. ``joined``, ``left`` and ``resync``, which it tells the page itself,
are for no application to send where clients join rooms by themselves, or rooms have history: see `OF_ROOMS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from velocity_ws.errors import InvalidNameError
from velocity_ws.messages.outbound import PlacedMessage, PreparedMessage, encode, encode_data

__all__ = [
    "ANSWERS",
    "ERROR",
    "JOINED",
    "OF_ROOMS",
    "PING",
    "PROTOCOL",
    "REPLY",
    "GapMessage",
    "GapReason",
    "encode_dropped",
    "encode_error",
    "encode_info",
    "encode_joined",
    "encode_left",
    "encode_lost",
    "encode_missed",
    "encode_pong",
    "encode_presence",
    "encode_presence_count",
    "encode_rate_limit_exceeded",
    "encode_session",
    "encode_session_expired",
    "is_of_rooms",
    "joined_data",
    "reserved",
]

GapReason = Literal["evicted", "expired", "epoch", "dropped"]

REPLY: Final = "reply"
ERROR: Final = "error"
_RATE_LIMIT_EXCEEDED: Final = "rate_limit_exceeded"
_GAP: Final = "gap"
_PRESENCE: Final = "presence"
_SESSION: Final = "session"
_SESSION_EXPIRED: Final = "session_expired"
JOINED: Final = "joined"
_LEFT: Final = "left"
PING: Final = "$ping"
"""What a client sends to be answered ``$pong``."""
PROTOCOL: Final = 1
"""The number of what ``velocity.js`` and this package say to each other. It grows when something is added that an older
``velocity.js`` would take for something else; then a page that has one warns its developer."""
_PONG: Final = PreparedMessage(b'{"event":"$pong"}')
_PONG_OF_PROTOCOL: Final = encode("$pong", PROTOCOL)
ANSWERS: Final = frozenset({REPLY, ERROR, _RATE_LIMIT_EXCEEDED})
"""The events that answer a request, with its ``id``."""
OF_ROOMS: Final = frozenset({JOINED, _LEFT, "resync"})
"""The events that tell a client of its rooms; no application sends them where some kind has an ``authorize`` or a
history."""
_HEADS_OF_ROOMS: Final = tuple(encode(event).payload.removesuffix(b'"data":null}') for event in sorted(OF_ROOMS))


def is_of_rooms(message: PreparedMessage) -> bool:
    """Whether the event of a message is one of `OF_ROOMS`."""
    return message.is_text and message.payload.startswith(_HEADS_OF_ROOMS)


def reserved() -> InvalidNameError:
    """The error about an application that sends one of `OF_ROOMS`."""
    return InvalidNameError(
        f"the events {', '.join(sorted(OF_ROOMS))} tell clients of their rooms where some rooms have an authorize or a "
        "history, and are not for an application to send: give yours another name"
    )


def encode_error(
    code: str, message: str, details: dict[str, Any] | None = None, request_id: int | str | None = None
) -> PreparedMessage:
    """Encode ``event: "error"``.

    Args:
        code: the upper-case name of the error, such as ``UNKNOWN_EVENT``.
        message: what is wrong, for the client's developer.
        details: more fields of the data; they cannot replace ``code`` and ``message``.
        request_id: the ``id`` of the message that is answered, if it had one.

    Raises:
        EncodeError: the details have no JSON form.
    """
    return encode(ERROR, {**(details or {}), "code": code, "message": message}, request_id)


def encode_rate_limit_exceeded(
    message: str, retry_after: float, request_id: int | str | None = None
) -> PreparedMessage:
    """Encode ``event: "rate_limit_exceeded"``: a message was not handled, as the client sent too many.

    Args:
        message: what is wrong, for the client's developer.
        retry_after: seconds until the next message would be taken; sent in whole milliseconds, rounded up.
        request_id: the ``id`` of the refused message, if it had one.
    """
    data = {"message": message, "retry_after": math.ceil(retry_after * 1000) / 1000}
    return encode(_RATE_LIMIT_EXCEEDED, data, request_id)


def encode_dropped(count: int) -> PreparedMessage:
    """Encode ``event: "gap"``: ``count`` messages were dropped, as the client did not read in time."""
    return encode(_GAP, {"dropped": count})


def encode_missed(room: str | None, count: int | None) -> PreparedMessage:
    """Encode ``event: "gap"``: messages of other nodes were missed.

    Args:
        room: the room that they were sent to; ``None`` for messages to no room.
        count: the number of messages; ``None`` if it is not known.
    """
    return encode(_GAP, {"room": room, "missed": count})


class GapMessage(PlacedMessage):
    """What a client is told that something of a room with history is lost. Made by `encode_lost`.

    Attributes:
        missed: the number of messages; ``None`` if it is not known.
        reason: why.
    """

    __slots__ = ("missed", "reason")

    def __init__(self, payload: bytes, room: str, at: str, before: str, missed: int | None, reason: GapReason) -> None:
        super().__init__(payload, room, at, before)
        self.missed = missed
        self.reason = reason


def encode_lost(room: str, count: int | None, reason: GapReason, at: str, before: str | None = None) -> GapMessage:
    """Encode ``event: "gap"`` of a room with history: what lies between two positions is lost, and it goes on.

    Args:
        room: the room.
        count: the number of messages; ``None`` if it is not known.
        reason: ``dropped`` where the client did not read in time; else why the engine has them no more.
        at: the text of the position that the client goes on from.
        before: the text of the position before the first that is lost, if there is one.
    """
    data: dict[str, object] = {"room": room, "missed": count, "reason": reason}
    if before is not None:
        data["from"] = before
    payload = encode(_GAP, {**data, "at": at}).payload
    return GapMessage(payload, room, at, at if before is None else before, count, reason)


def encode_pong(request_id: int | str | None = None, data: object = None) -> PreparedMessage:
    """Encode ``event: "$pong"``, once for all pings without an ``id``.

    Args:
        request_id: the ``id`` of the ping.
        data: of the ping: where it is an object with the number of the client's protocol, ``{"v": 1}``, the answer has
            the server's.
    """
    if isinstance(data, dict) and "v" in data:
        return _PONG_OF_PROTOCOL if request_id is None else encode("$pong", PROTOCOL, request_id)
    return _PONG if request_id is None else encode("$pong", None, request_id)


def encode_presence(
    room: str, users: Mapping[str, int], anonymous: int, *, is_full: bool, infos: Mapping[str, bytes] | None = None
) -> PreparedMessage:
    """Encode ``event: "presence"``: the users of a room, or those who have changed.

    Args:
        room: the room.
        users: the number of clients of each user; 0 for one who has left.
        anonymous: the number of clients without a user.
        is_full: whether ``users`` begins anew; if false, they are to be added to those that were told before.
        infos: what the application says of some of these users: JSON objects, as `encode_info` makes them.
    """
    data: dict[str, object] = {"room": room, "users": users, "anonymous": anonymous, "full": is_full}
    if infos:
        data["info"] = {user: msgspec.Raw(info) for user, info in infos.items()}
    return encode(_PRESENCE, data)


def encode_presence_count(room: str, clients: int, users: int, anonymous: int) -> PreparedMessage:
    """Encode ``event: "presence"`` of a room with more users than are named.

    Args:
        room: the room.
        clients: how many clients are in it.
        users: how many users.
        anonymous: the number of clients without a user.
    """
    data = {"room": room, "users": {}, "anonymous": anonymous, "full": True, "count": clients, "user_count": users}
    return encode(_PRESENCE, data)


def encode_info(info: object) -> bytes:
    """Encode what an application says of a user, as messages are encoded.

    Raises:
        EncodeError: it has no JSON form.
    """
    return encode_data(_PRESENCE, info)


def encode_session(expires_in: float | None, token: str | None = None) -> PreparedMessage:
    """Encode ``event: "session"``: what the client needs to know of its login, and of itself.

    Args:
        expires_in: seconds until the login ends; ``None`` if it does not end by itself.
        token: by which the client is known when it comes back; ``None`` for a client that has not announced that.
    """
    data: dict[str, object] = {} if expires_in is None else {"expires_in": expires_in}
    if token is not None:
        data["token"] = token
    return encode(_SESSION, data)


def encode_session_expired() -> PreparedMessage:
    """Encode ``event: "session_expired"``: the login has ended, and the connection will, unless it is renewed."""
    return encode(_SESSION_EXPIRED, None)


def joined_data(
    room: str,
    at: str | None = None,
    recovered: bool | None = None,
    reason: str | None = None,
    missed: int | None = None,
) -> dict[str, object]:
    """What a client is told that came into a room: as the data of ``reply``, or of ``joined``.

    Args:
        room: the room.
        at: the text of the position where the client stands; ``None`` in a room without history.
        recovered: whether it gets all that it missed; ``None`` where it did not say where it had stopped.
        reason: why it does not.
        missed: how many messages follow that it missed.
    """
    rest = {"at": at, "recovered": recovered, "reason": reason, "missed": missed}
    return {"room": room, **{name: value for name, value in rest.items() if value is not None}}


def encode_joined(
    room: str,
    at: str | None = None,
    recovered: bool | None = None,
    reason: str | None = None,
    missed: int | None = None,
) -> PreparedMessage:
    """Encode ``event: "joined"``: the client came into a room that it asked for; see `joined_data`."""
    return encode(JOINED, joined_data(room, at, recovered, reason, missed))


def encode_left(room: str, reason: str | None = None) -> PreparedMessage:
    """Encode ``event: "left"``: the client is out of a room.

    Args:
        room: the room.
        reason: why it was put out: ``FORBIDDEN``, ``INTERNAL_ERROR``, or the code that the application gave; ``None``
            if it has left by itself.
    """
    return encode(_LEFT, {"room": room} if reason is None else {"room": room, "reason": reason})
