"""RedisPrimary: where the server is that is published to: the one of the URL, or the one that Sentinels name.

Knows no command. Used by the backplane and by the store of history alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from velocity_ws.backplane.redis_pool import pool_of
from velocity_ws.backplane.redis_sentinel import Moved, SentinelPrimary
from velocity_ws.backplane.sentinel_urls import SENTINEL_SCHEMES

__all__ = ["RedisPrimary", "primary_of"]


class RedisPrimary(Protocol):
    """One server, or which one of several. On the broker's loop only."""

    async def find(self, moved: Moved) -> Callable[[], Any]:
        """Find the primary.

        Args:
            moved: called when it is another one from then on, until `close`.

        Returns:
            What makes connections to it, of redis-py.

        Raises:
            OSError: it is not known.
        """

    async def unreached(self) -> None:
        """The one that was found takes no connection; where there may be another, a moment is waited for it."""

    async def close(self) -> None:
        """Look no more whether it moves. Raises nothing."""


class _OnlyServer:
    """The server of a URL."""

    def __init__(self, url: str) -> None:
        self._pool = pool_of(url)

    async def find(self, moved: Moved) -> Callable[[], Any]:  # noqa: ARG002 - it never does
        """See `RedisPrimary.find`."""
        make: Callable[[], Any] = self._pool.make_connection
        return make

    async def unreached(self) -> None:
        """See `RedisPrimary.unreached`."""

    async def close(self) -> None:
        """See `RedisPrimary.close`."""


def primary_of(url: str) -> RedisPrimary:
    """The primary that a URL leads to.

    Raises:
        ValueError: redis-py does not take the URL.
    """
    return SentinelPrimary(url) if url.partition("://")[0] in SENTINEL_SCHEMES else _OnlyServer(url)
