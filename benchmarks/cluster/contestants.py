"""Who is compared across nodes, and the engines between them. Knows how they are started, not how they work."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from redis.asyncio import Redis

from benchmarks.contestants import Contestant
from benchmarks.process import pinned
from tests.support.engines import engine

__all__ = ["ALONE", "EMBEDDED", "ENTRANTS", "NATS", "OURS", "PEERS", "REDIS", "Entrant", "emptied", "engines"]

Engine = Literal["valkey", "nats", "embedded"]


@dataclass(frozen=True)
class Entrant:
    """A program of which several processes work together.

    Attributes:
        contestant: how one of them is started, without the engine's URL.
        engine: what is between them.
        ours: whether it is velocity-ws.
    """

    contestant: Contestant
    engine: Engine
    ours: bool = False

    @property
    def name(self) -> str:
        """In the tables."""
        return self.contestant.name

    def command(self, url: str) -> list[str]:
        """What starts one process."""
        return [*self.contestant.command, "--backplane", url]


def _python(module: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.servers.{module}", *options)


ALONE = Contestant("velocity-ws", "velocity", _python("velocity"), everywhere=True)
"""One process without others, to compare with."""
REDIS = Entrant(Contestant("velocity-ws, redis://", "redis", ALONE.command, everywhere=True), "valkey", ours=True)
NATS = Entrant(Contestant("velocity-ws, nats://", "nats", ALONE.command, everywhere=True), "nats", ours=True)
EMBEDDED = Entrant(
    Contestant("velocity-ws, embedded://", "embedded", ALONE.command, everywhere=True), "embedded", ours=True
)
OURS = (REDIS, NATS, EMBEDDED)
PEERS = (
    Entrant(
        Contestant(
            "python-socketio, AsyncRedisManager",
            "socketio",
            _python("socketio_server"),
            needs=("socketio",),
            framing="socketio",
        ),
        "valkey",
    ),
    Entrant(
        Contestant(
            "Django Channels, channels_redis",
            "channels",
            _python("channels_server"),
            needs=("channels", "channels_redis"),
            slow=True,
        ),
        "valkey",
    ),
    Entrant(
        Contestant(
            "Django Channels, channels_redis pub/sub",
            "channels_pubsub",
            _python("channels_server", "--pubsub"),
            needs=("channels", "channels_redis"),
            slow=True,
        ),
        "valkey",
    ),
)
ENTRANTS = (*OURS, *PEERS)


@asynccontextmanager
async def engines() -> AsyncIterator[dict[str, str]]:
    """Fresh engines, beside the server's core, for as long as the block; their URLs."""
    async with AsyncExitStack() as stack:
        with pinned(server=False):
            valkey = await stack.enter_async_context(engine("valkey"))
            nats = await stack.enter_async_context(engine("nats"))
        yield {"valkey": f"redis://127.0.0.1:{valkey.port}", "nats": nats.url, "embedded": "embedded://bench"}


async def emptied(url: str) -> None:
    """Remove what others have left in a Valkey: groups of channels_redis keep members that died, and send to them."""
    client = Redis.from_url(url)
    try:
        await client.flushall()
    finally:
        await client.aclose()
