"""Streams over HTTP by `@durable-streams/client` of npm, which knows nothing of us: it has a key, and an address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.conformance.engines import started
from tests.conformance.suite import HERE
from tests.support import DEADLINE
from tests.support.node_tools import find_node, install, node_environment
from tests.support.workers import START, person, workers

pytestmark = pytest.mark.timeout(300)  # for what npm brings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has the client."""
    place = tmp_path_factory.mktemp("client")
    (place / "node_modules").symlink_to(install(HERE))
    shutil.copy(HERE / "client.mjs", place)
    return place


@asynccontextmanager
async def program(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of the client's, which is killed where it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *(find_node(), "client.mjs", *arguments),
        cwd=folder,
        env=node_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def done(folder: Path, *arguments: str) -> Any:
    """What a program says that ends by itself and complains of nothing."""
    async with program(folder, *arguments) as process, asyncio.timeout(4 * DEADLINE):
        output, complaints = await process.communicate()
    assert (process.returncode, complaints.decode()) == (0, "")
    return json.loads(output)


async def test_items_are_appended_read_and_closed(folder: Path, url: str, key: str) -> None:
    numbers = [{"n": number} for number in range(50)]
    assert await done(folder, "json", url, key) == {
        "items": [[1, "two"], *numbers],
        "type": "application/json",
        "rest": [*numbers, "last"],
        "last": ["last"],
        "isLast": True,
        "isClosed": True,
        "late": {"name": "FetchError", "status": 409},
        "again": {"name": "FetchError", "status": 409},
        "isThere": False,
    }


async def test_without_the_key_nothing_is_read_or_written(folder: Path, url: str, key: str) -> None:
    refused = {"name": "FetchError", "status": 401}
    assert await done(folder, "strangers", url, key) == {
        "nobody": refused,
        "wrong": refused,
        "reading": refused,
        "text": "a secret",
    }


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        ("json", [{"n": 1}, "\r\n", [2, [3]]]),
        ("text", ["one\ntwo\n\n three\u2028 €"]),
        ("bytes", [0, 255, 10, 13, 195]),
    ],
)
async def test_readers_have_what_comes_until_the_end(
    folder: Path, url: str, key: str, kind: str, whole: list[Any]
) -> None:
    found = await done(folder, f"live {kind}", url, key)
    assert found.keys() == {"sse", "longPoll", "either", "late"}
    for reader in found.values():
        if kind == "text":  # however it was cut
            reader["got"] = ["".join(reader["got"])]
        assert reader == {"got": whole, "isClosed": True}


async def test_readers_by_another_node_have_what_comes(folder: Path, pair: tuple[str, str], key: str) -> None:
    found = await done(folder, "live json", pair[0], key, pair[1])
    whole = {"got": [{"n": 1}, "\r\n", [2, [3]]], "isClosed": True}
    assert found == {"sse": whole, "longPoll": whole, "either": whole, "late": whole}


async def test_a_long_stream_comes_in_parts(folder: Path, url: str, key: str) -> None:
    assert await done(folder, "long", url, key) == {"count": 40_000, "isInOrder": True, "parts": True}


async def test_a_producer_writes_once_and_the_one_after_it_keeps_it_out(folder: Path, url: str, key: str) -> None:
    assert await done(folder, "producer", url, key) == {
        "items": [*range(700), "last"],
        "before": 0,
        "zombie": [["StaleEpochError", 1]],
        "epoch": 2,
        "isLast": True,
        "isClosed": True,
    }


async def two_workers(port: int) -> set[int]:
    """The processes of the two that are there, once they are."""
    found: set[int] = set()
    async with asyncio.timeout(START):
        while len(found) < 2:
            with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake):
                async with person(port, "anyone") as member:
                    found.add(member.pid)
    return found


@pytest.mark.parametrize("kind", ["valkey", "nats"])
async def test_a_producer_writes_once_though_the_workers_are_killed(folder: Path, kind: str, key: str) -> None:
    async with started(kind) as engine, workers(2, engine, WS_API_KEYS=key) as port:
        url = f"http://127.0.0.1:{port}/ws/streams/{secrets.token_hex(8)}"
        async with program(folder, "persistent", url, key) as process, asyncio.timeout(4 * START):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"writing\n"
            for pid in await two_workers(port):
                os.kill(pid, signal.SIGKILL)
                while pid in await two_workers(port):  # another takes its place, or it was asked before it ended
                    pass
            output, complaints = await process.communicate(b"")
        assert complaints == b""
        found = json.loads(output)
    assert found["errors"] == []
    assert found["isInOrder"]
    assert found["length"] == found["count"]
    assert found["cut"], "it noticed nothing"
