"""What docs/troubleshooting.md quotes of the log and of errors is what comes, word for word, of the cause it names."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

import velocity_ws.asgi.pages
from tests.support import DEADLINE, Address, Peer, eventually, running, settings
from tests.support.pages import ROOT, blocks
from velocity_ws import BackplaneUnavailable, Broker, ClientNotFound, Reject, Server, WouldDeadlockError
from velocity_ws.sessions import hints

PAGE = "docs/troubleshooting.md"


def quoted() -> dict[str, list[str]]:
    """What is quoted below each heading."""
    lines = (ROOT / PAGE).read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for block in blocks(PAGE, "text"):
        heading = next(line for line in reversed(lines[: block.line]) if line.startswith("### "))
        found.setdefault(heading.removeprefix("### "), []).extend(block.source.splitlines())
    return found


def fits(line: str, said: str) -> bool:
    """Whether something was said as the page has it, in which an ellipsis stands for anything."""
    of_a_module = re.sub(r"\w+\.<locals>\.", "", said)
    return re.fullmatch(".*".join(map(re.escape, line.split("…"))), of_a_module, re.DOTALL) is not None


def is_said(line: str, said: list[str]) -> bool:
    return any(fits(line, each) for each in said)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What our loggers say, and what else a scenario puts in."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    keep = Keep()
    logger = logging.getLogger("velocity_ws")
    logger.addHandler(keep)
    yield found
    logger.removeHandler(keep)


def echoing(**values: Any) -> Broker[Any]:
    broker: Broker[Any] = Broker(settings(**values))

    @broker.on("say")
    async def say(data: str) -> str:
        return data

    return broker


@asynccontextmanager
async def connected(broker: Broker[Any], **options: Any) -> AsyncIterator[Peer]:
    async with running(broker, "ours") as server, server.connect(**options) as peer:
        yield peer


async def refused(server: Address, status: int, **options: Any) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with server.connect(**options):
            pass
    assert caught.value.response.status_code == status


# --- the causes, each by the heading under which it is named


async def another_origin(_: list[str]) -> None:
    async with running(echoing(), "ours") as server:
        await refused(server, 403, origin="https://app.example.com")


async def no_upgrade(_: list[str]) -> None:
    async with running(echoing(), "ours") as server, httpx.AsyncClient(base_url=server.http) as http:
        headers = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
        assert (await http.get("/ws", headers=headers)).status_code == 426
        assert (await http.get("/ws")).status_code == 404


async def full(_: list[str]) -> None:
    async with running(echoing(max_connections=1), "websockets-sansio") as server, server.connect():
        await refused(server, 503)


async def authenticate_fails(_: list[str]) -> None:
    broker = echoing()

    @broker.authenticate
    async def authenticate() -> str:
        raise RuntimeError

    async with running(broker, "ours") as server:
        await refused(server, 500)


async def no_subprotocol(_: list[str]) -> None:
    async with connected(echoing(), subprotocols=["chat"]) as peer:
        assert peer.ws.subprotocol is None


async def too_many(_: list[str]) -> None:
    async with connected(echoing(rate_limit=5, rate_burst=5), max_queue=None) as peer:
        with suppress(ConnectionClosed):
            for _number in range(1000):
                await peer.send("say", "x")
        assert await peer.closed() == (1008, "too many messages")


async def too_big(_: list[str]) -> None:
    async with connected(echoing(max_message_size=100)) as peer:
        await peer.send("say", "x" * 200)
        assert (await peer.closed())[0] == 1009


async def connecting_fails(_: list[str]) -> None:
    broker = echoing()

    @broker.on_connect
    async def enter() -> None:
        raise RuntimeError

    async with connected(broker) as peer:
        assert (await peer.closed())[0] == 1011


async def too_slow(_: list[str]) -> None:
    broker = echoing(send_queue_size=1000, socket_send_buffer=4096)
    async with connected(broker, max_queue=1, compression=None, close_timeout=0.1):
        (client,) = broker.get_clients()
        while client.is_connected:
            await client.send("news", "x" * 100_000)
            await asyncio.sleep(0)


async def no_handler(_: list[str]) -> None:
    async with connected(echoing()) as peer:
        assert (await peer.request("sya"))["data"]["code"] == "UNKNOWN_EVENT"
    broker: Broker[Any] = Broker(settings())
    broker.rooms("chat:{chat_id}").on("say")(lambda data: None)
    async with connected(broker) as peer:
        assert (await peer.request("say"))["data"]["code"] == "UNKNOWN_EVENT"


async def wrong_data(_: list[str]) -> None:
    async with connected(echoing()) as peer:
        assert (await peer.request("say", 5))["data"]["code"] == "INVALID_DATA"


async def nobody_may_join(_: list[str]) -> None:
    broker = echoing()
    broker.rooms("open").authorize(lambda: True)
    broker.rooms("chat:{chat_id}")
    async with connected(broker) as peer:
        for room in ("tea", "chat:7"):
            assert (await peer.request("join", {"room": room}))["data"]["code"] == "FORBIDDEN"


async def no_user_id(_: list[str]) -> None:
    class User: ...

    User.__qualname__ = "User"
    broker = echoing()
    broker.authenticate(User)
    async with connected(broker) as peer:
        assert await broker.to_user("ann").send("news") == 0
        await peer.request("say", "hello")


async def alone(said: list[str]) -> None:
    broker = echoing()
    async with connected(broker):
        broker.node.hints.alone()


async def engine_away(said: list[str]) -> None:
    broker = echoing(backplane_url="nats://127.0.0.1:1", drain_timeout=0.1)
    async with connected(broker):
        with pytest.raises(BackplaneUnavailable) as caught:
            await broker.broadcast("news")
    said.append(str(caught.value))


async def held_up(said: list[str]) -> None:
    broker = echoing()

    @broker.on("hold")
    async def hold() -> None:
        time.sleep(0.15)  # noqa: ASYNC251 - the fault that is shown

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    keep, logger = Keep(), logging.getLogger("asyncio")
    logger.addHandler(keep)
    loop = asyncio.get_running_loop()
    try:
        async with connected(broker) as peer:
            loop.set_debug(True)
            await peer.request("hold")
            await eventually(lambda: any("Executing" in line for line in said))
    finally:
        loop.set_debug(False)
        logger.removeHandler(keep)


async def blocking_on_the_loop(said: list[str]) -> None:
    broker = echoing()
    async with connected(broker):
        with pytest.raises(WouldDeadlockError) as caught:
            broker.sync.broadcast("news")
    said.append(str(caught.value))


async def misspelt_setting(_: list[str]) -> None:
    broker: Broker[Any] = Broker()
    async with connected(broker):
        pass


async def wrong_order(said: list[str]) -> None:
    broker = echoing()
    async with connected(broker):
        with pytest.raises(ClientNotFound) as caught:
            await broker.join_room("tea", broker.get_clients()[0].id)
    said.append(str(caught.value))


CAUSES: dict[str, Callable[[list[str]], Awaitable[None]]] = {
    "403 behind a proxy, or from another port": another_origin,
    "426": no_upgrade,
    "503, or nobody new gets in": full,
    "401, 403 or 500 of your own": authenticate_fails,
    "1006, and nothing in the log": no_subprotocol,
    "1008": too_many,
    "1009": too_big,
    "1011": connecting_fails,
    "1013": too_slow,
    "My handler is not called": no_handler,
    "My handler is not called, and the client gets `INVALID_DATA`": wrong_data,
    "`FORBIDDEN` when joining": nobody_may_join,
    "`to_user` reaches nobody": no_user_id,
    "Only half of the messages arrive": alone,
    "`BackplaneUnavailable`": engine_away,
    "Everything stands still for a moment": held_up,
    "`WouldDeadlockError`": blocking_on_the_loop,
    "A setting has no effect": misspelt_setting,
    "`ClientNotFound`": wrong_order,
}


@pytest.mark.parametrize("heading", quoted())
async def test_what_is_quoted_is_what_is_said(heading: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert heading in CAUSES, f"{PAGE} quotes something below {heading!r}: add to CAUSES what produces it"
    monkeypatch.setattr(velocity_ws.asgi.pages, "_has_warned", False)
    monkeypatch.setattr(hints, "_alone", 0)
    monkeypatch.setattr(hints, "_misspelled", set())
    monkeypatch.setattr(hints, "count_workers", lambda: 2)
    monkeypatch.setattr("velocity_ws.sessions.refused.REFUSALS", 1)  # a slow machine sends less than 1,000 a second
    monkeypatch.setattr("velocity_ws.sessions.refused.REFUSALS_AT_ONCE", 100)
    monkeypatch.setenv("WS_RATE_LIMITT", "5")
    await CAUSES[heading](said)
    for line in quoted()[heading]:
        await eventually(partial(is_said, line, said))


async def test_a_refusal_with_a_code_is_what_keeps_a_page_away() -> None:
    broker = echoing()

    @broker.authenticate
    async def authenticate() -> str:
        raise Reject("log in", code=4401)

    async with connected(broker) as peer:
        assert await peer.closed() == (4401, "log in")


async def test_a_server_that_restarts_says_1012_and_when_to_come_back() -> None:
    broker = echoing()
    async with Server(broker, host="127.0.0.1", port=0) as server:
        async with Address(server.port).connect() as peer:
            stopping = asyncio.create_task(server.stop())
            code, reason = await peer.closed()
            async with asyncio.timeout(DEADLINE):
                await stopping
    assert code == 1012
    assert reason.startswith("restarting, retry_after=")
