"""Which pages may open a socket: origins compared as parsed scheme, host and port, never as text.

Knows only headers and patterns, no connection.
"""

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
        scheme: in lower case; ``null`` of the origin that says nothing (a sandboxed frame, a ``data:`` or local page).
        host: in lower case; IPv6 in brackets; empty of ``null`` and ``file://``.
        port: the scheme's default where none was written; ``None`` where the scheme has none.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        """The origin in a header's value, or ``None`` where it is not one."""
        if text in _HOSTLESS:
            return cls(_HOSTLESS[text], "", None)
        match = _match(_ORIGIN, text)
        if match is None or match[2]:
            return None
        port = _port(match[4], match[1])
        return None if port in (_NO_PORT, _ANY_PORT) else cls(match[1], match[3], port)


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """An entry of ``WS_ALLOWED_ORIGINS``: an exact origin, any subdomain of a host, any port of one, or everything.

    Attributes:
        origin: scheme, host and port, 0 for any port; ``None`` matches every origin.
        subdomains: whether it is the subdomains of the host that match, and not the host itself.
    """

    origin: Origin | None
    subdomains: bool

    @classmethod
    def parse(cls, text: str) -> OriginPattern:
        """Parse one entry.

        Raises:
            ValueError: it has none of these forms.
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
        """Whether this entry allows that origin."""
        mine = self.origin
        if mine is None:
            return True
        if mine.scheme != origin.scheme or mine.port not in (_ANY_PORT, origin.port):
            return False
        return origin.host.endswith("." + mine.host) if self.subdomains else origin.host == mine.host


def is_same_origin(origin: Origin, hosts: Iterable[str]) -> bool:
    """Whether a page's origin is the host that was asked: host and port equal, default ports filled in.

    The scheme is not compared, and a ``Host`` without a port takes the default of the origin's scheme, because
    a proxy may end TLS before us. More or fewer than one ``Host`` header is no same origin.
    """
    values = list(hosts)
    match = _match(_HOST_HEADER, values[0]) if len(values) == 1 else None
    if match is None or origin.scheme not in _DEFAULT_PORTS:
        return False
    return (match[1], _port(match[2], origin.scheme)) == (origin.host, origin.port)


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    # Some letters beyond ASCII become ASCII in lower case (the Kelvin sign), and another host with them.
    return pattern.fullmatch(text.lower()) if text.isascii() else None


def _port(digits: str | None, scheme: str) -> int | None:
    """A port as a number; the scheme's default where none is written."""
    if digits is None:
        return _DEFAULT_PORTS.get(scheme)
    if digits == "*":
        return _ANY_PORT
    return int(digits) if 0 < int(digits) <= 65535 else _NO_PORT
