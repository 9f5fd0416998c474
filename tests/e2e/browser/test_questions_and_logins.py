"""What the page answers by itself: questions of the server, and logins that end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.support import eventually, settings
from tests.support.site import faster, site_of
from velocity_ws import Accept, Broker, Client, ClientError

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_the_server_asks_and_the_page_answers(browser: Browser) -> None:
    def make(received: list[str], **options: Any) -> Broker:
        return Broker(settings(drain_timeout=0.2))

    async with site_of(browser, make) as site:
        await site.run(
            """
            const ws = connect();
            window.heard = [];
            ws.onRequest("confirm", async ({ n }, message) => ({ n, event: message.event, hasId: "id" in message }));
            ws.onRequest("nothing", () => {});
            const busy = new velocity.RequestError("BUSY", "later", { details: [7], until: 9 });
            ws.onRequest("busy", () => Promise.reject(busy));
            ws.onRequest("broken", async () => { throw new Error("thrown on purpose"); });
            ws.onRequest("circle", () => { const a = {}; a.a = a; return a; });
            ws.on("confirm", (data) => heard.push(data));
            const undoFirst = ws.onRequest("replaced", () => 1);
            window.undo = ws.onRequest("replaced", () => 2);
            await until(() => ws.status === "open");
            """
        )
        (client,) = site.broker.get_clients()
        assert await client.ask("confirm", {"n": 1}) == {"n": 1, "event": "confirm", "hasId": True}
        assert await client.ask("nothing") is None
        assert await client.ask("replaced") == 2
        await site.run("undo()")
        assert await client.ask("replaced") == 1
        assert await site.run("return heard") == [{"n": 1}]
        failures = {}
        for event in ("busy", "broken", "circle", "unknown"):
            with pytest.raises(ClientError) as raised:
                await client.ask(event)
            failures[event] = (raised.value.code, raised.value.message, raised.value.details)
        assert failures["busy"] == ("BUSY", "later", {"details": [7], "until": 9})
        assert failures["broken"] == ("INTERNAL_ERROR", "thrown on purpose", {})
        assert failures["circle"][0] == "INTERNAL_ERROR"
        assert failures["unknown"] == ("UNKNOWN_EVENT", 'this page does not answer "unknown"', {})
        await eventually(lambda: len(site.errors) == 2)  # those of which the page's developer did not think
        assert site.errors[0] == "thrown on purpose"


async def test_an_answer_that_comes_after_the_connection_is_dropped(browser: Browser) -> None:
    async with site_of(browser, lambda received: Broker(settings(drain_timeout=0.2))) as site:
        await site.run(
            """
            window.ws = connect(undefined, { baseDelay: 1 });
            ws.onRequest("slow", () => new Promise((resolve) => (window.answer = resolve)));
            await until(() => ws.status === "open");
            """
        )
        (client,) = site.broker.get_clients()
        asked = asyncio.create_task(client.ask("slow"))
        await site.run("await until(() => window.answer)")
        await client.disconnect(4000)
        with pytest.raises(Exception, match="gone"):
            await asked
        await site.run("await until(() => ws.status === 'open'); answer(1); await new Promise((r) => setTimeout(r));")
        assert site.broker.get_stats().invalid == 0
        assert site.errors == []


def logins(lifetime: float, answers: list[Any], asked: list[Any]) -> Any:
    def make(received: list[str], **options: Any) -> Broker:
        broker = Broker(settings(drain_timeout=0.2, expiry_grace=5))

        @broker.authenticate
        def authenticate() -> Accept[str]:
            return Accept("ann", expires_at=time.time() + lifetime)

        @broker.refresh
        def refresh(client: Client[str], data: Any) -> Accept[str]:
            asked.append(data)
            match answers.pop(0) if answers else None:
                case Exception() as error:
                    raise error
                case seconds:
                    return Accept("ann", expires_at=time.time() + (seconds or 3600))

        broker.on("echo")(lambda client, data: data)
        return broker

    return make


async def test_a_login_is_renewed_before_it_ends_and_again_after_a_failure(browser: Browser) -> None:
    asked: list[Any] = []
    answers: list[Any] = [RuntimeError("no database"), 8.0]
    # The page's clock is five times faster: it renews early, and the server has seconds until a login has ended.
    async with site_of(browser, logins(4.0, answers, asked), script=faster(5)) as site:
        result = await site.run(
            """
            window.sessions = [];
            window.calls = 0;
            const ws = connect(undefined, {
                baseDelay: 1,
                livenessTimeout: 0,
                refresh: async () => {
                    if (++calls === 1) throw new Error("no network");
                    return { call: calls };
                },
            });
            ws.on("session", ({ expires_in }) => sessions.push(expires_in));
            ws.on("session_expired", () => sessions.push("expired"));
            await until(() => sessions.length === 3);
            return [calls, sessions.map((seconds) => Math.ceil(seconds)), ws.status];
            """
        )
        assert result == [4, [4, 8, 3600], "open"]
        assert asked == [{"call": 2}, {"call": 3}, {"call": 4}]
        assert site.errors == ["no network"]


async def test_a_login_whose_time_went_by_unseen_is_renewed_when_it_has_ended(browser: Browser) -> None:
    asked: list[Any] = []
    script = "window.setTimeout = () => 0;"  # no timer ever fires, as in a page that is hidden
    async with site_of(browser, logins(0.3, [], asked), script=script) as site:
        async with asyncio.timeout(10):
            await site.page.evaluate(
                """async () => {
                    const { connect } = await import("/ws/velocity.js");
                    window.ws = connect(undefined, { refresh: () => "token" });
                }"""
            )
        await eventually(lambda: asked == ["token"])
        assert [client.is_connected for client in site.broker.get_clients()] == [True]


async def test_a_refusal_is_told_and_not_asked_again(browser: Browser) -> None:
    asked: list[Any] = []
    answers = [ClientError("UNAUTHORIZED", "log in again")]
    # It would end in 4 s, and the answer has 1.25 s until it is asked for once more.
    async with site_of(browser, logins(4, answers, asked), script=faster(8)) as site:
        error = await site.run(
            """
            const ws = connect(undefined, { baseDelay: 1, livenessTimeout: 0, refresh: () => 1 });
            const error = await new Promise((resolve) => ws.on("error", resolve));
            await new Promise((resolve) => setTimeout(resolve, 1500));
            return error;
            """
        )
    assert error == {"code": "UNAUTHORIZED", "message": "log in again"}
    assert asked == [1]


async def test_a_login_of_many_days_does_not_fire_at_once(browser: Browser) -> None:
    asked: list[Any] = []
    async with site_of(browser, logins(90 * 86400, [], asked), script=faster(2)) as site:
        assert (
            await site.run(
                """
                let sessions = 0;
                const ws = connect(undefined, { refresh: () => 1, livenessTimeout: 0 });
                ws.on("session", () => sessions++);
                await until(() => sessions);
                await ws.request("echo");
                await new Promise((resolve) => setTimeout(resolve, 30));
                return liveTimers().every((delay) => delay <= 2 ** 31 - 1);
                """
            )
            is True
        )
    assert asked == []
