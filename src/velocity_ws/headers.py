"""Headers: what an application may not add to the answer of a handshake. Pure: knows no request and no client."""

from __future__ import annotations

import re

__all__ = ["is_token", "problem_of_header"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~\w]+", re.ASCII)  # RFC 9110, section 5.6.2
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # section 5.5: a value has none but the tab
_OWNED = frozenset({"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers of the connection itself (RFC 9110, section 7.6.1), which the answer to a handshake has its own of."""


def is_token(text: object) -> bool:
    """Whether something is a token of HTTP, as names of headers and subprotocols are."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def problem_of_header(name: str, value: str) -> str | None:
    """Why a header cannot be sent with the answer to a handshake, and what to do; ``None`` if it can.

    Args:
        name: in lower case.
        value: its value.
    """
    if not is_token(name) or _CONTROL.search(value):
        return f"this cannot be sent as a header, as it would break out of its line: {name!r}"
    if name in _OWNED or name.startswith("sec-websocket-"):
        return f"{name} belongs to the handshake itself; headers=… is for all others"
    if not value.isascii() and any(character > "\xff" for character in value):
        return f"the value of {name} has characters that no header can: quote them"
    return None
