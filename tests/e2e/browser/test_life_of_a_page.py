"""A page that its browser freezes, or keeps for the back button: the server hears of it, and it comes back.

The browser's events are made by the tests here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.support import eventually, settings
from tests.support.site import site_of
from velocity_ws import Broker, Client, Close, CloseCode, Message

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

LEFT = ("client", CloseCode.PAGE_FROZEN, "the page was left")


def watched(closes: list[tuple[str, int, str]]) -> Callable[..., Broker]:
    """Makes a broker that remembers how connections end."""

    def make(received: list[str], **options: Any) -> Broker:
        broker = Broker(settings(drain_timeout=0.2, allowed_origins="*"))
        broker.rooms("{name}").authorize(lambda: True)

        @broker.on_message
        def remember(client: Client, message: Message) -> None:
            received.append(f"{message.event} {message.data}")

        @broker.on_disconnect
        def gone(client: Client, close: Close) -> None:
            closes.append((close.by, close.code, close.reason))

        broker.on("echo")(lambda client, data: data)
        return broker

    return make


CONNECT = """
    window.statuses = [];
    window.ws = connect(undefined, { baseDelay: 60_000 });
    ws.on("status", (status, { code, delay }) => statuses.push([status, code ?? 0, delay ?? null]));
    await ws.join("a");
"""
CAME_BACK = [["open", 0, None], ["waiting", CloseCode.PAGE_FROZEN, None], ["connecting", 0, None], ["open", 0, None]]


async def test_a_frozen_page_that_becomes_visible_is_back_without_being_told(browser: Browser) -> None:
    closes: list[tuple[str, int, str]] = []
    async with site_of(browser, watched(closes)) as site:
        await site.run(CONNECT)
        tell = "document.dispatchEvent(new Event(argument))"
        await site.run(tell, "freeze")
        await eventually(lambda: closes == [LEFT])
        assert site.broker.get_rooms() == []
        await site.run(tell, "visibilitychange")
        await eventually(lambda: site.broker.get_rooms() == ["a"])
        assert await site.run("await ws.request('echo'); return statuses") == CAME_BACK
        assert site.errors == site.console == []


async def test_no_departure_leaves_a_socket_behind(browser: Browser) -> None:
    closes: list[tuple[str, int, str]] = []
    async with site_of(browser, watched(closes)) as site:
        opened = await site.run(
            """
            Math.random = () => 0.01;  // a backoff that would be over at once
            const { port } = location;
            const ws = connect(`ws://127.0.0.1:${port}/ws`, { baseDelay: 500 });
            let opened = 0;
            const Original = WebSocket;
            window.WebSocket = class extends Original { constructor(...args) { super(...args); opened++; } };
            const go = (type) => dispatchEvent(new PageTransitionEvent(type, { persisted: true }));
            const before = [];
            for (let i = 0; i < 40; i++) {
                await ws.request("echo", i);
                const count = opened;
                go("pagehide");
                document.dispatchEvent(new Event("freeze"));
                dispatchEvent(new Event("online"));
                ws.reconnect();
                if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 20));
                before.push(opened - count);
                go("pageshow");
                if (i % 2) go("pagehide"), go("pageshow");  // while it is connecting
            }
            await ws.request("echo");
            return [Math.max(...before), liveTimers().length];
            """
        )
        assert opened == [0, 1]
        await eventually(lambda: site.broker.get_stats().connections - len(closes) == 1)
        # Of one that was still connecting Chromium says 1001 itself, or nothing.
        assert {close for close in closes if close[0] == "client"} <= {LEFT, ("client", 1001, "")}


async def test_requests_of_before_are_judged_when_the_page_returns(browser: Browser) -> None:
    async with site_of(browser, watched([])) as site:
        result = await site.run(
            """
            const ws = connect();
            await ws.request("echo");
            document.dispatchEvent(new Event("freeze"));
            const late = outcome(ws.request("echo", 1, { timeout: 30 }));
            const inTime = outcome(ws.request("echo", 2));
            ws.send("echo", 3);
            const timers = liveTimers().length;
            await new Promise((resolve) => setTimeout(resolve, 60));
            document.dispatchEvent(new Event("resume"));
            return [timers, (await late).code, (await inTime).value];
            """
        )
        assert result == [0, "TIMEOUT", 2]
        await eventually(lambda: "echo 3" in site.received)
        assert "echo 1" not in site.received


async def test_becoming_visible_ends_a_wait_that_the_server_did_not_ask_for(browser: Browser) -> None:
    async with site_of(browser, watched([])) as site:

        @site.broker.on("close")
        async def close(client: Client, data: str) -> None:
            await client.disconnect(1012, data)

        result = await site.run(
            """
            Math.random = () => 0.9;
            const after = async (reason) => {
                const ws = connect(undefined, { baseDelay: 60_000, maxDelay: 60_000 });
                ws.send("close", reason);
                await until(() => ws.status === "waiting");
                document.dispatchEvent(new Event("visibilitychange"));
                const { status } = ws;
                ws.close();
                return status;
            };
            return [await after(""), await after("retry_after=30")];
            """
        )
    assert result == ["connecting", "waiting"]


async def test_the_server_is_told_of_a_page_that_closes(browser: Browser) -> None:
    closes: list[tuple[str, int, str]] = []
    async with site_of(browser, watched(closes)) as site:
        await site.run(CONNECT)
        await site.page.close()
        await eventually(lambda: [close[:2] for close in closes] == [("client", 1001)])


async def test_an_attempt_that_a_browser_holds_back_is_not_punished(browser: Browser) -> None:
    """A handshake that hangs blocks the others to its site: those are held back, without a packet."""
    hang = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with site_of(browser, watched([])) as site:
        result = await site.run(
            """
            const ws = connect(argument, { connectTimeout: 20, baseDelay: 2, maxDelay: 60_000 });
            const attempts = [];
            ws.on("status", (status, { attempt, delay, reason }) => {
                if (status === "waiting") attempts.push([attempt, delay < 2, reason]);
            });
            await until(() => attempts.length === 4);
            ws.close();
            return attempts;
            """,
            f"ws://127.0.0.1:{port}",
        )
    hang.set()
    server.close()
    await server.wait_closed()
    assert result == [[0, True, "connecting took too long"]] * 4
