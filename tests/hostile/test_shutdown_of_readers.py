"""SIGTERM while many read streams over HTTP: each is told, none keeps the server, whichever serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import STDOUT, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.support import DEADLINE, eventually
from tests.support.command import PATIENT, kept_port
from tests.support.engines import engine
from tests.support.machine import beside_others, waited_for_a_processor

ROOT = Path(__file__).parents[2]
APP = "tests.programs.readers_app:app"
KEY = "a-key-for-readers"
START = 60.0
"""Seconds that processes may take to start, on a machine that does other things."""
CLASSES = ("--ws", "velocity_ws.uvicorn:WebSocketProtocol", "--http", "velocity_ws.uvicorn:HTTPProtocol")
COMMANDS = {
    "velocity-ws run": ("-m", "velocity_ws", "run", APP),
    "uvicorn": ("-m", "uvicorn", APP, *PATIENT, *CLASSES),
    "portable": ("-m", "uvicorn", APP, *PATIENT),
    "portable, h11": ("-m", "uvicorn", APP, *PATIENT, "--http", "h11"),
}
ENDS = {b"sse": b"\r\n0\r\n\r\n", b"long-poll": b"\r\n\r\n"}
"""What the answer to a reader ends with."""


@dataclass
class Running:
    """A server in processes of its own.

    Attributes:
        process: that is told to stop.
        port: where it listens.
        directory: where it says what it does.
    """

    process: Process
    port: int
    directory: Path

    def said(self, what: str) -> list[Path]:
        """The files of its processes that say something."""
        return list(self.directory.glob(f"{what}-*"))

    def open(self) -> int:
        """How many requests for streams are open."""
        return sum(int(path.read_text() or 0) for path in self.said("open"))

    def waited(self) -> dict[int, float]:
        """Seconds that each of its processes which is there, and this one, had no processor so far."""
        found = {os.getpid(): waited_for_a_processor()}
        for path in self.said("begun"):
            with contextlib.suppress(OSError):  # it has ended
                pid = int(path.name.partition("-")[2])
                found[pid] = waited_for_a_processor(pid)
        return found

    def is_there(self) -> bool:
        """Whether it takes connections."""
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def log(self) -> str:
        """What it has written."""
        return (self.directory / "log").read_text()

    def client(self) -> httpx.AsyncClient:
        """Requests with the key."""
        headers = {"x-api-key": KEY, "content-type": "text/plain"}
        url = f"http://127.0.0.1:{self.port}/ws/streams/"
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=DEADLINE, trust_env=False)


@asynccontextmanager
async def server(kind: str, workers: int, directory: Path, **variables: str) -> AsyncIterator[Running]:
    """Start one, until all its processes have begun."""
    async with AsyncExitStack() as stack:
        if workers > 1:  # else each would have its own streams
            store = await stack.enter_async_context(engine("valkey"))
            variables["WS_BACKPLANE_URL"] = f"redis://127.0.0.1:{store.port}"
        port = kept_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
        environment = {**inherited, "SHUTDOWN_REPORT": str(directory), **variables}
        command = [*COMMANDS[kind], "--port", str(port), "--workers", str(workers)]
        with (directory / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, cwd=ROOT, env=environment, stdout=log, stderr=STDOUT
            )
        running = Running(process, port, directory)
        try:
            await eventually(lambda: len(running.said("begun")) == workers, within=START)
            await eventually(running.is_there, within=START)
            yield running
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def request(live: bytes) -> bytes:
    """What a reader sends."""
    offset = b"-1" if live == b"sse" else b"now"
    line = b"GET /ws/streams/text?offset=%b&live=%b HTTP/1.1\r\n" % (offset, live)
    return line + b"host: 127.0.0.1\r\nx-api-key: %b\r\n\r\n" % KEY.encode()


async def read(port: int, live: bytes, got: bytearray) -> float:
    """Read a stream until the connection is closed; when that was.

    Args:
        port: of the server.
        live: how it reads.
        got: is given all that comes.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(live))
    try:
        while data := await reader.read(2**16):
            got += data
        return time.monotonic()
    finally:
        writer.close()


async def check(kind: str, workers: int, directory: Path, readers: int, drain_timeout: float) -> None:
    """Stop a server with readers, half of events and half that poll, and look at what each of them was told."""
    async with server(kind, workers, directory, WS_DRAIN_TIMEOUT=str(drain_timeout)) as running:
        async with running.client() as http:
            assert (await http.put("text", content="said before")).status_code == 201
        kinds = [(b"sse", b"long-poll")[number % 2] for number in range(readers)]
        answers = [bytearray() for _ in kinds]
        reading = [asyncio.create_task(read(running.port, live, got)) for live, got in zip(kinds, answers, strict=True)]
        await eventually(lambda: sum(b"said before" in got for got in answers) == kinds.count(b"sse"), within=START)
        await eventually(lambda: running.open() == readers, within=START)
        before, began = running.waited(), time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        waited = before
        ending = asyncio.create_task(running.process.wait())
        while not ending.done():
            waited = {**waited, **running.waited()}
            await asyncio.wait([ending], timeout=0.02)
        seconds = time.monotonic() - began
        async with asyncio.timeout(DEADLINE):
            last = max(await asyncio.gather(*reading)) - began
    told = Counter(answer.partition(b"\r\n")[0].decode() for answer in answers)
    print(f"\n{kind}, {workers} workers, {readers} readers: {dict(told)}, last {last:.2f} s, exit {seconds:.2f} s")  # noqa: T201 - the figures
    for live, answer in zip(kinds, answers, strict=True):
        assert answer.endswith(ENDS[live]), (live, answer)
        assert answer.startswith(b"HTTP/1.1 200 " if live == b"sse" else b"HTTP/1.1 204 "), answer
    lacked = min(sum(waited[pid] - before[pid] for pid in before), 2)
    assert last < drain_timeout + lacked
    assert seconds < drain_timeout + 1 + lacked, running.log
    assert len(running.said("ended")) == workers
    assert "Traceback" not in running.log, running.log


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", COMMANDS)
async def test_readers_are_told_that_a_server_stops(kind: str, workers: int, tmp_path: Path) -> None:
    await check(kind, workers, tmp_path, readers=60, drain_timeout=2)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", COMMANDS)
async def test_five_hundred_readers_are_told_that_a_server_stops(kind: str, workers: int, tmp_path: Path) -> None:
    await check(kind, workers, tmp_path, readers=500, drain_timeout=10)


@pytest.mark.parametrize("kind", COMMANDS)
async def test_a_reader_that_reads_nothing_keeps_no_server(kind: str, tmp_path: Path) -> None:
    async with server(kind, 1, tmp_path, WS_DRAIN_TIMEOUT="1") as running, AsyncExitStack() as stack:
        async with running.client() as http:
            assert (await http.put("text")).status_code == 201
            for _ in range(12):  # more than sockets hold
                assert (await http.post("text", content=b"x" * 2**20)).status_code == 204
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", running.port))) for _ in range(3)]
        for sock in sockets:
            sock.sendall(request(b"sse"))
        answer = bytearray()
        other = asyncio.create_task(read(running.port, b"long-poll", answer))
        await eventually(lambda: running.open() == 4, within=START)
        assert sockets[0].recv(16) == b"HTTP/1.1 200 OK\r\n"[:16]
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            await other
            await running.process.wait()
        seconds = time.monotonic() - began
    print(f"\n{kind}: exit {seconds:.2f} s")  # noqa: T201 - the figures
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert seconds < beside_others(1 + 1 + 2), running.log
    assert "Traceback" not in running.log, running.log
