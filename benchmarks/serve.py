"""The server under test, in a process of its own: uvicorn with the same settings for every contestant."""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import socket
import sys
from typing import Any

import psutil  # type: ignore[import-untyped, unused-ignore]
import uvicorn
import uvloop

from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.process import answer_commands, pin

WORDS = """
the train to platform seven leaves in about four minutes please mind the gap and keep your tickets ready
alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec
"""
ENVELOPE = len('{"event":"news","data":{"seq":00,"text":""}}')


def text_of(size: int, number: int) -> str:
    """Words, another sequence for each message, so that compression finds what it would find in prose."""
    pick = random.Random(number)  # the same in every run
    text = " ".join(pick.choices(WORDS.split(), k=size))
    return text[: size - ENVELOPE]


class Commands:
    """What the server can be told."""

    def __init__(self, contestant: Contestant, port: int) -> None:
        self._contestant = contestant
        self._port = port
        self._process = psutil.Process()
        self._sent = 0

    async def status(self) -> dict[str, Any]:
        """Where it listens, who is connected, and what it has used so far."""
        return {"port": self._port, "connected": self._contestant.connected(), **self._usage()}

    async def memory(self) -> dict[str, Any]:
        """Resident bytes, without garbage that was not collected yet."""
        gc.collect()
        return {"rss": self._process.memory_info().rss}

    async def broadcast(self, count: int, per_second: float, size: int) -> dict[str, Any]:
        """Broadcast so many messages at that pace; what had been used before the first, and how many began late."""
        loop = asyncio.get_running_loop()
        numbers = range(self._sent, self._sent + count)
        messages = [{"seq": number, "text": text_of(size, number)} for number in numbers]
        self._sent += count
        late = 0
        before = self._usage()
        start = loop.time()
        for index, data in enumerate(messages):
            pause = start + index / per_second - loop.time()
            late += pause < -1 / per_second
            await asyncio.sleep(max(0, pause))
            await self._contestant.broadcast("news", data)
        return {"late": late, **before}

    def _usage(self) -> dict[str, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {"user": usage.ru_utime, "system": usage.ru_stime}


async def main(name: str, *, deflate: bool) -> None:
    """Serve until stdin is closed."""
    contestant = CONTESTANTS[name]()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        contestant.app,
        ws="websockets-sansio",
        http="httptools",
        ws_per_message_deflate=deflate,
        ws_ping_interval=None,
        lifespan="on",
        log_level="warning",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    commands = Commands(contestant, listener.getsockname()[1])
    await answer_commands({"status": commands.status, "memory": commands.memory, "broadcast": commands.broadcast})
    server.should_exit = True
    await serving


if __name__ == "__main__":
    pin(server=True)
    uvloop.run(main(sys.argv[1], deflate="--deflate" in sys.argv[2:]))
