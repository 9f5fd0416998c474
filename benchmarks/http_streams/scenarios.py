"""What readers of a stream over HTTP cost a server: its processor for what they get, its memory while they wait."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from benchmarks.contestants import Contestant
from benchmarks.process import Child
from benchmarks.scenarios import Figures

__all__ = ["CONTESTANTS", "CPU", "FULL", "MEMORY", "QUICK", "WAITING", "Sizes", "delivery", "waiting"]

CPU = "CPU, µs a KiB"
MEMORY = "KiB each"
SETTLED = 1.0
"""Seconds until readers whose answer has begun, or is yet to begin, wait."""
WARM = 10
"""Clients that come and go before memory is looked at, and tokens before the processor's time is."""
numbers = itertools.count()


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        readers: of the stream.
        tokens: of it.
        size: bytes of a token.
        per_second: tokens.
        waiting: clients that wait.
    """

    readers: int
    tokens: int
    size: int
    per_second: float
    waiting: int


FULL = Sizes(100, 400, 512, 50, 1000)
QUICK = Sizes(3, 10, 512, 100, 20)


def _contestant(name: str, short: str, module: str, *needs: str, framing: str) -> Contestant:
    command = (sys.executable, "-m", f"benchmarks.servers.{module}")
    return Contestant(name, short, command, needs=needs, everywhere=not needs, framing=framing)


CONTESTANTS = (
    _contestant("velocity-ws", "ours", "http_streams", framing="ours"),
    _contestant("rakaia-streams", "rakaia", "rakaia_streams", "rakaia", framing="rakaia"),
    _contestant("fastapi-resumable-stream", "package", "resumable_package", "fastapi_resumable_stream", framing="sse"),
)
WAITING = {"a WebSocket": "plain", "events": "ours", "a long poll": "poll"}
"""What waits, and how the load calls it."""


async def delivery(contestant: Contestant, node: Child, load: Child, sizes: Sizes) -> Figures:
    """One stream with many readers."""
    await _delivered(contestant, node, load, sizes, WARM)
    return await _delivered(contestant, node, load, sizes, sizes.tokens)


async def _delivered(contestant: Contestant, node: Child, load: Child, sizes: Sizes, tokens: int) -> Figures:
    room, port, form = f"{next(numbers)}-0", node.hello["port"], contestant.framing
    said = {"tokens": tokens, "size": sizes.size, "per_second": sizes.per_second}
    if form == "sse":
        await node.ask("prepare", way="", run=room[:-1], room="", streams=1, **said)
    else:
        await load.ask("create", port=port, form=form, room=room)
    await load.ask("connect", port=port, clients=sizes.readers, framing=form, deflate=False, room=room)
    await asyncio.sleep(SETTLED)
    await load.ask("expect")
    before = node.usage().total
    if form == "sse":
        late = (await node.ask("go"))["late"]
    else:
        late = (await load.ask("say", port=port, form=form, room=room, **said))["late"]
    busy = (await load.ask("wait_ends"))["busy"]
    used = node.usage().total - before
    found = await load.ask("check", streams=1, tokens=tokens, size=sizes.size, times="")
    await load.ask("keep", clients=0)
    kilobytes = sizes.readers * tokens * sizes.size / 1024
    values = {CPU: used / kilobytes * 1e6, "tokens an event": found["deliveries"] / max(found["frames"], 1)}
    return Figures(values, found["deliveries"], found["faults"], busy, late)


async def waiting(backplane: Sequence[str], load: Child, sizes: Sizes) -> dict[str, Figures]:
    """Clients that wait for what is never said, each kind in a fresh server, whose memory is its own."""
    found = {}
    for name, framing in WAITING.items():
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(Child([*CONTESTANTS[0].command, *backplane], server=True))
            found[name] = Figures({MEMORY: await _memory(node, load, framing, sizes.waiting) / 1024})
            await load.ask("keep", clients=0)  # before the server is gone
    return found


async def _memory(node: Child, load: Child, framing: str, clients: int) -> float:
    port = node.hello["port"]
    room = f"{next(numbers)}-0"
    if framing != "plain":
        await load.ask("create", port=port, form="ours", room=room)
    seen = []
    for count in (WARM, clients):
        await load.ask("keep", clients=0)
        await asyncio.sleep(SETTLED)
        await node.ask("status", collect=True)
        seen.append(node.usage().rss)
        await load.ask("connect", port=port, clients=count, framing=framing, deflate=False, room=room)
        await asyncio.sleep(SETTLED)
        await node.ask("status", collect=True)
        seen.append(node.usage().rss)
    return (seen[-1] - seen[-2]) / clients


def ratio(ours: Sequence[Figures], theirs: Sequence[Figures], column: str) -> float | None:
    """The median of the rounds' own ratios: what disturbs the machine for a while disturbs both."""
    found = [mine.values[column] / other.values[column] for mine, other in zip(ours, theirs, strict=False)]
    return median(found) if found else None
