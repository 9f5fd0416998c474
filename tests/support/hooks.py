"""What a hook is called with in tests, and its call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from velocity_ws.hooks.binding import Kind
from velocity_ws.hooks.hook import Hook

__all__ = ["THREADS", "VALUES", "F", "call"]

VALUES: dict[str, Any] = {
    "request": "REQUEST",
    "client": "CLIENT",
    "message": "MESSAGE",
    "data": "DATA",
    "close": "CLOSE",
    "error": "ERROR",
}
"""What there is to be asked for; each by a name that tells it from the others."""
F = Callable[..., Any]
THREADS = ThreadPoolExecutor(4)


async def call(kind: Kind, function: F, **values: Any) -> Any:
    return await Hook(kind, function)(THREADS, {**VALUES, **values})
