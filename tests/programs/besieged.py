"""A server under attack, in a process of its own, so that its time and memory are its own.

Argument: JSON of `Settings`, of ``loop`` for the event loop's kind, ``log`` for the level, ``plain`` for hooks that
run in threads, ``tls``, and ``descriptors`` for the limits of those, soft and hard. Prints its port; then
answers each line on stdin with one of JSON, until stdin ends. Its log goes to stderr.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import resource
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from starlette.requests import HTTPConnection

from tests.programs.certificate import certificate
from tests.support.machine import waited_for_a_processor
from velocity_ws import Broker, Client, Close, Server, Settings

SELF = Path("/proc/self")


class Calls:
    """Counts the write system calls of asyncio's own transports, which make them through `socket.socket`."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        """Count from now on."""
        for name in ("send", "sendmsg"):
            setattr(socket.socket, name, self._counted(getattr(socket.socket, name)))

    def _counted(self, original: Any) -> Any:
        def call(*args: Any) -> Any:
            self.count += 1
            return original(*args)

        return call


def memory(field: str) -> int:
    """Bytes that this process has (``VmRSS``) or has had at most (``VmHWM``)."""
    line = next(line for line in (SELF / "status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def written() -> int:
    """Write system calls of this process as the kernel counts them: write, writev and send of every kind."""
    line = next(line for line in (SELF / "io").read_text().splitlines() if line.startswith("syscw"))
    return int(line.split()[1])


async def main(options: dict[str, Any], tls: dict[str, Any]) -> None:
    """Serve, and answer commands."""
    loop = asyncio.get_running_loop()
    uses_asyncio = type(loop).__module__.startswith("asyncio")
    calls = Calls()
    if uses_asyncio:
        calls.install()
    plain = options.pop("plain", False)
    options = {"warn_message_size": 0, **options}  # what attackers send comes back as large
    broker = Broker(Settings(_env_file=None, port=0, **options))
    closes: Counter[int] = Counter()
    slowest = 0.0

    if plain:

        @broker.authenticate
        def authenticate(request: HTTPConnection) -> None:
            time.sleep(float(request.headers.get("x-slow", 0)))

        @broker.on("echo")
        def echo(data: Any) -> Any:
            return data

    else:

        @broker.on("echo")
        async def echo_on_the_loop(data: Any) -> Any:
            return data

    @broker.on("shout")
    async def shout(data: list[int]) -> None:
        number, size = data
        await broker.broadcast("n", [number, time.monotonic(), "x" * size])

    @broker.on_binary
    async def binary(client: Client, data: bytes) -> None:
        await client.send_bytes(data)

    @broker.on_connect
    async def came(client: Client) -> None:
        client.set_data("since", time.monotonic())

    @broker.on_disconnect
    async def gone(client: Client, close: Close) -> None:
        nonlocal slowest
        if close.by == "server":
            closes[close.code] += 1
            slowest = max(slowest, time.monotonic() - client.get_data("since"))

    async def answer(words: list[str]) -> Any:
        nonlocal slowest
        match words:
            case ["mark"]:
                gc.collect()
                (SELF / "clear_refs").write_text("5")  # the peak starts anew
                closes.clear()
                slowest = 0.0
                return memory("VmRSS")
            case ["burst", bursts, size]:
                before, delivered = calls.count if uses_asyncio else written(), broker.get_stats().messages_sent
                for number in range(int(bursts)):
                    for part in range(int(size)):
                        await broker.broadcast("n", number * int(size) + part)
                    await asyncio.sleep(0.02)  # so that the next burst is one of its own
                after = calls.count if uses_asyncio else written()
                sent = broker.get_stats().messages_sent - delivered
                return {"calls": after - before, "sent": sent, "loop": type(loop).__module__.partition(".")[0]}
        return {
            "waited": waited_for_a_processor(),
            "peak": memory("VmHWM"),
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "sessions": len(broker.node.lifecycle.sessions),
            "handshakes": len(broker.node.lifecycle.handshakes),
            "sockets": sum(link.is_symlink() and "socket:" in str(link.readlink()) for link in (SELF / "fd").iterdir()),
            "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
            "closes": closes,
            "slowest": slowest,
            "slow_closes": broker.get_stats().slow_closes,
            "dropped": broker.get_stats().dropped,
        }

    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with Server(broker, **tls) as server:
        print(server.port, flush=True)
        while line := await commands.readline():
            print(json.dumps(await answer(line.decode().split())), flush=True)


def run() -> None:
    """Read the arguments."""
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=options.pop("log", "WARNING"), format="%(levelname)s %(name)s %(message)s")
    if "descriptors" in options:
        resource.setrlimit(resource.RLIMIT_NOFILE, options.pop("descriptors"))
    factory = None
    if options.pop("loop", "uvloop") == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=factory) as runner:
        tls = certificate(Path(directory)) if options.pop("tls", False) else {}
        runner.run(main(options, tls))


run()
