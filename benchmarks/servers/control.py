"""The commands a contestant in Python obeys, and the uvicorn it may run on. Knows nothing of how it sends.

Each module beside this one is a program: ``python -m benchmarks.servers.NAME``. It prints ``{"port": …}``, and then
answers ``status``, ``broadcast`` and ``credit``, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import uvicorn
import uvloop

__all__ = ["Contestant", "control", "dumps", "listener", "option", "room_in", "run", "serve_asgi"]

LINE = 2**22
"""Bytes a command may have."""
PATIENCE = 3.0
"""Seconds without news of a delivery until a sender that waits for some gives up."""


Commands = Mapping[str, Callable[..., Awaitable[dict[str, Any]]]]
"""Commands by name; each takes its arguments by keyword, and returns its answer."""


class Contestant(Protocol):
    """A server under test. Its endpoint is ``/ws``; a client says its room in the query (``?room=7``)."""

    async def broadcast(self, data: dict[str, Any]) -> None:
        """Send ``{"event": "news", "data": data}`` to every client."""

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        """The same, to those in the room."""

    def connected(self) -> int:
        """How many clients a broadcast would reach now."""


def dumps(data: dict[str, Any], event: str = "news") -> str:
    """The message as all servers that have no format of their own send it."""
    return json.dumps({"event": event, "data": data}, separators=(",", ":"))


def room_in(query: str | bytes) -> str:
    """The room that a client's query names."""
    text = query.decode() if isinstance(query, bytes) else query
    return text.partition("room=")[2].partition("&")[0]


def option(name: str) -> str:
    """What follows that word on the command line; empty without it."""
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else ""


class _Credit:
    """How many messages have arrived, as the load tells it on a connection."""

    def __init__(self) -> None:
        self._arrived = 0
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._told, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def wait(self, arrived: int) -> bool:
        """Wait until so many have; false where nothing more comes."""
        while self._arrived < arrived:
            self._news.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._news.wait()
            except TimeoutError:
                return False
        return True

    async def _told(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self._arrived = int.from_bytes(await reader.readexactly(8))
                self._news.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


class _Sender:
    """Broadcasts at a pace."""

    def __init__(self, contestant: Contestant) -> None:
        self._contestant = contestant
        self._next = 0
        self._credit = _Credit()

    async def credit(self) -> dict[str, Any]:
        """Where the load tells what has arrived, for the next broadcast with a window."""
        self._credit.close()
        self._credit = _Credit()
        return {"port": await self._credit.open()}

    async def broadcast(
        self,
        texts: Sequence[str],
        count: int,
        per_second: float = 0,
        burst: int = 1,
        rooms: int = 0,
        seconds: float = 0,
        window: int = 0,
    ) -> dict[str, Any]:
        """Send ``count`` messages in bursts, ``per_second`` bursts a second; 0 is as fast as it goes, for ``seconds``.

        With ``rooms``, they go to one room after the other, and every room gets its own numbers. With ``window``, no
        more than so many are on their way.
        Answers with the first number, how many there were in each room, and how many bursts began late.
        """
        late = sent = 0
        first = self._next
        start = time.monotonic()
        while sent < count:
            due = start + sent / burst / per_second if per_second else start
            now = time.monotonic()
            if per_second:
                late += now - due > 1 / per_second
            elif seconds and now - start > seconds:
                break
            if window and sent >= window and not await self._credit.wait(sent - window + 1):
                break
            await asyncio.sleep(max(0.0, due - now))
            for number in range(sent, sent + burst):
                text = texts[number % len(texts)]
                data = {"seq": first + number // max(rooms, 1), "t": time.monotonic_ns(), "text": text}
                if rooms:
                    await self._contestant.to_room(str(number % rooms), data)
                else:
                    await self._contestant.broadcast(data)
            sent += burst
        each = sent // max(rooms, 1)
        self._next += each
        return {"first": first, "each": each, "late": late}


async def control(contestant: Contestant, port: int, commands: Commands | None = None) -> None:
    """Obey until stdin is closed; commands that only this contestant knows too."""
    own = commands or {}
    reader = asyncio.StreamReader(limit=LINE)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sender = _Sender(contestant)
    print(json.dumps({"port": port}), flush=True)
    try:
        while line := await reader.readline():
            arguments = json.loads(line)
            command = arguments.pop("command")
            if command == "broadcast":
                answer = await sender.broadcast(**arguments)
            elif command == "credit":
                answer = await sender.credit()
            elif command in own:
                answer = await own[command](**arguments)
            else:
                if arguments.get("collect"):
                    gc.collect()
                answer = {"connected": contestant.connected()}
            print(json.dumps(answer), flush=True)
    finally:
        transport.close()


def listener() -> socket.socket:
    """A socket that listens where there is room."""
    return socket.create_server(("127.0.0.1", 0), backlog=2048)


async def serve_asgi(app: Any, contestant: Contestant, commands: Commands | None = None, **options: Any) -> None:
    """Serve on uvicorn: httptools, its default class if no other, permessage-deflate if asked for, no keepalive."""
    socket_ = listener()
    defaults: dict[str, Any] = {
        "ws": "websockets-sansio",
        "http": "httptools",
        "ws_per_message_deflate": "--deflate" in sys.argv,
        "ws_ping_interval": None,
        "log_level": "warning",
    }
    server = uvicorn.Server(uvicorn.Config(app, **{**defaults, **options}))
    serving = asyncio.create_task(server.serve(sockets=[socket_]))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets no event
        await asyncio.sleep(0.01)
    await control(contestant, socket_.getsockname()[1], commands)
    server.should_exit = True
    await serving


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run the program on uvloop."""

    async def awaited() -> None:
        await main()

    uvloop.run(awaited())
