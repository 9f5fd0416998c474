"""`velocity.js` comes back: each room is joined again, its answer told, and nobody closed for asking too much."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.support import eventually, settings
from tests.support.site import Site, faster, site_of
from velocity_ws import Broker, Client, ClientError, Message

# The timeout leaves room for the installation of a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


class Rights:
    """What `authorize` says of each room, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self.seconds = 0.0  # that each takes

    def broker(self, received: list[str], **options: Any) -> Broker:
        broker = Broker(settings(drain_timeout=0.2, max_rooms_per_client=0, **options))
        rooms = broker.rooms("{name}")

        @broker.on_message
        def remember(client: Client, message: Message) -> None:
            data = message.data.get("room") if isinstance(message.data, dict) else message.data
            received.append(f"{message.event} {message.room or data}")

        @rooms.authorize
        async def may_enter(name: str) -> bool:
            self.asked.append(name)
            await asyncio.sleep(self.seconds)
            match self.answers.get(name):
                case None:
                    return True
                case "fail":
                    raise RuntimeError("no database")
                case code:
                    raise ClientError(code, "why")

        @rooms.on("said")
        async def said(client: Client, data: Any, room: str) -> None:
            await broker.to_room(room).send("said", data)

        @broker.on("restart")
        async def restart(client: Client) -> None:
            await client.disconnect(1012, "restarting, retry_after=0.001")

        @broker.on("echo")
        def echo(data: Any) -> Any:
            return data

        return broker


def healthy(site: Site) -> bool:
    return not site.errors and not site.console


async def test_every_answer_of_a_join_is_told_and_the_status_says_which_rooms_are_joined(browser: Browser) -> None:
    def make(received: list[str], **options: Any) -> Broker:
        broker = Broker(settings(drain_timeout=0.2))

        @broker.on("join")
        async def join(client: Client, data: dict[str, Any]) -> Any:
            received.append(f"{data}")
            await broker.join_room(client.id, data["room"])
            return [data["room"], data.get("data"), len(received)]

        broker.on("restart")(lambda client: client.disconnect(1012, "retry_after=0.01"))
        return broker

    async with site_of(browser, make) as site:
        result = await site.run(
            """
            const before = Date.now();
            const ws = connect(undefined, { baseDelay: 1 });
            const told = [], statuses = [];
            ws.on("joined", (...args) => told.push(args));
            ws.on("status", (status, { since, joined, pending }) => {
                statuses.push([status, joined, pending, since >= before && since <= Date.now()]);
            });
            const answers = [await ws.join("a"), await ws.join("b", { data: { since: 7 } })];
            const joined = ws.joined;
            ws.send("restart");
            await until(() => told.length === 4);
            return { told, answers, joined, statuses, after: ws.joined };
            """
        )
    assert result["answers"] == [["a", None, 1], ["b", {"since": 7}, 2]]
    assert result["told"] == [
        *(["a", ["a", None, 1]], ["b", ["b", {"since": 7}, 2]]),
        *(["a", ["a", None, 3]], ["b", ["b", {"since": 7}, 4]]),
    ]
    assert result["joined"] == result["after"] == ["a", "b"]
    assert result["statuses"] == [
        ["open", [], ["a"], True],  # a was asked for while it was connecting
        *([status, [], ["a", "b"], True] for status in ("waiting", "connecting", "open")),
    ]
    assert site.received[2:] == site.received[:2]
    assert healthy(site)


async def test_an_answer_to_a_join_that_is_no_request_is_told_too(browser: Browser) -> None:
    async with site_of(browser, Rights().broker) as site:
        told = await site.run(
            """
            const ws = connect();
            ws.send("join", { room: "a" });
            return new Promise((resolve) => ws.on("joined", (...args) => resolve(args)));
            """
        )
    assert told == ["a", {"room": "a"}]


async def test_an_event_of_the_application_may_be_called_joined(browser: Browser) -> None:
    def make(received: list[str], **options: Any) -> Broker:
        broker = Broker(settings(drain_timeout=0.2))
        broker.on("enter")(lambda client: client.send("joined", {"user": "ann"}))
        return broker

    async with site_of(browser, make) as site:
        told = await site.run(
            """
            const ws = connect();
            ws.send("enter");
            return new Promise((resolve) => ws.on("joined", (...args) => resolve(args)));
            """
        )
    assert told == [{"user": "ann"}, {"event": "joined", "data": {"user": "ann"}}]
    assert healthy(site)


async def test_rooms_whose_answers_take_long_together_are_asked_for_once(browser: Browser) -> None:
    rights = Rights()
    rights.seconds = 0.2  # 1.6 s of the page's clock, of which 10 may pass, and all of them take more
    async with site_of(browser, rights.broker, script=faster(8)) as site:
        await site.run(
            """
            const ws = connect(undefined, { livenessTimeout: 0 });
            await ws.request("echo");
            for (let i = 0; i < 8; i++) ws.join(`${i}`).catch(() => {});  // told that it takes long
            await until(() => ws.joined.length === 8);
            """
        )
    assert rights.asked == [f"{i}" for i in range(8)]
    assert healthy(site)


async def test_what_is_sent_when_it_opens_goes_before_all_rooms(browser: Browser) -> None:
    async with site_of(browser, Rights().broker) as site:
        await site.run(
            """
            const ws = connect();
            ws.join("a");
            ws.send("echo", "queued");
            ws.on("status", (status) => {
                if (status !== "open") return;
                ws.join("b");
                ws.send("said", 1, { room: "a" });
                ws.send("echo", "login");
            });
            await until(() => ws.joined.length === 2);
            await ws.request("echo", "end");
            """
        )
    assert site.received == ["echo login", "join a", "join b", "echo queued", "said a", "echo end"]
    assert healthy(site)


@pytest.mark.parametrize(
    ("rooms", "limits"),
    [
        pytest.param(400, {"rate_limit": 400, "rate_burst": 100}, id="400 rooms"),
        pytest.param(600, {"rate_limit": 100, "rate_burst": 200}, id="600 rooms, defaults", marks=pytest.mark.soak),
    ],
)
async def test_many_rooms_come_back_at_the_pace_of_the_limit(
    browser: Browser, rooms: int, limits: dict[str, Any]
) -> None:
    rights = Rights()
    async with site_of(browser, rights.broker, **limits) as site:
        counts = Counter[str]()
        script = """
            window.told = [];
            window.statuses = [];
            window.ws = connect(undefined, { baseDelay: 1 });
            ws.on("joined", (room) => told.push(room));
            ws.on("status", (status, { code }) => statuses.push([status, code]));
            for (let i = 0; i < argument; i++) ws.join(`room ${i}`);
        """
        await site.run(script, rooms)
        for time in (1, 2):
            await site.page.wait_for_function(f"told.length === {time * rooms}", timeout=60_000)
            counts.update(rights.asked)
            assert counts == Counter({f"room {i}": time for i in range(rooms)})
            rights.asked.clear()
            if time == 1:
                await site.run("ws.send('restart'); await until(() => ws.status !== 'open');")
        told, statuses = await site.run("return [told, statuses]")
        assert Counter(told) == Counter({f"room {i}": 2 for i in range(rooms)})
        assert [status for status, _ in statuses] == ["open", "waiting", "connecting", "open"]
        assert statuses[1][1] == 1012
        assert site.broker.get_stats().rate_limited < rooms / 10
        assert healthy(site)


async def test_a_failure_is_no_refusal_and_a_refusal_is_told(browser: Browser) -> None:
    rights = Rights()
    rights.answers.update(late="fail", no="FORBIDDEN")
    async with site_of(browser, rights.broker) as site:
        await site.run(
            """
            window.told = [];
            window.ws = connect(undefined, { baseDelay: 1, maxDelay: 20 });
            for (const event of ["joined", "left", "error"]) {
                ws.on(event, (data) => told.push([event, data.room ?? data, data.reason ?? data.code ?? null]));
            }
            window.first = ws.join("late");
            window.refused = outcome(ws.join("no"));
            await ws.join("kept");
            await ws.join("lost");
            """
        )
        await eventually(lambda: rights.asked.count("late") > 3)
        assert await site.run("return [(await refused).code, ws.rooms]") == ["FORBIDDEN", ["late", "kept", "lost"]]
        del rights.answers["late"]
        assert await site.run("return first") == {"room": "late"}
        rights.answers.update(late="fail", lost="GONE")
        rights.asked.clear()
        await site.run("told.length = 0; ws.send('restart')")
        await eventually(lambda: rights.asked.count("late") > 3)
        del rights.answers["late"]
        await site.run("await until(() => told.length === 4)")
        told, rooms = await site.run("return [told, ws.rooms]")
    assert sorted(told[:3]) == [["error", "lost", "GONE"], ["joined", "kept", None], ["left", "lost", "GONE"]]
    assert told[3] == ["joined", "late", None]
    assert rooms == ["late", "kept"]
    assert healthy(site)


async def test_a_refusal_after_the_promise_has_ended_is_told_once(browser: Browser) -> None:
    decided = asyncio.Event()

    def make(received: list[str], **options: Any) -> Broker:
        broker = Broker(settings(drain_timeout=0.2))

        @broker.rooms("{name}").authorize
        async def may_enter(name: str) -> bool:
            await decided.wait()
            return False

        return broker

    async with site_of(browser, make, script=faster(30)) as site:
        outcome = await site.run(
            """
            const ws = connect();
            window.left = new Promise((resolve) => ws.on("left", (data) => resolve([data, ws.rooms])));
            return outcome(ws.join("a"));
            """
        )
        assert outcome["code"] == "TIMEOUT"
        decided.set()
        assert await site.run("return left") == [{"room": "a", "reason": "FORBIDDEN"}, []]
    assert healthy(site)  # nor is it told in the console that nobody has heard of it


async def test_too_many_rooms_are_told(browser: Browser) -> None:
    def make(received: list[str], **options: Any) -> Broker:
        broker = Broker(settings(drain_timeout=0.2, max_rooms_per_client=2))
        broker.rooms("{name}").authorize(lambda: True)
        return broker

    async with site_of(browser, make) as site:
        result = await site.run(
            """
            const ws = connect();
            const outcomes = await Promise.all(["a", "b", "c"].map((room) => outcome(ws.join(room))));
            return [outcomes.map(({ code }) => code ?? null), ws.rooms];
            """
        )
    assert result == [[None, None, "TOO_MANY_ROOMS"], ["a", "b"]]


async def test_a_message_waits_until_its_room_is_joined(browser: Browser) -> None:
    rights = Rights()
    rights.answers["slow"] = "fail"
    async with site_of(browser, rights.broker) as site:
        await site.run(
            """
            window.said = [];
            window.ws = connect(undefined, { baseDelay: 20, maxDelay: 40 });
            ws.on("said", (data) => said.push(data));
            ws.join("slow");
            await ws.join("quick");
            ws.send("said", 1, { room: "slow" });
            ws.send("said", 2, { room: "quick" });
            ws.send("said", 3, { room: "slow" });
            window.left = ws.send("said", 4, { room: "slow", volatile: true });
            ws.on("joined", () => ws.send("said", 5, { room: "slow" }));
            await ws.request("echo", 6);
            window.queued = ws.queued;
            """
        )
        rights.answers.clear()
        await site.run("await until(() => said.length === 4)")
        assert await site.run("return [said, queued, ws.queued, left]") == [[2, 1, 3, 5], 2, 0, False]
    assert healthy(site)


async def test_uses_of_a_room_are_counted(browser: Browser) -> None:
    rights = Rights()
    async with site_of(browser, rights.broker) as site:
        result = await site.run(
            """
            const ws = connect();
            const answers = [ws.join("a"), ws.join("a")];
            answers.push(await ws.join("a").then(() => ws.join("a")));
            const left = [await ws.leave("a"), await ws.leave("a"), await ws.leave("a")];
            const rooms = ws.rooms;
            left.push(await ws.leave("a"));
            ws.join("b"), ws.leave("b"), ws.join("b");  // as React does in its StrictMode
            await ws.request("echo");
            return [await Promise.all(answers), left, rooms, ws.rooms];
            """
        )
        room = {"room": "a"}
        assert result == [[room] * 3, [None, None, None, room], ["a"], ["b"]]
        assert site.broker.get_rooms() == ["b"]
        assert site.received.count("join a") == site.received.count("leave a") == 1
    assert healthy(site)


async def test_strict_mode_leaves_no_unhandled_rejection(browser: Browser) -> None:
    async with site_of(browser, Rights().broker, rate_limit=20, rate_burst=2) as site:
        await site.run(
            """
            window.unhandled = [];
            addEventListener("unhandledrejection", ({ reason }) => unhandled.push(reason.message));
            for (const isOpen of [false, true]) {
                const ws = connect();
                if (isOpen) await ws.request("echo");
                ws.join("a"), ws.leave("a"), ws.join("a"), ws.join("b"), ws.leave("b");
                ws.close();
                ws.leave("a");
            }
            const ws = connect();
            await ws.request("echo");
            ws.join("a");
            ws.leave("a");
            ws.send("restart");
            await new Promise((resolve) => setTimeout(resolve));
            """
        )
        assert await site.run("return unhandled") == []


async def test_what_the_server_put_out_is_not_joined_again_once_it_is_left(browser: Browser) -> None:
    rights = Rights()
    async with site_of(browser, rights.broker) as site:
        await site.run(
            """
            window.left = [];
            window.ws = connect(undefined, { baseDelay: 1, maxDelay: 2 });
            ws.on("left", ({ room, reason }) => left.push([room, reason]));
            await Promise.all([ws.join("a"), ws.join("b"), ws.join("b")]);
            """
        )
        rights.answers.update(a="fail", b="NOT_FOUND")
        await site.broker.reauthorize()
        await eventually(lambda: rights.asked.count("a") > 4)
        await site.run("await ws.leave('a')")
        asked = rights.asked.count("a")
        rooms = await site.run(
            "ws.send('restart'); await until(() => ws.status !== 'open'); await ws.request('echo'); return ws.rooms"
        )
        assert rooms == []
        assert rights.asked.count("a") == asked
        assert sorted(await site.run("return left")) == [["a", "INTERNAL_ERROR"], ["b", "NOT_FOUND"]]
    assert healthy(site)


async def test_a_leave_over_the_rate_limit_is_sent_again(browser: Browser) -> None:
    async with site_of(browser, Rights().broker, rate_limit=50, rate_burst=4) as site:
        await site.run(
            """
            const ws = connect();
            const rooms = ["a", "b", "c", "d", "e"];
            await Promise.all(rooms.map((room) => ws.join(room)));
            await Promise.all(rooms.map((room) => ws.leave(room)));
            """
        )
        assert site.broker.get_rooms() == []
    assert healthy(site)


async def test_a_restart_in_the_middle_of_a_leave_leaves_it_left(browser: Browser) -> None:
    go = asyncio.Event()

    def make(received: list[str], **options: Any) -> Broker:
        broker = Rights().broker(received)

        @broker.on("leave")
        async def leave(client: Client, data: dict[str, str]) -> None:
            await go.wait()

        return broker

    async with site_of(browser, make) as site:
        await site.run("window.ws = connect(undefined, { baseDelay: 1 }); await ws.join('a'); await ws.join('b');")
        await site.run("window.left = ws.leave('a')")
        await eventually(lambda: "leave a" in site.received)
        for client in site.broker.get_clients():
            await client.disconnect(1012)
        assert await site.run("return left") is None
        await site.run("await until(() => ws.joined.length === 1)")
        assert site.broker.get_rooms() == ["b"]
        go.set()
    assert healthy(site)
