"""Workers that do not reach each other's clients say so, once in each process, whoever serves; one alone does not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support import DEADLINE, eventually
from tests.support.command import PATIENT, kept_port
from tests.support.console import OURS, ROOT, UPPER, answers

APP = "tests.programs.faults:app"
SPAWN = "import multiprocessing, granian.cli; multiprocessing.set_start_method('spawn'); granian.cli.entrypoint()"
UVICORN = ("-m", "uvicorn", APP, "--port", "{port}", *PATIENT)
GUNICORN = ("-m", "gunicorn", APP, "--bind", "127.0.0.1:{port}")
HYPERCORN = ("-m", "hypercorn", APP, "--bind", "127.0.0.1:{port}")
GRANIAN = ("--interface", "asgi", APP, "--port", "{port}")
SEVERAL = {
    "uvicorn": (*UVICORN, "--workers", "2"),
    "uvicorn, our classes": (*UVICORN, *OURS, "--workers", "2"),
    "uvicorn, by WEB_CONCURRENCY": UVICORN,
    "gunicorn, uvicorn-worker": (*GUNICORN, "-w", "2", "-k", "uvicorn_worker.UvicornWorker"),
    "gunicorn, asgi": (*GUNICORN, "-w", "2", "-k", "asgi"),
    "hypercorn": (*HYPERCORN, "--workers", "2"),
    "granian": ("-m", "granian", *GRANIAN, "--workers", "2"),
    "granian, spawned": ("-c", SPAWN, *GRANIAN, "--workers", "2"),
}
ALONE = {
    "uvicorn": UVICORN,
    "uvicorn, which reloads, by WEB_CONCURRENCY": (*UVICORN, "--reload", "--reload-dir", "{empty}"),
    "Server.run, by WEB_CONCURRENCY": ("-m", "tests.programs.faults"),
    "velocity-ws run": ("-m", "velocity_ws", "run", APP, "--port", "{port}", "--workers", "2", *PATIENT),
    "gunicorn, uvicorn-worker": (*GUNICORN, "-w", "1", "-k", "uvicorn_worker.UvicornWorker"),
    "gunicorn, asgi": (*GUNICORN, "-w", "1", "-k", "asgi"),
    "hypercorn": HYPERCORN,
    "granian": ("-m", "granian", *GRANIAN),
}


async def told(way: str, command: tuple[str, ...], times: int, place: Path) -> int:
    """How often a server of that command says that its workers are alone, once it has had a client."""
    port = kept_port()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    variables |= {"PYTHONUNBUFFERED": "1", "FAULTS_PORT": str(port), "XDG_RUNTIME_DIR": str(place)}
    variables |= {"WEB_CONCURRENCY": "2"} if "WEB_CONCURRENCY" in way else {}
    file = place / "log"
    with file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *[text.format(port=port, empty=place) for text in command],
            cwd=ROOT,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def count() -> int:
        return file.read_text().count("each of 2 worker processes")

    try:
        await eventually(lambda: process.returncode is not None or answers(port), within=UPPER)
        async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None, open_timeout=UPPER) as client:
            await client.send('{"event": "nothing"}')
            async with asyncio.timeout(UPPER):
                await client.recv()
        await eventually(lambda: count() >= times, within=UPPER)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        async with asyncio.timeout(DEADLINE):
            await process.wait()
    return count()


@pytest.mark.parametrize(("ways", "times"), [(SEVERAL, 2), (ALONE, 0)], ids=["several", "one alone"])
async def test_workers_that_are_alone_say_so_once_each(
    ways: dict[str, tuple[str, ...]], times: int, tmp_path: Path
) -> None:
    async def one(way: str, command: tuple[str, ...], at_once: asyncio.Semaphore) -> int:
        place = tmp_path / str(list(ways).index(way))
        place.mkdir()
        async with at_once:
            return await told(way, command, times, place)

    two = asyncio.Semaphore(2)
    found = await asyncio.gather(*[one(way, command, two) for way, command in ways.items()])
    assert dict(zip(ways, found, strict=True)) == dict.fromkeys(ways, times)
