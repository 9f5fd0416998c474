"""SIGTERM while many clients send, some read nothing, and some are half way in: nobody loses what was theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidHandshake

from tests.programs.shutdown_sizes import HALF_DONE, LATE, STUCK, STUFFING
from tests.support import Address, eventually
from tests.support.command import PATIENT, kept_port
from tests.support.machine import waited_for_a_processor

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
CLASSES = ("--ws", "velocity_ws.uvicorn:WebSocketProtocol", "--http", "velocity_ws.uvicorn:HTTPProtocol")
APP = "tests.programs.shutdown_app"
RUN, HYPERCORN = "velocity-ws run", "hypercorn"
COMMANDS = {
    "Server": ("-m", APP),
    "uvicorn": ("-m", "uvicorn", f"{APP}:app", *CLASSES),
    "uvicorn --workers 2": ("-m", "uvicorn", f"{APP}:app", *CLASSES, "--workers", "2", *PATIENT),
}
ANY_COMMAND = {
    **COMMANDS,
    "portable": ("-m", "uvicorn", f"{APP}:app"),
    RUN: ("-m", "velocity_ws", "run", f"{APP}:app"),
    HYPERCORN: ("-m", "hypercorn", f"{APP}:app", "-w", "0", "--graceful-timeout", "1"),
}
"""With uvicorn's own classes, too."""
STATUS = {RUN: 0, "Server": 0, "uvicorn": -signal.SIGTERM, "uvicorn --workers 2": 0, "portable": -signal.SIGTERM}
"""uvicorn's command, when all is done, raises the signal again that ended it."""


@dataclass
class Stopped:
    """How a server ended.

    Attributes:
        seconds: how long it took.
        waited: how long its processes, and this one, had no processor meanwhile, all in all.
    """

    status: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    at: float = 0.0
    log: str = ""
    reports: list[dict[str, Any]] = field(default_factory=list)


class Running:
    """A server in processes of its own."""

    def __init__(self, process: Process, address: Address, directory: Path) -> None:
        self.process = process
        self.address = address
        self._directory = directory

    async def stop(self, *, within: float) -> Stopped:
        """Send SIGTERM, and wait for its end."""
        stopped = Stopped(at=time.monotonic())
        self.process.terminate()
        ending = asyncio.create_task(self.process.wait())
        before = dict(self._waiting())
        waited = before
        async with asyncio.timeout(within):
            while not ending.done():
                waited = {**waited, **dict(self._waiting())}
                await asyncio.wait([ending], timeout=0.02)
        stopped.status = await ending
        stopped.seconds = time.monotonic() - stopped.at
        stopped.waited = sum(waited[pid] - before[pid] for pid in before)
        stopped.log = self.log
        stopped.reports = [json.loads(path.read_text()) for path in self._directory.glob("ended-*")]
        return stopped

    def _waiting(self) -> Iterator[tuple[int, float]]:
        """What each of its processes has waited for a processor, in seconds."""
        begun = (int(path.name.partition("-")[2]) for path in self._directory.glob("begun-*"))
        for pid in {os.getpid(), self.process.pid, *begun}:
            with contextlib.suppress(OSError):  # it has ended
                yield pid, waited_for_a_processor(pid)

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()


@asynccontextmanager
async def server(kind: str, directory: Path, drain_timeout: float, **variables: str) -> AsyncIterator[Running]:
    """Start one, and wait until all its processes take connections."""
    port = kept_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    own = {"SHUTDOWN_REPORT": str(directory), "SHUTDOWN_PORT": str(port), "WS_DRAIN_TIMEOUT": str(drain_timeout)}
    where = {"Server": (), HYPERCORN: ("--bind", f"127.0.0.1:{port}")}.get(kind, ("--port", str(port)))
    command = (*ANY_COMMAND[kind], *where)
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, env={**inherited, **own, **variables}, stdout=log, stderr=STDOUT
        )
    running = Running(process, Address(port), directory)
    workers = 2 if "--workers" in command else 1
    try:
        await eventually(lambda: len(list(directory.glob("begun-*"))) == workers, within=DEADLINE)
        await eventually(lambda: _answers(port), within=DEADLINE)
        yield running
        assert process.returncode is not None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def clients_of(running: Running, count: int, rate: float) -> tuple[Process, asyncio.Task[bytes]]:
    """The clients in a process of their own, once all of them send; and the task that reads what they report."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.programs.shutdown_clients", str(running.address.port), str(count), str(rate)),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        limit=64 * 1024 * 1024,
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE):
        assert await process.stdout.readline() == b"ready\n", running.log
    return process, asyncio.create_task(process.stdout.readline())


async def check(kind: str, directory: Path, count: int, rate: float, drain_timeout: float) -> None:
    """Stop a server in the midst of it all, and account for every message and every client."""
    async with server(kind, directory, drain_timeout) as running:
        clients, reading = await clients_of(running, count, rate)
        try:
            await eventually(lambda: len(list(directory.glob("half-*"))) == HALF_DONE // 2, within=DEADLINE)
            stopped = await running.stop(within=DEADLINE)
            assert clients.stdin is not None
            clients.stdin.write(b"the server has gone\n")
            async with asyncio.timeout(DEADLINE):
                told = json.loads(await reading)
                assert await clients.wait() == 0
        finally:
            if clients.returncode is None:
                clients.kill()
                await clients.wait()

    workers = 2 if "--workers" in kind else 1
    senders = [client for client in told["clients"] if client["kind"] == "sends"]
    late = [client for client in told["clients"] if client["kind"] == "late"]
    handled: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for report in stopped.reports:
        handled.update(report["handled"])
        answered.update(report["answered"])
        assert report["gaps"] == []
    told_all = [client for client in told["clients"] if client["told_at"] is not None]
    hints = [hint(client) for client in told_all]
    times = [client["told_at"] - stopped.at for client in told_all if client["kind"] == "sends"]
    returns = [client["told_at"] - stopped.at + hint(client) for client in told_all]
    gone = max(client["gone_at"] - client["told_at"] for client in told_all)
    lacked = min(stopped.waited + told["waited"], 2)
    print(  # noqa: T201 - the figures
        f"\n{kind}, {count} clients, {rate:g} messages/s each, WS_DRAIN_TIMEOUT {drain_timeout:g} s: exit "
        f"{stopped.status} after {stopped.seconds:.2f} s; {len(times)} told between {min(times):.2f} and "
        f"{max(times):.2f} s, at most {most(times)} in 0.1 s, gone {gone:.2f} s later; hints {min(hints):.2f} to "
        f"{max(hints):.2f} s, at most {most(returns)} to come back in 0.1 s; {handled.total()} of "
        f"{sum(client['sent'] for client in senders)} messages handled, {answered.total()} of "
        f"{sum(client['answers'] for client in senders)} answers received"
    )

    assert len(senders) == count
    assert len(late) == LATE
    assert [client["wrong"] for client in told["clients"] if client["wrong"]] == []
    assert {client["code"] for client in told["clients"]} == {1012}
    assert {client["name"]: client["sent"] for client in senders} == dict(handled)
    assert {client["name"]: client["answers"] for client in senders} == dict(answered)
    assert [client["stuffing"] for client in late] == [STUFFING] * LATE
    assert len(set(hints)) > 0.6 * len(hints)
    spread = max(count / workers / 200, 0.5)  # the larger of what so many need and half a second
    assert 0.1 <= min(hints) <= max(hints) <= max((count + LATE + STUCK + HALF_DONE) / 200, 0.5)
    assert max(hints) - min(hints) > spread / 2
    # Two workers have two batches each in the short run; clients that do not run hear of several at once.
    assert max(times) - min(times) > 0.25 * drain_timeout - lacked
    assert most(returns) < len(told_all) / (3 if lacked < 0.5 else 2)
    assert max(times) < drain_timeout + lacked
    assert stopped.seconds < drain_timeout + 1 + lacked
    assert stopped.status == STATUS[kind]
    assert len(stopped.reports) == workers  # the lifespan of each has ended
    assert sum(report["stats"]["connections"] for report in stopped.reports) == count + LATE + STUCK
    # Whoever was not in yet is answered or gone at once; what was malformed has been answered long before.
    assert {answer for answer, _ in told["half"]} <= {"HTTP/1.1 503 Service Unavailable", ""}
    assert len([answer for answer, _ in told["half"] if answer]) == HALF_DONE // 2
    assert max(when for _, when in told["half"]) - stopped.at < 1 + drain_timeout / 2 + lacked
    assert told["malformed"][0].startswith("HTTP/1.1 4")
    assert told["malformed"][1] < stopped.at
    assert "Traceback" not in stopped.log, stopped.log


def most(times: list[float]) -> int:
    """How many of them fall into one tenth of a second."""
    return max(Counter(int(when / 0.1) for when in times).values())


def hint(client: dict[str, Any]) -> float:
    match = re.fullmatch(r"restarting, retry_after=(\d+\.\d{3})", client["reason"])
    assert match is not None, client
    return float(match[1])


@pytest.mark.parametrize("kind", COMMANDS)
async def test_a_server_stops(kind: str, tmp_path: Path) -> None:
    await check(kind, tmp_path, count=100, rate=5, drain_timeout=2)


@pytest.mark.soak
@pytest.mark.parametrize("kind", COMMANDS)
async def test_a_server_with_a_thousand_busy_clients_stops(kind: str, tmp_path: Path) -> None:
    await check(kind, tmp_path, count=1000, rate=20, drain_timeout=10)


EVERY = ("hang", "cling", "block")


@pytest.mark.parametrize("kind", [*COMMANDS, RUN])
async def test_a_handler_that_does_not_end_keeps_no_server(kind: str, tmp_path: Path) -> None:
    """One waits for ever, one does so whatever cancels it, one blocks its thread; others' messages are handled."""
    async with server(kind, tmp_path, 1) as running, AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(running.address.connect()) for _ in EVERY]
        for peer, event in zip(busy, EVERY, strict=True):
            await peer.send(event, 4)
            await peer.send("n", [event, 0])
        other = await stack.enter_async_context(running.address.connect())
        for number in range(5):
            await other.send("n", ["other", number])
        while (await other.receive())["event"] != "a":
            pass
        stopping = asyncio.create_task(running.stop(within=6))
        for peer in (other, *busy):
            code, reason = await peer.closed()
            assert (code, hint({"reason": reason}) > 0) == (1012, True)
        stopped = await stopping
    assert stopped.seconds < 1 + 1 + min(stopped.waited, 2), stopped.log
    assert stopped.status == STATUS[kind]
    handled: dict[str, int] = {}
    for report in stopped.reports:
        handled |= report["handled"]
    assert handled == {"other": 5}


@pytest.mark.soak
async def test_a_handler_that_cannot_be_cancelled_keeps_no_other_server(tmp_path: Path) -> None:
    """Whose loop is closed by ``asyncio.Runner``, which waits for each task that it knows of."""
    async with server(HYPERCORN, tmp_path, 1) as running, running.address.connect() as peer:
        await peer.send("cling")
        await peer.send("n", ["cling", 0])
        stopped = await running.stop(within=DEADLINE)
    assert stopped.status == 0, stopped.log
    assert "1 handlers that ignored their cancellation" in stopped.log


async def test_told_twice_to_stop_the_command_waits_for_no_handler_either(tmp_path: Path) -> None:
    async with server(RUN, tmp_path, 30) as running, running.address.connect() as peer:
        await peer.send("cling")
        await peer.send("n", ["cling", 0])
        running.process.send_signal(signal.SIGINT)
        await eventually(lambda: "Shutting down" in running.log, within=DEADLINE)
        running.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        async with asyncio.timeout(DEADLINE):
            assert await running.process.wait() == 0
        assert time.monotonic() - began < 5, running.log


@pytest.mark.parametrize("kind", [kind for kind in ANY_COMMAND if kind != HYPERCORN])
async def test_plain_hooks_that_hang_keep_no_server(kind: str, tmp_path: Path) -> None:
    """A handler and hooks of every kind, each in a thread, which nothing can end."""
    hooks = ["connect", "join", "leave", "disconnect", "error"]
    # uvicorn's own classes let go of a handshake when its own time is over.
    limits = {"SHUTDOWN_HANGS": "1", "WS_HANDSHAKE_TIMEOUT": "1.5"}
    async with server(kind, tmp_path, 1, **limits) as running, AsyncExitStack() as stack:

        async def knock() -> None:
            with pytest.raises((InvalidHandshake, OSError, EOFError)):
                async with running.address.connect("/ws?hang=authenticate"):
                    pass

        handshake = asyncio.create_task(knock())
        peers = [await stack.enter_async_context(running.address.connect(f"/ws?hang={hook}")) for hook in hooks]
        for peer, hook in zip(peers, hooks, strict=True):
            await peer.send("fail" if hook == "error" else "block", 60)
        other = await stack.enter_async_context(running.address.connect())
        await other.send("fail", id=1)
        while (await other.receive()).get("id") != 1:
            pass
        stopped = await running.stop(within=20)
        await handshake
    assert stopped.seconds < 1 + 1 + min(stopped.waited, 2), stopped.log
    assert stopped.status == STATUS[kind]
