"""A page on a dead network notices it, and tells what was sent into it; once.

The page's clock runs 10 times faster, and it waits 10 s of that where it would wait 25 s by default; the sockets, the
browser and the server are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.support import settings
from tests.support.dead_network import Network, network
from tests.support.site import Site, faster, site_of
from velocity_ws import Broker, Client, Message
from velocity_ws.messages import events
from velocity_ws.messages.outbound import encode

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

TIMES = 10
LOST = "the server gave no sign of life"


def make(received: list[str], **options: Any) -> Broker:
    broker = Broker(settings(drain_timeout=0.2, allowed_origins="*", **options))

    @broker.on_message
    def remember(client: Client, message: Message) -> None:
        received.append(f"{message.event} {message.data}")

    @broker.on("said")
    async def said(client: Client, data: Any) -> None:
        await client.send("said", data)

    broker.on("note")(lambda client: None)
    broker.on("echo")(lambda client, data: data)
    broker.on("join")(lambda client: None)

    broker.on_binary(lambda client, data: None)
    return broker


@asynccontextmanager
async def behind(
    browser: Browser, liveness_timeout: float = 10, times: int = TIMES, **options: Any
) -> AsyncIterator[tuple[Site, Network]]:
    """A page whose `ws` goes through a network; it has `statuses`, and `took(…)`: seconds of its clock to the first."""
    async with site_of(browser, make, script=faster(times), **options) as site:
        async with network(site.address.port) as way:
            await site.run(
                """
                window.statuses = [];
                const [url, options] = argument;
                window.ws = connect(url, { baseDelay: 1, maxDelay: 1, connectTimeout: 5000, ...options });
                ws.on("status", (status, detail) => statuses.push({ status, ...detail, at: performance.now() }));
                window.took = (began) => (statuses[0].at - began) / 1000;
                await ws.request("echo", 0, { timeout: Infinity });
                statuses.length = 0;
                """,
                [f"ws://127.0.0.1:{way.port}/ws", {"livenessTimeout": liveness_timeout * 1000}],
            )
            yield site, way


SPEAK_INTO_IT = """
    window.began = performance.now();
    ws.send("note", 1);
    ws.send("note", { n: 2 }, { room: undefined });
    ws.sendBytes(new Uint8Array([3]));
    ws.send("note", 4, { volatile: true });
    const asked = outcome(ws.request("note", 5, { timeout: 60_000 }));
    await until(() => statuses.length);
    const { status, code, reason, unconfirmed, unconfirmedCount } = statuses[0];
    for (const message of unconfirmed) if (message.bytes) message.bytes = [...message.bytes];
    return { status, code, reason, unconfirmed, unconfirmedCount, took: took(began), asked: (await asked).code };
"""


async def test_what_was_sent_into_a_dead_network_is_told_once(browser: Browser) -> None:
    async with behind(browser) as (site, way):
        way.die()
        result = await site.run(SPEAK_INTO_IT)
        assert 8 < result.pop("took") < 35
        assert result == {
            "status": "waiting",
            "code": 1006,
            "reason": LOST,
            "unconfirmed": [{"event": "note", "data": 1}, {"event": "note", "data": {"n": 2}}, {"bytes": [3]}],
            "unconfirmedCount": 3,
            "asked": "DISCONNECTED",
        }
        way.live()
        assert await site.run("return ws.request('echo', 6, { timeout: Infinity })") == 6
        await site.run("ws.send('note', 7); ws.close(); await until(() => ws.status === 'closed')")
        told = await site.run("return statuses.filter(({ unconfirmed }) => unconfirmed?.length).at(-1).unconfirmed")
        assert told == [{"event": "note", "data": 7}]  # and nothing of before
        assert len(site.received) == len(set(site.received))


async def test_a_way_there_that_is_closed_is_noticed_while_messages_come(browser: Browser) -> None:
    async with behind(browser) as (site, way):
        await site.run("ws.send('said', 0); await until(() => !ws.queued);")
        way.die("up")

        async def speak() -> None:
            while True:
                await site.broker.broadcast("news", "x" * 10)
                await asyncio.sleep(0.02)  # less than a second of the page's clock

        task = asyncio.create_task(speak())
        result = await site.run(
            "window.began = performance.now(); ws.send('note', 1); await until(() => statuses.length);"
            "return [took(began), statuses[0].reason, statuses[0].unconfirmed.map(({ data }) => data)];"
        )
        task.cancel()
    assert 8 < result[0] < 35
    assert result[1:] == [LOST, [0, 1]]  # no answer of the server has shown that it got 0


async def test_nothing_is_told_of_which_an_answer_shows_that_it_has_arrived(browser: Browser) -> None:
    async with behind(browser) as (site, _):
        result = await site.run(
            """
            ws.send("note", 1);
            await ws.request("echo");
            ws.send("note", 2);
            ws.send("said", 3);
            await new Promise((resolve) => ws.on("said", resolve));
            ws.send("note", 4);
            ws.close();
            return [ws.status, statuses[0].unconfirmed, statuses[0].unconfirmedCount];
            """
        )
    unproven = [("note", 2), ("said", 3), ("note", 4)]  # another message of the server shows nothing
    assert result == ["closed", [{"event": event, "data": data} for event, data in unproven], 3]


async def test_what_is_kept_to_be_told_is_bounded(browser: Browser) -> None:
    async with behind(browser) as (site, _):
        result = await site.run(
            """
            for (let i = 0; i < 150; i++) ws.send("note", i);
            ws.close();
            const { unconfirmed, unconfirmedCount } = statuses[0];
            return [unconfirmed.length, unconfirmed[0].data, unconfirmed.at(-1).data, unconfirmedCount];
            """
        )
    assert result == [100, 50, 149, 150]


async def test_it_looks_at_once_when_the_page_runs_again(browser: Browser) -> None:
    async with behind(browser, liveness_timeout=200) as (site, way):
        way.die()
        took, reason = await site.run(
            "const began = performance.now(); document.dispatchEvent(new Event('resume'));"
            "await until(() => statuses.length); return [took(began), statuses[0].reason];"
        )
    assert 8 <= took < 100
    assert reason == LOST


async def test_an_idle_connection_lives_and_one_that_hears_a_lot_is_asked_seldom(browser: Browser) -> None:
    # At this pace the answer to a ping has 1.6 s, of which the machine may take one for something else.
    async with behind(browser, times=5, ping_interval=0) as (site, _):
        pings = await site.run(
            """
            window.pings = 0;
            const { send } = WebSocket.prototype;
            WebSocket.prototype.send = function (text) {
                if (text.includes("$ping")) pings++;
                return send.call(this, text);
            };
            const idle = performance.now();
            await until(() => performance.now() > idle + 13_000);
            const counts = [pings];
            pings = 0;
            const busy = performance.now();
            ws.on("said", () => setTimeout(() => ws.send("said"), 1000));
            ws.send("said");
            await until(() => performance.now() > busy + 8_000);
            return [...counts, pings, statuses.length];
            """
        )
    assert pings[0] in (1, 2)  # one in 10 s
    assert pings[1] <= 3  # one in 5 s at most: only answers show that what it sends arrives
    assert pings[2] == 0


async def test_a_page_that_was_busy_for_long_does_not_take_that_for_silence(browser: Browser) -> None:
    async with behind(browser) as (site, _):
        result = await site.run(
            """
            dispatchEvent(new Event("online"));  // a ping, whose answer waits to be read
            const began = performance.now();
            while (performance.now() < began + 20_000);
            await ws.request("echo");
            return statuses;
            """
        )
    assert result == []


async def test_a_newer_server_is_told_of_once(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    async with behind(browser) as (site, _):
        look = (
            "dispatchEvent(new Event('online'));"
            "await new Promise((resolve) => setTimeout(resolve, 500)); await ws.request('echo');"
        )
        await site.run(look)
        assert site.console == []
        monkeypatch.setattr(events, "_PONG_OF_PROTOCOL", encode("$pong", 2))
        await site.run(look + look)
    assert len(site.console) == 1
    assert "the server speaks protocol 2" in site.console[0]


async def test_liveness_can_be_switched_off(browser: Browser) -> None:
    async with site_of(browser, make, script=faster(TIMES)) as site:
        result = await site.run(
            """
            return Promise.all([0, Infinity].map(async (livenessTimeout) => {
                const ws = connect(undefined, { livenessTimeout });
                await ws.request("echo");
                ws.on("status", () => (ws.changed = true));
                dispatchEvent(new Event("online"));
                const began = performance.now();
                await until(() => performance.now() > began + 12_000);
                return ws.changed ?? false;
            }));
            """
        )
    assert result == [False, False]
