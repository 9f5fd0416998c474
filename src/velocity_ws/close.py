"""Close: how connections end: the codes, and which of them ask a client to come back. Pure: knows no connection."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

__all__ = ["MAX_REASON_BYTES", "Close", "CloseCode", "may_reconnect", "problem_of_close"]

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
