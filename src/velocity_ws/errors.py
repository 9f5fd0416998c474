"""What can go wrong, and how a connection ends: the exception tree and the close codes.

Knows nothing of the rest of the package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

__all__ = [
    "BackplaneUnavailable",
    "BrokerError",
    "ClientError",
    "ClientGone",
    "ClientIdError",
    "ClientNotFound",
    "ClientTimeout",
    "Close",
    "CloseCode",
    "EncodeError",
    "HookError",
    "InvalidCloseError",
    "InvalidNameError",
    "InvalidPathError",
    "Reject",
    "ServerError",
    "SettingsError",
    "VelocityError",
    "WouldDeadlockError",
    "may_reconnect",
    "validate_close",
]

_ID = re.compile(r"[\w-]{11}\.[\w-]{22}", re.ASCII)
MAX_REASON_BYTES = 123
"""A close frame carries at most 125 bytes, two of them the code (RFC 6455, section 5.5)."""


class VelocityError(Exception):
    """The root of every exception this package raises."""


class SettingsError(VelocityError, ValueError):
    """A setting that cannot be used.

    Attributes:
        problems: for each bad setting, its variable (``WS_PORT``) and what is wrong with it.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        lines = "".join(f"\n  {name}: {problem}" for name, problem in problems.items())
        super().__init__(f"unusable settings:{lines}")


class HookError(VelocityError, TypeError):
    """A function of the application that cannot be used: as a hook, which is said where it is registered, or for
    ``user_id`` or ``presence`` of a broker."""


class EncodeError(VelocityError, TypeError):
    """A message that cannot be sent because its data has no JSON form. Nothing was sent.

    Attributes:
        event: the name of the message.
    """

    def __init__(self, event: str, why: str) -> None:
        self.event = event
        super().__init__(
            f"the data of event {event!r} cannot be sent as JSON: {why}. "
            "Send what JSON has, a dataclass, a pydantic model, a datetime or a UUID."
        )


class InvalidNameError(VelocityError, ValueError):
    """A name of a room, an event or a broker that it cannot have."""


class InvalidPathError(VelocityError, ValueError):
    """A path that nothing can be served at."""


class InvalidCloseError(VelocityError, ValueError):
    """A close code that may not be sent, or a reason that does not fit into a close frame."""


class ClientIdError(VelocityError, TypeError):
    """Something else was given where a client's id belongs."""

    def __init__(self, call: str, given: object) -> None:
        super().__init__(f"{call} takes the client's id, a string: pass client.id, and not {given!r:.80}")


class ClientNotFound(VelocityError, LookupError):
    """No client of that id is connected.

    Attributes:
        client_id: the id that was asked for.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        hint = "" if _ID.fullmatch(client_id) else ". A client's id looks otherwise; it is join_room(client_id, room)"
        super().__init__(
            f"no client {client_id!r} is connected; it may have left: ask is_connected(id) first, or catch this{hint}"
        )


class ClientGone(VelocityError, ConnectionError):
    """The client went, or was closed, before it could be sent what it was to get.

    Attributes:
        client_id: the client's.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        super().__init__(f"client {client_id!r} has gone; there is nobody to send to: end what was being done for it")


class ClientTimeout(VelocityError, TimeoutError):
    """The client did not read what waits for it in time.

    Attributes:
        client_id: the client's.
        seconds: how long it was waited for.
    """

    def __init__(self, client_id: str, seconds: float) -> None:
        self.client_id = client_id
        self.seconds = seconds
        super().__init__(
            f"client {client_id!r} did not read what waits for it within {seconds:g} s; "
            "send it less, or give it a longer timeout"
        )


class BrokerError(VelocityError, RuntimeError):
    """The broker is not in a state in which it can do that."""


class WouldDeadlockError(BrokerError):
    """A blocking call on the broker's own event loop, which would wait for itself."""


class BackplaneUnavailable(VelocityError, ConnectionError):
    """A message, or a question, did not reach the other nodes as far as is known. The clients of this one got theirs.

    Attributes:
        outcome: ``refused``: no other node got it; ``unknown``: it was handed to the engine, which did not confirm
            it in time, so they may have. Nothing is sent a second time by itself.
    """

    def __init__(self, reason: str, outcome: Literal["refused", "unknown"] = "refused") -> None:
        self.outcome = outcome
        hint = "it reached no other node" if outcome == "refused" else "whether it reached other nodes is not known"
        super().__init__(f"{reason}; {hint}. Catch this, or ask broker.healthy, to tell users")


class ServerError(VelocityError, RuntimeError):
    """The server could not be started, or was asked for something only a running one has."""


class Reject(VelocityError):
    """Raise it in an ``authenticate`` hook to refuse a connection.

    Args:
        reason: short text for the client; the body of the response, or the reason of the close frame.
        status: the HTTP status that answers the handshake, 400 to 599. A browser's script cannot read it.
        code: a close code. Where it is given the handshake is accepted and closed with it at once, because
            that is the only refusal a browser can read. 4000 to 4999 are the application's own.

    Raises:
        InvalidCloseError: the status or the code may not be sent, or the reason is too long for a close frame.
    """

    def __init__(self, reason: str = "", status: int = 403, *, code: int | None = None) -> None:
        if code is not None:
            validate_close(code, reason)
        elif not 400 <= status <= 599:
            raise InvalidCloseError(f"a refusal is answered with a status from 400 to 599, not {status}")
        self.reason = reason
        self.status = status
        self.code = code
        super().__init__(reason or f"refused with {code or status}")


class ClientError(VelocityError):
    """Raise it in a message hook to answer ``event: "error"`` and end that message. It is no failure of yours.

    Args:
        code: upper-case name of the error, such as ``UNAUTHORIZED``.
        message: what the client's developer should read.
        details: more fields for the error's data; they cannot replace ``code`` and ``message``.
    """

    def __init__(self, code: str, message: str = "", /, **details: Any) -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(f"{code}: {message}" if message else code)


class CloseCode(IntEnum):
    """The close codes this package sends or meets (RFC 6455, section 7.4, and the IANA registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MISSING_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


_FINAL = frozenset(
    {
        CloseCode.NORMAL,
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_PAYLOAD,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
        CloseCode.MISSING_EXTENSION,
    }
)
_RESERVED = frozenset({1004, CloseCode.NO_STATUS, CloseCode.ABNORMAL, 1015})


def may_reconnect(code: int) -> bool:
    """Whether a client that was closed with this code should come back by itself.

    No after a normal close, after an error that would only repeat itself, and after 4400 to 4499, the
    application's counterpart of HTTP's 4xx. ``velocity.js`` follows the same rule.
    """
    return code not in _FINAL and not 4400 <= code <= 4499


def validate_close(code: int, reason: str) -> None:
    """Check what is to go into a close frame.

    Raises:
        InvalidCloseError: the code may not appear in a close frame (RFC 6455, section 7.4.1), or the reason
            is over 123 bytes of UTF-8 (section 5.5).
    """
    if isinstance(code, bool) or not isinstance(code, int):
        raise InvalidCloseError(f"a close code is an integer, not {code!r}")
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _RESERVED:
        raise InvalidCloseError(f"{code} may not be sent in a close frame; use 1000, or 4000 to 4999 for your own")
    try:
        size = len(reason.encode())
    except UnicodeEncodeError:
        raise InvalidCloseError("a close reason must be valid Unicode; it holds a lone surrogate") from None
    if size > MAX_REASON_BYTES:
        raise InvalidCloseError(f"a close reason has at most {MAX_REASON_BYTES} bytes of UTF-8, this one {size}")


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ended.

    Attributes:
        code: the close code; 1005 for a close frame without one, 1006 where there was no close frame.
        reason: the text of the close frame.
        by: who ended it: ``client``, ``server`` or ``network`` (no close frame was seen).
    """

    code: int
    reason: str
    by: Literal["client", "server", "network"]
