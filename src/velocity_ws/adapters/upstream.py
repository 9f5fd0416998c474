"""Upstream: what an adapter reads: opened when it is first asked, and closed whatever ends it. Knows no framework."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["Upstream", "opened"]

Upstream = AsyncIterable[Any] | Awaitable[AsyncIterable[Any]]
"""What is iterated, or what gives it when it is awaited, as a request does."""


@asynccontextmanager
async def opened(source: Upstream) -> AsyncIterator[AsyncIterator[Any]]:
    """Iterate a source, which is closed behind the block, also where that is cancelled or left early.

    Raises:
        TypeError: it is nothing that can be iterated.

        And what the source raises where it is awaited.
    """
    upstream = await source if inspect.isawaitable(source) else source
    if not hasattr(upstream, "__aiter__"):
        raise TypeError(f"an adapter reads what is iterated asynchronously, with stream=True, and not {upstream!r:.80}")
    iterator = aiter(upstream)
    try:
        yield iterator
    finally:
        await _close(iterator)
        if upstream is not iterator:
            await _close(upstream)


async def _close(upstream: Any) -> None:
    """Close a generator, or a response, which has either method."""
    close = getattr(upstream, "aclose", None) or getattr(upstream, "close", None)
    if close is not None:
        closing = close()
        if inspect.isawaitable(closing):
            await closing
