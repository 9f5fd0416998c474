"""Stopping: a server that is stopped is kept by no answer that does not end, and the page is told."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.support import DEADLINE, eventually
from tests.support.command import kept_port
from tests.support.machine import beside_others

PROGRAM = """
import asyncio
from contextlib import asynccontextmanager
from fastapi import FastAPI
from velocity_ws import Broker, Settings
from velocity_ws.adapters.ai_sdk import UIMessageStreamResponse

broker = Broker(Settings(backplane_url="memory://", drain_timeout=1))

@asynccontextmanager
async def lifespan(_):
    async with broker:
        yield

app = FastAPI(lifespan=lifespan)

async def endless():
    yield "begun"
    await asyncio.Event().wait()

async def short():
    yield "begun"
    await asyncio.sleep(0.3)
    yield " and done"

@app.get("/answer/{name}")
async def answer(name: str):
    await broker.streams.start(name, room="x", source=endless() if name == "endless" else short())
    return UIMessageStreamResponse(broker, name)
"""


@pytest.mark.parametrize("name", ["endless", "short"])
async def test_an_answer_has_time_to_end_and_does_not_keep_the_server(name: str, tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(PROGRAM)
    port = kept_port()
    command = ["-m", "uvicorn", "served:app", "--port", str(port), "--app-dir", str(tmp_path)]
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=log, stderr=log)
    try:
        await eventually(lambda: "running on" in (tmp_path / "log").read_text(), within=6 * DEADLINE)
        async with httpx.AsyncClient(timeout=DEADLINE, trust_env=False) as http:
            async with http.stream("GET", f"http://127.0.0.1:{port}/answer/{name}") as response:
                body = ""
                async for text in response.aiter_text():
                    if "begun" in text and "begun" not in body:
                        process.send_signal(signal.SIGTERM)
                        began = asyncio.get_running_loop().time()
                    body += text
        async with asyncio.timeout(DEADLINE):
            await process.wait()
        assert asyncio.get_running_loop().time() - began < beside_others(3)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert body.endswith("data: [DONE]\n\n")
    assert ("The answer was interrupted." in body) == (name == "endless")
    assert (" and done" in body) == (name == "short")
    assert "Traceback" not in (tmp_path / "log").read_text()
