"""Sources that yield tokens in real time, each by its own clock, as models do. Knows nothing of who reads them."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.streams.tokens import tokens_of

__all__ = ["Sources", "times_in"]


def times_in(name: str) -> array[int]:
    """What is in the file of `Sources.go`, which is removed."""
    times = array("q")
    path = Path(name)
    times.frombytes(path.read_bytes())
    path.unlink()
    return times


class Sources:
    """Those of one run. They wait for a common start, and are spread over the time of one token."""

    def __init__(self) -> None:
        self._start = 0.0
        self._per_second = 1.0
        self._tokens: list[list[str]] = []
        self._times = array("q")
        self._late = 0
        self._left = 0
        self._gate = asyncio.Event()
        self._over = asyncio.Event()

    def prepare(self, streams: int, tokens: int, per_second: float, size: int = 0) -> None:
        """Have so many streams of so many tokens each; see `tokens_of` for their size."""
        self._per_second = per_second
        self._tokens = [tokens_of(stream, tokens, size) for stream in range(streams)]
        self._times = array("q", [0]) * (streams * tokens)
        self._late = 0
        self._left = streams
        self._gate, self._over = asyncio.Event(), asyncio.Event()

    async def of(self, stream: int) -> AsyncIterator[str]:
        """The tokens of one stream, when they are due."""
        await self._gate.wait()
        tokens, times = self._tokens[stream], self._times
        first = stream * len(tokens)
        between = 1 / self._per_second
        start = self._start + between * stream / len(self._tokens)
        try:
            for number, token in enumerate(tokens):
                due = start + number * between
                now = time.monotonic()
                self._late += now - due > between
                await asyncio.sleep(max(0.0, due - now))
                times[first + number] = time.monotonic_ns()
                yield token
        finally:
            self._left -= 1
            if not self._left:
                self._over.set()

    async def go(self) -> dict[str, Any]:
        """Start, and wait until every source is at its end.

        Returns:
            The file that says when each token was there, in nanoseconds, stream by stream; how many were late by more
            than the time of one, because the server could not keep the pace.
        """
        self._start = time.monotonic()
        self._gate.set()
        await self._over.wait()
        return {"times": self._written(), "late": self._late}

    def _written(self) -> str:
        # As JSON they would be more than a line may have; and a token that carried its own time would be no word.
        descriptor, name = tempfile.mkstemp(prefix="velocity-ws-tokens-")
        with os.fdopen(descriptor, "wb") as file:
            self._times.tofile(file)
        return name
