"""Common: what the handshakes of many clients have in common is kept once. Knows no connection and no answer.

All clients of a browser send ten headers that are the same, all of a server have its address. While they are connected,
each would keep its own copies: one header is three objects, and takes 200 bytes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["MAX_SIZE", "Common", "CommonHeaders"]

T = TypeVar("T", bound=Hashable)

MAX_KNOWN = 1024
"""Values that are kept, though nobody may have them any more."""
MAX_SIZE = 512
"""Bytes of one of them."""

_HEADERS = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"connection",
        b"host",
        b"origin",
        b"pragma",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-websocket-extensions",
        b"sec-websocket-version",
        b"upgrade",
        b"user-agent",
    }
)
"""Headers that many clients send alike. Others are one client's, and some are secret, which is not kept after it."""
_KEY = b"sec-websocket-key"


class Common(Generic[T]):
    """Values of which equal ones are one object: of a bounded number, as they come from strangers."""

    def __init__(self) -> None:
        self._known: dict[T, T] = {}

    def of(self, value: T) -> T:
        """The first value that was equal to this one; neither can be changed."""
        return self._known.get(value) or self._add(value)

    def _add(self, value: T) -> T:
        if len(self._known) >= MAX_KNOWN:  # which is rare, and costs less than to know which were used last
            self._known.clear()
        self._known[value] = value
        return value


class CommonHeaders(Common[tuple[bytes, bytes]]):
    """Headers of many requests."""

    def of_all(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The headers of a request in a new list, each as `of` has it that others may have too."""
        known = self._known  # `of`, written out, as a call for each header would be felt
        shared = []
        for header in headers:
            name, value = header
            if name in _HEADERS:
                shared.append(known.get(header) or (self._add(header) if len(value) <= MAX_SIZE else header))
            else:
                shared.append((_KEY, value) if name == _KEY else header)
        return shared
