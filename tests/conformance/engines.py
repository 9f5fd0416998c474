"""The engines that keep streams, which suites and clients that are not ours are tried on. Knows neither."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.engines import engine
from tests.support.jetstream import storing

ENGINES = ("memory", "valkey", "nats")


@asynccontextmanager
async def started(kind: str) -> AsyncIterator[str]:
    """An engine that keeps streams, until the end of the block; its URL."""
    if kind == "memory":
        yield f"memory://{secrets.token_hex(8)}"
        return
    with tempfile.TemporaryDirectory() as directory:
        async with storing(Path(directory)) if kind == "nats" else engine(kind) as server:
            yield server.url
