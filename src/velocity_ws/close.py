"""Close: every close that we send, with its code and reason, and which of them ask a client to come back. Pure.

Where nobody looks, the reason is what remains: it is written for the developer of the client.
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
    "MAX_REASON_BYTES",
    "PING_TIMEOUT",
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
"""What goes into a close frame: the code and the reason."""

MAX_REASON_BYTES: Final = 123
"""A close frame carries at most 125 bytes, two of them the code (RFC 6455, section 5.5)."""


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


# --- what we close with, and when; whether to come back is `may_reconnect` of the code

SHUTTING_DOWN: Final[Goodbye] = (CloseCode.GOING_AWAY, "the server is shutting down")
"""``broker.stop()``. Come back."""
SETUP_FAILED: Final[Goodbye] = (CloseCode.INTERNAL_ERROR, "the server failed to set up this connection")
"""An ``on_connect`` hook raised. Come back."""
HANDLING_FAILED: Final[Goodbye] = (CloseCode.INTERNAL_ERROR, "the server failed to go on with this connection")
"""What handles messages was cancelled, or failed. Come back."""
APPLICATION_FAILED: Final[Goodbye] = (CloseCode.INTERNAL_ERROR, "")
"""An ASGI application other than ours raised. Come back."""
APPLICATION_RETURNED: Final[Goodbye] = (CloseCode.NORMAL, "")
"""An ASGI application other than ours returned. Stay away."""
TOO_SLOW: Final[Goodbye] = (CloseCode.TRY_AGAIN_LATER, "too slow: the send queue is full")
"""More than WS_SEND_QUEUE_SIZE waits for the client. Come back."""
TOO_MUCH_UNFINISHED: Final[Goodbye] = (CloseCode.TRY_AGAIN_LATER, "too much is unfinished of all messages")
"""All clients together hold more than WS_MAX_UNFINISHED_SIZE of messages whose rest has not come. Come back."""
PING_TIMEOUT: Final[Goodbye] = (CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
"""No pong within WS_PING_TIMEOUT. Come back."""
TOO_BIG: Final[Goodbye] = (CloseCode.MESSAGE_TOO_BIG, "message too big")
"""A message is over WS_MAX_MESSAGE_SIZE. Stay away."""
TOO_MANY_MESSAGES: Final[Goodbye] = (CloseCode.POLICY_VIOLATION, "too many messages")
"""A client goes on and on over WS_RATE_LIMIT. Stay away."""
TOO_MANY_FRAGMENTS: Final[Goodbye] = (CloseCode.POLICY_VIOLATION, "too many fragments")
"""A message in over 1,024 fragments that are tiny. Stay away."""
TOO_MANY_PINGS: Final[Goodbye] = (CloseCode.POLICY_VIOLATION, "too many pings")
"""Over 500 control frames a second. Stay away."""
INVALID_UTF8: Final[Goodbye] = (CloseCode.INVALID_PAYLOAD, "invalid UTF-8")
"""A text message is no text (RFC 6455, section 8.1). Stay away."""


def restarting(code: int, retry_after: float) -> Goodbye:
    """A server that stops gives its clients back to others. Come back, in so many seconds.

    Args:
        code: WS_RESTART_CODE.
        retry_after: seconds, spread over the clients; ``velocity.js`` reads them from the reason.
    """
    return code, f"restarting, retry_after={retry_after:.3f}"


def slow_message(seconds: float) -> Goodbye:
    """A message was begun, and not all of it came within WS_MESSAGE_TIMEOUT. Stay away."""
    return CloseCode.POLICY_VIOLATION, f"a message took more than {seconds:g} s to come"


def wrong_frame(problem: str) -> Goodbye:
    """A frame is none that a client may send (RFC 6455, section 5). Stay away."""
    return CloseCode.PROTOCOL_ERROR, problem


def refused(reason: str) -> Goodbye:
    """A handshake is refused where the server has no other form for it. Stay away."""
    return CloseCode.POLICY_VIOLATION, reason


def problem_of_close(code: int, reason: str) -> str | None:
    """Why this may not go into a close frame; ``None`` where it may.

    The code may not appear in one (RFC 6455, section 7.4.1), or the reason is over 123 bytes of UTF-8 (section 5.5).
    """
    if isinstance(code, bool) or not isinstance(code, int):
        return f"a close code is an integer, not {code!r}"
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _RESERVED:
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
        code: the close code; 1005 for a close frame without one, 1006 where there was no close frame.
        reason: the text of the close frame.
        by: who ended it: ``client``, ``server`` or ``network`` (no close frame was seen).
    """

    code: int
    reason: str
    by: Literal["client", "server", "network"]
