"""Streams that requests write, by any node: what one node knows of a stream is old once another has written it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support import DEADLINE
from tests.support.jetstream import storing
from tests.support.nodes import KINDS, engine_url, nodes

KEY = "a-key-of-a-program"
PRODUCER = {"producer-id": "a writer", "producer-epoch": "0"}


class Writer:
    """What a program does with one stream, by a node of its own."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def offset(self) -> str:
        """Where the stream ends."""
        answer = await self._http.head(self._url)
        return str(answer.headers["stream-next-offset"])

    async def __call__(
        self, method: str, body: str = "", type: str = "text/plain", query: Any = None, **headers: str
    ) -> Any:
        """The status of a request, and the body where it has one."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"content-type": type, **named} if method in ("PUT", "POST") else named
        answer = await self._http.request(method, self._url, params=query, content=body.encode(), headers=given)
        return (answer.status_code, answer.text) if method == "GET" else answer.status_code

    async def produce(self, seq: int, body: str = "", **headers: str) -> Any:
        """Append as a producer does."""
        return await self("POST", body, **PRODUCER, producer_seq=str(seq), **headers)


@pytest_asyncio.fixture(params=KINDS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Writer, Writer]]:
    """Two programs that write one stream, each by another node."""
    started = storing(tmp_path) if request.param == "nats" else engine_url(request.param)
    async with started as engine:
        url = engine if isinstance(engine, str) else engine.url
        async with (
            nodes(url, api_keys=KEY, backplane_timeout=5) as found,
            httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=DEADLINE) as http,
        ):
            here, there = [Writer(http, f"{node.address.http}/ws/streams/a") for node in found]
            yield here, there


async def test_a_producer_goes_from_node_to_node(pair: tuple[Writer, Writer]) -> None:
    here, there = pair
    assert await here("PUT") == 201
    for seq in range(10):
        assert await pair[seq % 3 // 2].produce(seq, f"{seq} ") == 200  # twice here, once there
    assert await here.produce(8, "8 ") == 204  # which came before, and there
    assert await here.produce(11, "11 ") == 409
    assert await there.produce(10, "last", stream_closed="true") == 200
    assert await here("GET") == (200, "0 1 2 3 4 5 6 7 8 9 last")


async def test_what_was_appended_here_is_read_there_at_once(pair: tuple[Writer, Writer]) -> None:
    here, there = pair
    assert await here("PUT") == 201
    whole = ""
    for number in range(30):
        offset = await there.offset()
        waiting = asyncio.create_task(there("GET", query={"offset": offset, "live": "long-poll"}))
        assert await here("POST", f"{number} ") == 204
        whole += f"{number} "
        assert await there("GET") == (200, whole)
        assert await waiting == (200, f"{number} ")
        assert await there("GET", query={"offset": offset}) == (200, f"{number} ")
        assert await here.offset() == await there.offset() != offset


async def test_a_stream_is_deleted_elsewhere_and_created_anew(pair: tuple[Writer, Writer]) -> None:
    here, there = pair
    assert await here("PUT") == 201
    assert await here.produce(0, "an earlier one") == 200
    assert await there("DELETE") == 204
    assert await here.produce(0, "an earlier one") == 404  # and not what it had before
    assert await there("PUT", type="application/json") == 201
    assert await here("POST", "[1]", type="application/json") == 204
    assert await there("DELETE") == 204
    assert await there("PUT") == 201
    assert await here("POST", "of the new one", stream_seq="1") == 204
    assert await there("GET") == (200, "of the new one")


async def test_what_another_node_has_closed_takes_no_more(pair: tuple[Writer, Writer]) -> None:
    here, there = pair
    assert await here("PUT") == 201
    assert await here("POST", "one", stream_seq="a") == 204
    assert await there("POST", "two", stream_seq="b") == 204
    assert await here("POST", "two", stream_seq="b") == 409
    assert await there("POST", stream_closed="true") == 204
    assert await here("POST", "three") == 409
    assert await here("POST", stream_closed="true") == 204
    assert await here("GET") == (200, "onetwo")
