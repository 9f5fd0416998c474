"""A server that broadcasts numbered messages in step with its readers, and then says what it took.

Run as a process of its own, so that its memory is its own. Prints its port, and at the end one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.programs.stalled_sizes import BATCH, MESSAGES, READERS, SIZE
from velocity_ws import Broker, Client, Close, Server, Settings

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


async def main(policy: str) -> None:
    """Serve until everything is broadcast."""
    broker = Broker(
        Settings(_env_file=None, port=0, rate_limit=0, slow_client=policy, enable_compression=False, ping_interval=0)
    )
    acknowledged = asyncio.Semaphore(0)
    ready = asyncio.Event()
    ended: list[tuple[int, str]] = []
    stalled: Client | None = None

    @broker.on("stalled")
    async def is_stalled(client: Client) -> None:
        nonlocal stalled
        stalled = client

    @broker.on("ack")
    async def ack() -> None:
        acknowledged.release()

    @broker.on("ready")
    async def is_ready() -> None:
        ready.set()

    @broker.on_disconnect
    async def gone(client: Client, close: Close) -> None:
        if client is stalled:
            ended.append((close.code, close.by))

    async with Server(broker) as server:
        print(server.port, flush=True)
        await ready.wait()
        before = highest = resident()
        filler = "x" * SIZE
        for number in range(MESSAGES):
            await broker.broadcast("n", [number, filler])
            if number % BATCH == BATCH - 1:
                # One batch is on its way while the next is sent.
                for _ in range(READERS if number >= BATCH else 0):
                    await acknowledged.acquire()
                highest = max(highest, resident())
        for _ in range(READERS):
            await acknowledged.acquire()
        connected = stalled is not None and stalled.is_connected
        report: dict[str, Any] = {
            "growth": highest - before,
            "stalled_connected": connected,
            "stats": broker.get_stats().to_dict(),
        }
        if not connected:
            async with asyncio.timeout(20):
                while not ended:
                    await asyncio.sleep(0.01)
        report["ended"] = ended
        print(json.dumps(report), flush=True)


asyncio.run(main(sys.argv[1]))
