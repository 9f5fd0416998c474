"""Told to stop a second time, a server from code waits for nobody, as uvicorn does not; on every loop."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support import DEADLINE, eventually
from tests.support.command import kept_port
from tests.support.console import ROOT, UPPER, Console, answers

CASES = [
    ("handler", signal.SIGINT, signal.SIGINT),
    ("handler", signal.SIGTERM, signal.SIGTERM),
    ("block", signal.SIGINT, signal.SIGINT),
    ("loop", signal.SIGINT, signal.SIGTERM),
    ("shutdown", signal.SIGTERM, signal.SIGINT),
    ("startup", signal.SIGINT, signal.SIGINT),
]


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a signal still before it."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(("why", "first", "second"), CASES)
async def test_a_second_signal_hurries_a_server_from_code(
    why: str, first: signal.Signals, second: signal.Signals
) -> None:
    port = kept_port()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.programs.hurried"),
        cwd=ROOT,
        env={**variables, "PYTHONUNBUFFERED": "1", "HURRIED": why, "HURRIED_PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    served = Console(process, port)
    reading = asyncio.create_task(served.read())
    try:
        if why in ("handler", "block", "loop"):
            await eventually(lambda: process.returncode is not None or answers(port), within=UPPER)
            client = await connect(f"ws://127.0.0.1:{port}/ws", proxy=None, open_timeout=DEADLINE)
            await client.send(json.dumps({"event": "block" if why == "block" else "hang"}))
            await served.shows("hangs")
            process.send_signal(first)
            await eventually(lambda: not answers(port))
        elif why == "shutdown":
            await eventually(lambda: process.returncode is not None or answers(port), within=UPPER)
            process.send_signal(first)
            await served.shows("shuts down")
        else:
            await served.shows("starts")
            process.send_signal(first)
        await eventually(lambda: not is_pending(process.pid, first))  # else the second may become one with it
        # Nothing ends by itself now.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), 0.3)
        process.send_signal(second)
        began = time.monotonic()
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 0, served.text
        assert time.monotonic() - began < 8  # of the 30 that it would wait else
        await reading
        assert "told again to stop" in served.text
        assert re.search(r"(?m)^ended$", served.text)
        if why in ("handler", "block", "loop"):
            assert re.search(r"(?m)^gone$", served.text)  # a hook is run all the same
            assert "Traceback" not in served.text
            async with asyncio.timeout(DEADLINE):
                await client.wait_closed()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reading
