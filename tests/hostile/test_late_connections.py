"""A client that connects while all workers drain is answered at once; while one is replaced, another takes it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidMessage, InvalidStatus

from tests.support import DEADLINE, eventually
from tests.support.command import PATIENT, kept_port
from tests.support.console import OURS, ROOT, UPPER, answers

APP = "tests.programs.options:app"
COMMANDS = {
    "uvicorn": ("uvicorn", APP, "--workers", "2", *PATIENT, *OURS),
    "uvicorn, the WebSocket class alone": ("uvicorn", APP, "--workers", "2", *PATIENT, "--loop", "asyncio", *OURS[:2]),
    "velocity-ws run": ("velocity_ws", "run", APP, "--workers", "2", *PATIENT),
}


@asynccontextmanager
async def served(kind: str, place: Path, drain_timeout: float) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Two workers in a session of their own, and their port."""
    port = kept_port()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    own = {"WS_DRAIN_TIMEOUT": str(drain_timeout), "XDG_RUNTIME_DIR": str(place)}
    with (place / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *COMMANDS[kind], "--port", str(port)),
            cwd=ROOT,
            env={**variables, **own},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    log_of = place / "log"
    try:
        await eventually(lambda: answers(port), within=UPPER)
        await eventually(lambda: log_of.read_text().count("Application startup complete") == 2, within=UPPER)
        yield process, port
        assert "Traceback" not in log_of.read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def handshake(port: int) -> connect:
    return connect(f"ws://127.0.0.1:{port}/ws", proxy=None, open_timeout=DEADLINE)


@pytest.mark.parametrize("kind", COMMANDS)
async def test_a_handshake_during_a_drain_of_all_workers_is_answered_at_once(kind: str, tmp_path: Path) -> None:
    async with served(kind, tmp_path, 8) as (process, port), AsyncExitStack() as stack:
        clients: list[ClientConnection] = []
        for _ in range(10):
            clients += await asyncio.gather(*[stack.enter_async_context(handshake(port)) for _ in range(30)])
        process.terminate()
        # As they are told: by then the port is closed, as far as it will be.
        async with asyncio.timeout(UPPER):
            await asyncio.wait(
                [asyncio.ensure_future(each.wait_closed()) for each in clients], return_when="FIRST_COMPLETED"
            )
        # All of them: one that was held up, and has not been told yet, would take the next ones.
        log_of = tmp_path / "log"
        await eventually(lambda: log_of.read_text().count("Shutting down") == 2, within=UPPER)
        await asyncio.sleep(0.5)  # the time at which it was seen to hang
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(ConnectionRefusedError if kind == "velocity-ws run" else InvalidStatus) as caught:
                await handshake(port)
            took = time.monotonic() - began
            assert took < 3  # and not until the drain is over
            if isinstance(caught.value, InvalidStatus):
                assert caught.value.response.status_code == 503
        assert process.returncode is None
        assert any(each.close_code is None for each in clients)  # so the drain goes on
        assert {each.close_code for each in clients} <= {None, 1012}


async def test_a_worker_that_is_replaced_takes_nobody_from_the_others(tmp_path: Path) -> None:
    async with served("uvicorn", tmp_path, 3) as (process, port), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(handshake(port)) for _ in range(60)]
        process.send_signal(signal.SIGHUP)
        leaving = asyncio.gather(*[each.wait_closed() for each in clients])
        let_in = 0
        async with asyncio.timeout(UPPER):
            while not leaving.done():
                # A connection that the old worker has just taken, uvicorn closes before it is asked anything.
                with contextlib.suppress(InvalidMessage, ConnectionError):
                    async with handshake(port):
                        let_in += 1
        assert let_in > 20
        assert {each.close_code for each in clients} == {1012}


async def test_a_command_that_is_told_to_stop_while_it_replaces_workers_replaces_no_other(tmp_path: Path) -> None:
    async with served("velocity-ws run", tmp_path, 3) as (process, port), AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(handshake(port))
        log_of = tmp_path / "log"
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: "Terminated child process" in log_of.read_text(), within=UPPER)
        process.terminate()
        async with asyncio.timeout(UPPER):
            assert await process.wait() == 0
        assert log_of.read_text().count("Started server process") == 3
