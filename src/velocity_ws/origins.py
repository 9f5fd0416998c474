"""Origins: which pages may open a WebSocket, by scheme, host and port, never as text. Knows no connection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Origin", "OriginPattern", "is_same_origin"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_HOST = r"(?:\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?)"
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://(\*\.)?({_HOST})(?::(\d{{1,5}}|\*))?", re.ASCII)
_HOSTLESS = {"null": "null", "file://": "file"}
_ANY_PORT = 0
_NO_PORT = -1
_HOST_HEADER = re.compile(rf"({_HOST})(?::(\d{{1,5}}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """A parsed ``Origin`` header (RFC 6454, section 7).

    Attributes:
        scheme: in lower case; ``null`` for the opaque origin (a sandboxed frame, a ``data:`` or local page).
        host: in lower case; IPv6 in brackets; empty for ``null`` and ``file://``.
        port: the scheme's default if none was written; ``None`` if the scheme has no default.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        """Parse the value of a header; ``None`` if it is not an origin."""
        if text in _HOSTLESS:
            return cls(_HOSTLESS[text], "", None)
        match = _match(_ORIGIN, text)
        if match is None or match[2]:
            return None
        port = _port(match[4], match[1])
        return None if port in (_NO_PORT, _ANY_PORT) else cls(match[1], match[3], port)


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """An entry of ``WS_ALLOWED_ORIGINS``: an exact origin, all subdomains or all ports of a host, or every origin.

    Attributes:
        origin: the scheme, host and port that match; port 0 matches any port, ``None`` every origin.
        subdomains: whether the subdomains of the host match, and not the host itself.
    """

    origin: Origin | None
    subdomains: bool

    @classmethod
    def parse(cls, text: str) -> OriginPattern:
        """Parse one entry of ``WS_ALLOWED_ORIGINS``.

        Raises:
            ValueError: it has none of the forms of an entry.
        """
        if text == "*":
            return cls(None, False)
        if text in _HOSTLESS:
            return cls(Origin.parse(text), False)
        match = _match(_ORIGIN, text)
        port = _port(match[4], match[1]) if match else _NO_PORT
        if match is None or port == _NO_PORT:
            raise ValueError(
                f"{text!r} is not an origin; write https://app.example.com, https://*.example.com, http://localhost:* "
                "(any port), null, file:// or *"
            )
        return cls(Origin(match[1], match[3], port), bool(match[2]))

    def matches(self, origin: Origin) -> bool:
        """Return whether this entry allows an origin."""
        mine = self.origin
        if mine is None:
            return True
        if mine.scheme != origin.scheme or mine.port not in (_ANY_PORT, origin.port):
            return False
        return origin.host.endswith("." + mine.host) if self.subdomains else origin.host == mine.host


def is_same_origin(origin: Origin, hosts: Iterable[str]) -> bool:
    """Return whether a page comes from the host that it connects to: host and port are equal, default ports filled in.

    The scheme is not compared, and a ``Host`` without a port takes the default of the origin's scheme, because
    a proxy may end TLS before us. A request without exactly one ``Host`` header is of another origin.

    Args:
        origin: the origin of the page.
        hosts: the values of all ``Host`` headers of the request.
    """
    values = list(hosts)
    match = _match(_HOST_HEADER, values[0]) if len(values) == 1 else None
    if match is None or origin.scheme not in _DEFAULT_PORTS:
        return False
    return (match[1], _port(match[2], origin.scheme)) == (origin.host, origin.port)


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    # Some letters beyond ASCII become ASCII in lower case (the Kelvin sign), which would make it another host.
    return pattern.fullmatch(text.lower()) if text.isascii() else None


def _port(digits: str | None, scheme: str) -> int | None:
    """Parse a port; the scheme's default if none is written."""
    if digits is None:
        return _DEFAULT_PORTS.get(scheme)
    if digits == "*":
        return _ANY_PORT
    return int(digits) if 0 < int(digits) <= 65535 else _NO_PORT
