"""Close: every close that we send, with its code and reason, and which of them ask a client to come back. Pure.

A reason is written for the developer of the client, who often has no other trace of the close.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

__all__ = [
    "APPLICATION_FAILED",
    "APPLICATION_RETURNED",
    "HANDLING_FAILED",
    "INVALID_UTF8",
    "LOST",
    "MAX_REASON_BYTES",
    "PING_TIMEOUT",
    "SENDABLE",
    "SESSION_EXPIRED",
    "SETUP_FAILED",
    "SHUTTING_DOWN",
    "TOO_BIG",
    "TOO_MANY_FRAGMENTS",
    "TOO_MANY_MESSAGES",
    "TOO_MANY_PINGS",
    "TOO_MUCH_UNFINISHED",
    "TOO_SLOW",
    "Close",
    "CloseCode",
    "Goodbye",
    "may_reconnect",
    "problem_of_close",
    "refused",
    "restarting",
    "slow_message",
    "wrong_frame",
]

Goodbye = tuple[int, str]
"""The content of a close frame: the code and the reason."""

MAX_REASON_BYTES: Final = 123
"""Bytes of the longest reason: a close frame carries 125, two of them the code (RFC 6455, section 5.5)."""


class CloseCode(IntEnum):
    """The close codes this package sends or meets (RFC 6455, section 7.4, and the IANA registry).

    ``PAGE_FROZEN`` is of the private range, and ``velocity.js`` sends it: its page is frozen, or kept for the back
    button, and comes back when it is shown again. The name is one of the Page Lifecycle API.
    """

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
    PAGE_FROZEN = 4100


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
SENDABLE: Final = frozenset((*range(1000, 1015), *range(3000, 5000))) - {1004, CloseCode.NO_STATUS, CloseCode.ABNORMAL}
"""What a close frame may say (RFC 6455, section 7.4, and the IANA registry)."""


def may_reconnect(code: int) -> bool:
    """Return whether a client that was closed with this code should reconnect by itself.

    It should not after a normal close, after an error that would only repeat itself, and after 4400 to 4499, the
    application's counterpart of HTTP's 4xx. ``velocity.js`` follows the same rule.
    """
    return code not in _FINAL and not 4400 <= code <= 4499


# --- the closes that we send; "come back" and "stay away" is what `may_reconnect` says of the code

SHUTTING_DOWN: Final[Goodbye] = (CloseCode.GOING_AWAY, "the server is shutting down")
"""``broker.stop()`` was called. Come back."""
SETUP_FAILED: Final[Goodbye] = (CloseCode.INTERNAL_ERROR, "the server failed to set up this connection")
"""An ``on_connect`` hook raised. Come back."""
HANDLING_FAILED: Final[Goodbye] = (CloseCode.INTERNAL_ERROR, "the server failed to go on with this connection")
"""The handling of messages was cancelled, or failed outside of the hooks. Come back."""
APPLICATION_FAILED: Final[Goodbye] = (CloseCode.INTERNAL_ERROR, "")
"""An ASGI application other than ours raised. Come back."""
APPLICATION_RETURNED: Final[Goodbye] = (CloseCode.NORMAL, "")
"""An ASGI application other than ours returned. Stay away."""
TOO_SLOW: Final[Goodbye] = (CloseCode.TRY_AGAIN_LATER, "too slow: the send queue is full")
"""More than WS_SEND_QUEUE_SIZE bytes wait for the client. Come back."""
TOO_MUCH_UNFINISHED: Final[Goodbye] = (CloseCode.TRY_AGAIN_LATER, "too much is unfinished of all messages")
"""The unfinished messages of all clients have more than WS_MAX_UNFINISHED_SIZE bytes. Come back."""
PING_TIMEOUT: Final[Goodbye] = (CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
"""No pong came within WS_PING_TIMEOUT. Come back."""
TOO_BIG: Final[Goodbye] = (CloseCode.MESSAGE_TOO_BIG, "message too big")
"""A message has more than WS_MAX_MESSAGE_SIZE bytes. Stay away."""
TOO_MANY_MESSAGES: Final[Goodbye] = (CloseCode.POLICY_VIOLATION, "too many messages")
"""A client keeps exceeding WS_RATE_LIMIT. Stay away."""
TOO_MANY_FRAGMENTS: Final[Goodbye] = (CloseCode.POLICY_VIOLATION, "too many fragments")
"""A message came in more than 1,024 tiny fragments. Stay away."""
TOO_MANY_PINGS: Final[Goodbye] = (CloseCode.POLICY_VIOLATION, "too many pings")
"""A client sent more than 500 control frames in a second. Stay away."""
SESSION_EXPIRED: Final[Goodbye] = (4401, "session expired")
"""A login has ended, and was not renewed within WS_EXPIRY_GRACE. Stay away: another login is needed."""
INVALID_UTF8: Final[Goodbye] = (CloseCode.INVALID_PAYLOAD, "invalid UTF-8")
"""A text message is not valid UTF-8 (RFC 6455, section 8.1). Stay away."""


def restarting(code: int, retry_after: float) -> Goodbye:
    """The server stops, and others take its clients. Come back after ``retry_after``.

    Args:
        code: WS_RESTART_CODE.
        retry_after: seconds, another number for each client; ``velocity.js`` reads them from the reason.
    """
    return code, f"restarting, retry_after={retry_after:.3f}"


def slow_message(seconds: float) -> Goodbye:
    """A message has not come as a whole within WS_MESSAGE_TIMEOUT, given in seconds. Stay away."""
    return CloseCode.POLICY_VIOLATION, f"a message took more than {seconds:g} s to come"


def wrong_frame(problem: str) -> Goodbye:
    """A client sent a frame that it may not send (RFC 6455, section 5). Stay away.

    Args:
        problem: what is wrong with the frame.
    """
    return CloseCode.PROTOCOL_ERROR, problem


def refused(reason: str) -> Goodbye:
    """A handshake is refused on a server that cannot answer it with an HTTP status. Stay away.

    Args:
        reason: why it is refused.
    """
    return CloseCode.POLICY_VIOLATION, reason


def problem_of_close(code: int, reason: str) -> str | None:
    """Find out why a code and a reason may not be sent in a close frame; ``None`` if they may.

    A code may be one that is never sent (RFC 6455, section 7.4.1), a reason longer than 123 bytes of UTF-8 (section
    5.5).
    """
    if isinstance(code, bool) or not isinstance(code, int):
        return f"a close code is an integer, not {code!r}"
    if code not in SENDABLE:
        return f"{code} may not be sent in a close frame; use 1000, or 4000 to 4999 for your own"
    try:
        size = len(reason.encode())
    except UnicodeEncodeError:
        return "a close reason must be valid Unicode; it holds a lone surrogate"
    if size > MAX_REASON_BYTES:
        return f"a close reason has at most {MAX_REASON_BYTES} bytes of UTF-8, this one {size}"
    return None


@dataclass(frozen=True, slots=True)
class Close:
    """How a connection ended.

    Attributes:
        code: the close code; 1005 for a close frame without a code, 1006 if no close frame came.
        reason: the text of the close frame; often empty.
        by: the side that ended the connection: ``client``, ``server``, or ``network`` if no close frame came.
    """

    code: int
    reason: str
    by: Literal["client", "server", "network"]


LOST: Final = Close(CloseCode.ABNORMAL, "", "network")
"""A connection that ended without a close frame (RFC 6455, section 7.1.5)."""
