"""Streams over HTTP behind every proxy, with the lines that docs/deployment.md has for it: nothing is kept back.

nginx and HAProxy in every run of the tests, all of them by `make proxies`. Times are the best of a few, as the machine
may do other things meanwhile: what a proxy keeps back is late each time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

import httpx2 as httpx
import pytest

from tests.support import DEADLINE, eventually, settings
from tests.support.engines import free_port
from tests.support.machine import beside_others
from tests.support.proxies import EVERY, LIMITED, documented, replaced, run_proxy, with_limit
from velocity_ws import Broker, Server
from velocity_ws.asgi import stream_feeds

KEY = "a-key-for-writers"
FIRST = 0.1
"""Seconds in which the first byte is there."""
SOON = 0.2
"""Seconds in which a piece, or the end, is there."""
TRIES = 5


@asynccontextmanager
async def server(broker: Broker | None = None) -> AsyncIterator[Server]:
    """A server of streams; what it serves needs a key."""
    async with Server(broker or Broker(settings(port=0, api_keys=KEY))) as running:
        yield running


def client(port: int, **options: object) -> httpx.AsyncClient:
    """Requests with the key."""
    headers = {"x-api-key": KEY, "content-type": "text/plain"}
    url = f"http://127.0.0.1:{port}/ws/streams/"
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=DEADLINE, trust_env=False)


class Events:
    """What comes of a stream of events, block by block, with the time from which the next one is counted."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._chunks = response.aiter_raw()
        self._text = b""

    async def block(self) -> str:
        """The next event, or comment; empty at the end of the response."""
        async with asyncio.timeout(DEADLINE):
            while b"\n\n" not in self._text:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    assert not self._text
                    return ""
                self._text += chunk
        block, _, self._text = self._text.partition(b"\n\n")
        return block.decode()

    async def text(self) -> str:
        """The next piece of the stream, whatever is said before it; nothing for its end."""
        while block := await self.block():
            if block.startswith("event: data\n"):
                return "\n".join(line.removeprefix("data:") for line in block.splitlines()[1:])
        return ""

    async def rest(self) -> None:
        """All that comes until the end of the response."""
        while await self.block():
            pass

    async def control(self) -> dict[str, object]:
        """The next event that says where the stream is."""
        while "event: control\n" not in (block := await self.block()):
            assert block
        found: dict[str, object] = json.loads(block.partition("\ndata:")[2])
        return found


@asynccontextmanager
async def reading(http: httpx.AsyncClient, id_: str) -> AsyncIterator[Events]:
    """Read a stream as events, once the answer has begun."""
    async with http.stream("GET", id_, params={"offset": "-1", "live": "sse"}) as response:
        assert response.status_code == 200
        assert response.http_version == "HTTP/1.1"
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response)


async def check_events(writer: httpx.AsyncClient, http: httpx.AsyncClient) -> None:
    """Events come as they are said: the first byte, each piece, and the end."""
    firsts, pieces, ends = [], [], []
    for number in range(TRIES):
        id_ = f"events-{number}"
        assert (await writer.put(id_)).status_code == 201
        began = time.monotonic()
        async with reading(http, id_) as events:
            await events.control()
            firsts.append(time.monotonic() - began)
            for text in ("one", "two", "three"):
                said = time.monotonic()
                assert (await writer.post(id_, content=text)).status_code == 204
                assert await events.text() == text
                pieces.append(time.monotonic() - said)
            said = time.monotonic()
            assert (await writer.post(id_, headers={"stream-closed": "true"})).status_code == 204
            while "streamClosed" not in await events.control():
                pass
            assert await events.block() == ""
            ends.append(time.monotonic() - said)
    assert median(firsts) < beside_others(FIRST)
    assert median(pieces) < beside_others(SOON)
    assert median(ends) < beside_others(SOON)


async def check_long_polls(writer: httpx.AsyncClient, http: httpx.AsyncClient) -> None:
    """A long poll is answered with each piece as it is said, and with the end."""
    assert (await writer.put("polled")).status_code == 201
    offset, times = "-1", []
    for text in [*"abcd", ""]:
        poll = asyncio.create_task(http.get("polled", params={"offset": offset, "live": "long-poll"}))
        headers = {} if text else {"stream-closed": "true"}
        await asyncio.sleep(0)
        said = time.monotonic()
        assert (await writer.post("polled", content=text, headers=headers)).status_code == 204
        response = await poll
        times.append(time.monotonic() - said)
        assert (response.status_code, response.text) == ((200, text) if text else (204, ""))
        assert response.http_version == "HTTP/1.1"
        offset = response.headers["stream-next-offset"]
    assert response.headers["stream-closed"] == "true"
    assert median(times) < beside_others(SOON)


@pytest.mark.parametrize("proxy", EVERY)
async def test_what_is_said_comes_through_at_once(proxy: str, tmp_path: Path) -> None:
    port = free_port()
    async with server() as root, run_proxy(proxy, documented(proxy, port, root.port), port, tmp_path):
        async with client(root.port) as writer, client(port) as http:
            await check_events(writer, http)
            await check_long_polls(writer, http)


async def test_nor_does_nginx_keep_anything_back_that_buffers_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with server() as root:
        lines = replaced(
            documented("nginx", port, root.port),
            [("proxy_pass http://app;", "proxy_pass http://app; proxy_buffering off;")],
        )
        async with run_proxy("nginx", lines, port, tmp_path):
            async with client(root.port) as writer, client(port) as http:
                await check_events(writer, http)
                await check_long_polls(writer, http)


async def test_nginx_does_not_read_ahead_as_the_server_asks_it_not_to(tmp_path: Path) -> None:
    """Told to ignore ``X-Accel-Buffering: no``, it writes to a file what a slow reader has not read yet."""
    broker, port = Broker(settings(port=0, api_keys=KEY, max_message_size="1MiB")), free_port()
    async with server(broker) as root:
        ignored = f"{{ proxy_pass http://127.0.0.1:{root.port}/; proxy_ignore_headers X-Accel-Buffering; }}"
        lines = replaced(
            documented("nginx", port, root.port),
            [
                ("events {", "error_log stderr warn;\nevents {"),
                (f"listen 127.0.0.1:{port};", f"listen 127.0.0.1:{port} sndbuf=64k;"),
                (f"{{ proxy_pass http://127.0.0.1:{root.port}/; }}", ignored),
            ],
        )
        async with run_proxy("nginx", lines, port, tmp_path), client(root.port) as writer, AsyncExitStack() as stack:
            assert (await writer.put("large")).status_code == 201
            for _ in range(12):
                assert (await writer.post("large", content=b"x" * 2**20)).status_code == 204
            for path in ("", "/collab"):
                url, parameters = f"http://127.0.0.1:{port}{path}/ws/streams/large", {"offset": "-1", "live": "sse"}
                http = await stack.enter_async_context(client(port))
                await stack.enter_async_context(http.stream("GET", url, params=parameters))
            log = tmp_path / "proxy.log"
            await eventually(lambda: "buffered to a temporary file" in log.read_text())
            said = [line for line in log.read_text().splitlines() if "buffered to a temporary file" in line]
            assert all("GET /collab/" in line for line in said)


@pytest.mark.parametrize("proxy", LIMITED)
async def test_comments_keep_a_quiet_stream_open_that_the_proxy_would_end(
    proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_feeds, "COMMENT", 0.3)
    port = free_port()
    async with server() as root:
        lines = with_limit(proxy, documented(proxy, port, root.port))
        async with run_proxy(proxy, lines, port, tmp_path), client(root.port) as writer, client(port) as http:
            assert (await writer.put("quiet")).status_code == 201
            async with reading(http, "quiet") as events:
                await events.control()
                for _ in range(9):  # for longer than the limit
                    assert await events.block() == ":"
                await writer.post("quiet", content="still there")
                assert await events.text() == "still there"
                if proxy == "lighttpd":  # its limit is for requests
                    return
                monkeypatch.setattr(stream_feeds, "COMMENT", 30)
                with pytest.raises(httpx.RemoteProtocolError):
                    await events.rest()


@pytest.mark.parametrize("proxy", EVERY)
async def test_a_reader_that_goes_is_gone_from_the_server_with_the_next_comment(
    proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HAProxy, Apache, lighttpd and Varnish notice only then."""
    monkeypatch.setattr(stream_feeds, "COMMENT", 0.3)
    port, broker = free_port(), Broker(settings(port=0, api_keys=KEY))
    async with server(broker) as root, run_proxy(proxy, documented(proxy, port, root.port), port, tmp_path):
        async with client(root.port) as writer, client(port) as http:
            assert (await writer.put("left")).status_code == 201
            limits = broker.node.connection_limits
            async with reading(http, "left") as events:
                await events.control()
                assert not limits.is_empty
            await eventually(lambda: limits.is_empty)


@pytest.mark.proxies
async def test_envoy_cuts_a_stream_whose_route_has_a_time(tmp_path: Path) -> None:
    """It has 15 s by default, which is less than a long poll takes."""
    port = free_port()
    async with server() as root:
        lines = replaced(documented("envoy", port, root.port), [("timeout: 0s", "timeout: 1s")])
        async with run_proxy("envoy", lines, port, tmp_path), client(root.port) as writer, client(port) as http:
            assert (await writer.put("timed")).status_code == 201
            async with reading(http, "timed") as events:
                with pytest.raises(httpx.RemoteProtocolError):
                    await events.rest()
            answer = await http.get("timed", params={"offset": "now", "live": "long-poll"})
            assert answer.status_code == 504
