"""A real Chromium: the browser client against a real server, and the chat's page in several tabs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, expect
from websockets.asyncio.server import Server as WebSocketsServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request as HandshakeRequest

import velocity_ws
from tests.support import DEADLINE, Address, eventually, settings
from tests.support.command import kept_port, serving_folder
from tests.support.dead_network import Network, network
from tests.support.site import EXPECTED_ERROR, Site, site_of, unused_port
from velocity_ws import Broker, Client, ClientError, Message, Reject, may_reconnect
from velocity_ws.messages.events import PROTOCOL

# The timeout leaves room for the installation of a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "artifacts"

expect.set_options(timeout=DEADLINE * 1000)


# --- velocity.js


def small_broker(received: list[str], **options: Any) -> Broker:
    """A broker with a handler for each thing a test wants to provoke."""
    broker = Broker(settings(drain_timeout=0.2, **options))

    @broker.authenticate
    def check(request: Any) -> None:
        if request.query_params.get("token") == "bad":
            raise Reject("bad token", code=4401)

    @broker.on_connect
    def number(client: Client) -> None:
        client.set_data("number", broker.get_stats().connections)

    @broker.on_message
    def remember(client: Client, message: Message) -> None:
        data = message.data.get("room") if isinstance(message.data, dict) else message.data
        received.append(f"{client.get_data('number')}:{message.event} {'' if data is None else data}".rstrip())

    @broker.on("echo")
    def echo(client: Client, data: Any) -> Any:
        return data

    @broker.on("double")
    def double(client: Client, data: int) -> int:
        return data * 2

    @broker.on("refuse")
    def refuse(client: Client, data: Any) -> None:
        raise ClientError("NO_TEA", "the pot is empty", pot=7)

    @broker.on("hang")
    async def hang(client: Client, data: Any) -> None:
        await asyncio.Event().wait()

    @broker.on("close")
    async def close(client: Client, data: dict[str, Any]) -> None:
        await client.disconnect(data["code"], data.get("reason", ""))

    @broker.on("join")
    async def join(client: Client, data: dict[str, str]) -> str:
        if data["room"] == "cut" and client.get_data("number") == 1:
            await client.disconnect(1012)
            return "never told"
        if data["room"] == "private":
            raise ClientError("FORBIDDEN", "not for you")
        await broker.join_room(client.id, data["room"])
        return f"in {data['room']}"

    @broker.on("join_once")
    def join_once(client: Client) -> None:
        if client.get_data("number") > 1:
            raise ClientError("FULL", "no place left")

    @broker.on("leave")
    async def leave(client: Client, data: dict[str, str]) -> None:
        await broker.leave_room(client.id, data["room"])

    @broker.on("say")
    async def say(client: Client, data: dict[str, Any]) -> None:
        await client.send(data["event"], data["data"])

    @broker.on_binary
    async def back(client: Client, data: bytes) -> None:
        received.append(f"binary {data.hex()}")
        await client.send_bytes(data[::-1])

    return broker


@pytest_asyncio.fixture(loop_scope="session")
async def site(browser: Browser) -> AsyncIterator[Site]:
    async with site_of(browser, small_broker) as site:
        yield site
        assert site.errors == []
        assert site.console == []


def asked(request: HandshakeRequest) -> str:
    """The path of a handshake, without what the client says in the query."""
    return request.path.partition("?")[0]


@pytest_asyncio.fixture(loop_scope="session")
async def wire() -> AsyncIterator[str]:
    """A server that is not ours and does what ours never would; its path says what."""
    release = asyncio.Event()

    async def before(connection: ServerConnection, request: HandshakeRequest) -> None:
        if asked(request) == "/hang":
            await release.wait()

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        if asked(connection.request) == "/abort":
            connection.transport.abort()
        elif asked(connection.request) == "/back":
            async for text in connection:
                await connection.send(text)
        elif asked(connection.request) == "/malformed":
            for text in ("no json", "null", "[]", '{"event": 1}', '{"event": "fine", "data": 1}'):
                await connection.send(text)
        await connection.wait_closed()

    server: WebSocketsServer
    async with serve_websockets(handle, "127.0.0.1", 0, process_request=before, close_timeout=0.1) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}"
        release.set()


async def test_the_client_and_its_types_are_served(site: Site) -> None:
    async with httpx.AsyncClient() as http:
        module = await http.get(site.address.http + "/ws/velocity.js")
        types = await http.get(site.address.http + "/ws/velocity.d.ts")
    assert module.headers["content-type"] == "text/javascript; charset=utf-8"
    assert types.headers["content-type"] == "text/plain; charset=utf-8"
    assert "export function connect" in module.text
    exported = re.compile(r"^export (?:class|function|const) (\w+)", re.MULTILINE)
    assert set(exported.findall(module.text)) == set(exported.findall(types.text))
    assert f'export const version = "{velocity_ws.__version__}";' in module.text
    assert f"export const protocol = {PROTOCOL};" in module.text


async def test_a_plain_websocket_needs_no_client(site: Site) -> None:
    async with asyncio.timeout(DEADLINE):
        answer = await site.page.evaluate(
            """() => new Promise((resolve) => {
                const ws = new WebSocket(`ws://${location.host}/ws`);
                ws.onopen = () => ws.send(JSON.stringify({ event: "echo", data: "hello", id: 1 }));
                ws.onmessage = (message) => resolve(JSON.parse(message.data));
            })"""
        )
    assert answer == {"event": "reply", "id": 1, "data": "hello"}


async def test_the_client_below_a_path_with_parameters_connects_to_the_path_it_came_from(browser: Browser) -> None:
    async with site_of(browser, small_broker, path="/ws/{tenant}") as site:

        @site.broker.on("where")
        def where(client: Client) -> Any:
            return client.request.path_params

        async with asyncio.timeout(DEADLINE):
            answer = await site.page.evaluate(
                "import('/ws/acme/velocity.js').then(({ connect }) => connect().request('where'))"
            )
        assert answer == {"tenant": "acme"}


async def test_a_token_beside_a_subprotocol_lets_a_browser_in_and_a_refusal_is_read(browser: Browser) -> None:
    async with site_of(browser, small_broker, subprotocols="bearer") as site:

        @site.broker.authenticate
        def check(request: Any) -> str:
            if request.scope["subprotocols"] != ["bearer", "t0k.en"]:
                raise Reject("bad token", code=4401)
            return "ann"

        plain = await site.run(
            """
            const one = (protocols) => new Promise((resolve) => {
                const ws = new WebSocket(`ws://${location.host}/ws`, protocols);
                ws.onopen = () => ws.send(JSON.stringify({ event: "echo", data: "hello", id: 1 }));
                ws.onmessage = ({ data }) => resolve([ws.protocol, JSON.parse(data).data]);
                ws.onclose = ({ code, reason }) => resolve([ws.protocol, code, reason]);
            });
            return [await one(["bearer", "t0k.en"]), await one(["bearer", "stale"])];
            """
        )
        assert plain == [["bearer", "hello"], ["bearer", 4401, "bad token"]]
        assert [client.subprotocol for client in site.broker.get_clients()] == ["bearer"]
        assert await site.run(
            """
            const tokens = ["t0k.en", "stale"];
            const ws = connect("/ws", { protocols: async () => ["bearer", tokens.shift()], baseDelay: 1 });
            const statuses = [];
            ws.on("status", (status, { code }) => statuses.push([status, code ?? 0]));
            const answer = await ws.request("echo", 1);
            ws.send("close", { code: 4000 });
            await until(() => ws.status === "closed");
            return [answer, statuses.filter(([status]) => status !== "connecting")];
            """
        ) == [1, [["open", 0], ["waiting", 4000], ["open", 0], ["closed", 4401]]]
        assert site.errors == []


async def test_a_browser_gives_up_where_none_of_its_subprotocols_is_listed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    closed = """
        return new Promise((resolve) => {
            const ws = new WebSocket(`ws://${location.host}/ws?token=${argument}`, ["bearer", "t0k.en"]);
            ws.onclose = ({ code }) => resolve(code);
        });
    """
    assert [await site.run(closed, token) for token in ("good", "bad")] == [1006, 1006]
    assert sum("WS_SUBPROTOCOLS has none" in message for message in caplog.messages) == 1


async def test_a_message_names_its_room_and_the_room_of_what_comes_is_read(wire: str, site: Site) -> None:
    result = await site.run(
        """
        const ws = connect(argument + "/back");
        const heard = [];
        ws.on("said", (data, { room }) => heard.push(["said", data, room ?? null]));
        ws.on("*", (event, data, message) => heard.push([event, message.room ?? null]));
        ws.send("said", 1, { room: "chat:7" });
        ws.send("said", 2);
        ws.request("asked", 3, { room: "chat:8", timeout: 10000 }).catch(() => {});
        await until(() => heard.length === 5);
        return heard;
        """,
        wire,
    )
    assert result == [
        *(["said", 1, "chat:7"], ["said", "chat:7"], ["said", 2, None], ["said", None]),
        ["asked", "chat:8"],
    ]


async def test_requests_are_answered(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect();
        const replies = await Promise.all([1, 2, 3].map((n) => ws.request("double", n)));
        replies.push(await ws.request("echo", { text: "grüße" }), await ws.request("echo"));
        return [replies, liveTimers().length];
        """
    )
    assert result == [[2, 4, 6, {"text": "grüße"}, None], 1]  # a client has one timer, whatever it waits for


@pytest.mark.parametrize("url", ["/ws", "/ws/", "http://{host}/ws#x", "ws://{host}/ws"])
async def test_addresses(site: Site, url: str) -> None:
    url = url.format(host=f"127.0.0.1:{site.address.port}")
    assert await site.run("return connect(argument).request('echo', 1)", url) == 1
    assert await site.run("return connect(async () => argument).request('echo', 1)", url) == 1


async def test_a_request_fails_with_the_code_of_the_error(site: Site) -> None:
    invalid, unknown, own, late, aborted, before = await site.run(
        """
        const ws = connect();
        const abort = new AbortController();
        const outcomes = [
            await outcome(ws.request("double", "two")),
            await outcome(ws.request("refuse")),
            await outcome(ws.request("hang", null, { timeout: 20 })),
        ];
        const given = ws.request("echo", 1, { signal: abort.signal });
        abort.abort();
        outcomes.push(await outcome(given), await outcome(ws.request("echo", 2, { signal: abort.signal })));
        const other = connect();
        const failed = await other.request("double", {}).catch((error) => error);
        return [...outcomes.slice(0, 1), failed instanceof velocity.RequestError && failed.name, ...outcomes.slice(1)];
        """
    )
    assert invalid["code"] == "INVALID_DATA"
    assert invalid["error"]["details"][0]["type"] == "int_parsing"
    assert unknown == "RequestError"
    assert (own["code"], own["error"]["message"], own["error"]["data"]["pot"]) == ("NO_TEA", "the pot is empty", 7)
    assert (late["code"], late["error"].get("data")) == ("TIMEOUT", None)
    assert aborted["code"] == before["code"] == 20  # a DOMException, AbortError
    assert "1:echo 2" not in site.received


async def test_a_request_with_half_an_emoji_or_nested_too_deeply_fails_at_once(site: Site) -> None:
    outcomes = await site.run(
        """
        const ws = connect();
        let nested = 1;
        for (let depth = 0; depth < 600; depth++) nested = [nested];
        const half = "😀".slice(0, 1);
        return Promise.all([half, { [half]: 1 }, [{ id: 1 }, half, { id: 2 }], nested].map(
            (data) => outcome(ws.request("echo", data, { timeout: 9000 })),
        ));
        """
    )
    assert [outcome.get("code") for outcome in outcomes] == ["INVALID_JSON"] * 4


async def test_the_rate_limit_rejects_a_request_and_tells_others(browser: Browser) -> None:
    async with site_of(browser, small_broker, rate_limit=0.1, rate_burst=1) as site:
        refused, told = await site.run(
            """
            const ws = connect();
            let told;
            ws.on("rate_limit_exceeded", (data) => (told = data));
            await ws.request("echo");
            const refused = await outcome(ws.request("echo"));
            ws.send("echo");
            await until(() => told);
            return [refused, told];
            """
        )
    assert refused["code"] == "RATE_LIMITED"
    assert 0 < refused["error"]["retryAfter"] <= 10
    assert 0 < told["retry_after"] <= 10


async def test_what_is_sent_while_away_waits_in_a_bounded_queue(site: Site) -> None:
    result = await site.run(
        """
        let url = argument;
        const ws = connect(() => url, { baseDelay: 5, maxDelay: 20, maxQueue: 4 });
        const expired = await outcome(ws.request("echo", "expired", { timeout: 10 }));
        const sent = [1, 2].map((n) => ws.send("echo", n));
        const bytes = new Uint8Array([1, 2]);
        sent.push(ws.sendBytes(bytes));
        bytes[0] = 9;
        const request = ws.request("echo", 3);
        sent.push(ws.send("echo", 4), ws.send("echo", 5));
        const full = await outcome(ws.request("echo", 6));
        const counts = [ws.queued, ws.dropped];
        url = "/ws";
        return [sent, expired.code, full.code, counts, await request, ws.queued];
        """,
        f"ws://127.0.0.1:{unused_port()}",
    )
    assert result == [[True, True, True, False, False], "TIMEOUT", "QUEUE_FULL", [4, 2], 3, 0]
    assert site.received == ["1:echo 1", "1:echo 2", "binary 0102", "1:echo 3"]


async def test_what_a_socket_does_not_take_costs_nothing_else(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect();
        const name = (send) => { try { send(); } catch (error) { return error.name; } };
        const text = name(() => ws.sendBytes("text"));
        ws.sendBytes({ slice: () => Symbol() });
        const answer = await ws.request("echo", 1);
        return [text, answer, ws.dropped, name(() => ws.sendBytes(Symbol()))];
        """
    )
    assert result == ["TypeError", 1, 1, "TypeError"]
    assert len(site.errors) == 1
    site.errors.clear()


async def test_an_answer_that_is_read_late_is_an_answer(site: Site) -> None:
    answer = await site.run(
        """
        window.setTimeout = () => 0;  // the page is busy: what has come is read before its timers run
        return connect().request("echo", 1, { timeout: 0.01 });
        """
    )
    assert answer == 1


async def test_a_request_is_given_up_for_any_reason(site: Site) -> None:
    reasons = await site.run(
        """
        const ws = connect();
        return Promise.all([null, 0, "", "late"].map((reason) => {
            const abort = new AbortController();
            const asked = ws.request("echo", 1, { signal: abort.signal });
            abort.abort(reason);
            return asked.then(() => "answered", (error) => error);
        }));
        """
    )
    assert reasons == [None, 0, "", "late"]


async def test_what_is_volatile_does_not_wait_for_a_connection(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect();
        const bytes = new Uint8Array([1]);
        const away = [ws.send("echo", 1, { volatile: true }), ws.sendBytes(bytes, { volatile: true }), ws.queued];
        await ws.request("echo", 2);
        const open = [ws.send("echo", 3, { volatile: true }), ws.sendBytes(bytes, { volatile: true })];
        await ws.request("echo", 4);
        ws.close();
        return [away, open, ws.send("echo", 5, { volatile: true }), ws.dropped];
        """
    )
    assert result == [[False, False, 0], [True, True], False, 0]
    assert site.received == ["1:echo 2", "1:echo 3", "binary 01", "1:echo 4"]


async def test_requests_on_the_wire_are_not_sent_again(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect(undefined, { baseDelay: 1 });
        await ws.request("echo", 1);
        const queued = new Promise((resolve) => {
            ws.on("status", (status) => status === "waiting" && resolve(ws.request("echo", 2)));
        });
        return [await outcome(ws.request("close", { code: 1012 })), await queued];
        """
    )
    assert result[0]["code"] == "DISCONNECTED"
    assert result[1] == 2
    assert site.received == ["1:echo 1", "1:close", "2:echo 2"]


async def test_rooms_are_joined_again_before_the_queue_is_sent(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect(undefined, { baseDelay: 1 });
        const log = [];
        ws.on("status", (status) => {
            if (status === "open") ws.send("hello");
            if (status !== "waiting") return;
            ws.send("queued");
            log.push(ws.join("c").then((reply) => reply));
            log.push(outcome(Promise.all([ws.join("never"), ws.leave("never")])));
        });
        log.push(await ws.join("a"), await ws.join("b"), await ws.join("gone"));
        log.push((await outcome(ws.join("private"))).code);
        await ws.leave("gone");
        const replies = await Promise.all([ws.join("cut"), ws.join("cut")]);  // lost before the answer
        await until(() => ws.status === "open" && ws.rooms.length === 4 && log.length === 6);
        return [...(await Promise.all(log)), replies, ws.rooms];
        """
    )
    *first, after, never, cut, rooms = result
    assert first == ["in a", "in b", "in gone", "FORBIDDEN"]
    assert after == "in c"
    assert never["code"] == "ABORTED"
    assert cut == ["in cut", "in cut"]
    assert rooms == ["a", "b", "cut", "c"]
    assert site.received.count("1:join cut") == 1
    await eventually(lambda: "2:queued" in site.received)
    again = [line for line in site.received if line.startswith("2:")]
    assert again == ["2:hello", "2:join a", "2:join b", "2:join cut", "2:join c", "2:queued"]
    assert site.broker.get_rooms() == ["a", "b", "cut", "c"]


async def test_a_room_left_before_its_join_was_answered_stays_left(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect(undefined, { baseDelay: 1 });
        await ws.request("echo");
        const joined = outcome(ws.join("cut"));
        const left = outcome(ws.leave("cut"));
        return [(await joined).code, (await left).value, await ws.request("echo", 1), ws.rooms];
        """
    )
    assert result == ["DISCONNECTED", None, 1, []]  # who has lost the connection is in no room
    assert "2:join cut" not in site.received


async def test_a_room_that_is_refused_later_is_forgotten_and_told(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect(undefined, { baseDelay: 1, joinEvent: "join_once" });
        const refused = new Promise((resolve) => ws.on("error", resolve));
        await ws.join("a");
        const rooms = ws.rooms;
        ws.send("close", { code: 1012 });
        return [rooms, await refused, ws.rooms];
        """
    )
    assert result == [["a"], {"code": "FULL", "message": "no place left", "room": "a"}, []]


def broker_with_kinds(received: list[str], **options: Any) -> Broker:
    """A broker whose clients join rooms by themselves, and which has no handlers for that."""
    broker = Broker(settings(drain_timeout=0.2, **options))
    chats = broker.rooms("chat:{chat_id}")

    @broker.on_message
    def remember(client: Client, message: Message) -> None:
        received.append(f"{broker.get_stats().connections}:{message.event} {message.room or message.data['room']}")

    @chats.authorize
    async def may_enter(client: Client, chat_id: int) -> bool:
        return chat_id != 13

    @chats.on("said")
    async def said(client: Client, data: str, room: str) -> None:
        await broker.to_room(room).send("said", data)

    @chats.on("restart")
    async def restart(client: Client) -> None:
        await client.disconnect(4000)

    return broker


async def test_rooms_of_a_kind_are_joined_and_left_without_a_handler(browser: Browser) -> None:
    async with site_of(browser, broker_with_kinds) as site:
        result = await site.run(
            """
            const ws = connect(undefined, { baseDelay: 1 });
            const said = [];
            ws.on("said", (data) => said.push(data));
            const answer = await ws.join("chat:7");
            const refused = [];
            for (const room of ["chat:13", "chat:seven", "tea"]) refused.push((await outcome(ws.join(room))).code);
            const rooms = ws.rooms;
            ws.send("said", "before", { room: "chat:7" });
            await until(() => said.length === 1);
            ws.on("status", (status) => {  // what is sent now waits until the room is joined again
                if (status === "waiting") ws.send("said", "after", { room: "chat:7" });
            });
            ws.send("restart", null, { room: "chat:7" });
            await until(() => said.length === 2);
            const left = await ws.leave("chat:7");
            return [answer, refused, rooms, said, left, ws.rooms];
            """
        )
        room = {"room": "chat:7"}
        assert result == [room, ["FORBIDDEN"] * 3, ["chat:7"], ["before", "after"], room, []]
        assert site.received[-3:] == ["2:join chat:7", "2:said chat:7", "2:leave chat:7"]
        assert site.broker.get_rooms() == []
        assert (site.errors, site.console) == ([], [])


async def test_rooms_over_the_rate_limit_are_joined_later(browser: Browser) -> None:
    async with site_of(browser, small_broker, rate_limit=20, rate_burst=3) as site:
        script = """
            const pause = () => new Promise((resolve) => setTimeout(resolve, 60));
            const patiently = async (ask) => {
                while ((await outcome(ask())).code === "RATE_LIMITED") await pause();
            };
            window.ws ??= connect(undefined, { baseDelay: 1 });
            for (const room of ["a", "b", "c", "d", "e"]) await patiently(() => ws.join(room));
            await patiently(() => ws.request("close", { code: 1012 }));
        """
        await site.run(script)
        await eventually(lambda: site.broker.get_stats().connections == 2)
        await eventually(lambda: sorted(site.broker.get_rooms()) == ["a", "b", "c", "d", "e"])
        left = """
            const planned = () => liveTimers().filter((delay) => delay > 5 && delay <= 50);
            await until(() => planned().length);
            ws.close();
            return planned();
        """
        assert await site.run(script + left) == []


async def test_a_room_that_one_was_put_out_of_is_left_or_asked_for_again(browser: Browser) -> None:
    answers, asked = {"forbidden": "", "broken": ""}, list[str]()

    def make(_: list[str]) -> Broker:
        broker = Broker(settings(drain_timeout=0.2))

        @broker.rooms("{name}").authorize
        async def may_enter(name: str) -> bool:
            asked.append(name)
            if answers[name] == "fail":
                raise RuntimeError("no database")
            return not answers[name]

        return broker

    async with site_of(browser, make) as site:
        broker = site.broker
        script = """
            const ws = (window.ws = connect(undefined, { baseDelay: 1, maxDelay: 20 }));
            window.left = [];
            ws.on("left", (data) => window.left.push([data, ws.rooms]));
            await ws.join("forbidden");
            await ws.join("broken");
        """
        await site.run(script)
        answers.update(forbidden="no", broken="fail")
        await broker.reauthorize()
        await eventually(lambda: asked.count("broken") > 5)
        answers.update(forbidden="", broken="")
        await eventually(lambda: broker.get_rooms() == ["broken"])
        left, rooms = await site.run("return [window.left, ws.rooms]")
        assert rooms == ["broken"]
        assert sorted(left, key=str) == [
            [{"room": "broken", "reason": "INTERNAL_ERROR"}, ["broken"]],
            [{"room": "forbidden", "reason": "FORBIDDEN"}, ["broken"]],
        ]
        answers.update(broken="fail")
        await broker.reauthorize()
        assert await site.run("ws.close(); return liveTimers().filter((delay) => delay <= 20)") == []


async def test_some_closes_are_for_good(site: Site, wire: str) -> None:
    final = [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4400, 4401, 4499]
    passing = [1001, 1011, 1012, 1013, 1014, 3000, 4000, 4399, 4500]
    script = """
        return Promise.all(argument.map((code) => new Promise((resolve) => {
            const ws = connect(undefined, { baseDelay: 60_000 });
            ws.on("status", (status, detail) => {
                if (status === "open") return;
                resolve([status, detail.code, detail.reason]);
                ws.close();
            });
            ws.send("close", { code, reason: "because" });
        })));
    """
    assert await site.run(script, final) == [["closed", code, "because"] for code in final]
    assert await site.run(script, passing) == [["waiting", code, "because"] for code in passing]
    lost = """
        const ws = connect(argument, { baseDelay: 60_000 });
        return new Promise((resolve) => {
            ws.on("status", (status, detail) => {
                if (status === "open") return;
                resolve([status, detail.code]);
                ws.close();
            });
        });
    """
    assert await site.run(lost, wire + "/abort") == ["waiting", 1006]
    assert await site.run(lost, "/ws?token=bad") == ["closed", 4401]


async def test_the_rule_is_the_same_as_in_python(site: Site) -> None:
    come_back = await site.run(
        "return Array.from({ length: 5000 }, (_, code) => code).filter((code) => velocity.mayReconnect(code))"
    )
    assert come_back == [code for code in range(5000) if may_reconnect(code)]


async def test_delays_double_up_to_a_bound_and_are_random(site: Site) -> None:
    # A stand-in fails at once; the browser itself makes real connections that fail too often wait for seconds.
    script = """
        window.WebSocket = class {
            constructor() { queueMicrotask(() => this.onclose({ code: 1006, reason: "" })); }
            close() {}
        };
        const ws = connect(undefined, { baseDelay: 4, maxDelay: 30 });
        const delays = [];
        ws.on("status", (status, { delay, attempt }) => status === "waiting" && delays.push([attempt, delay]));
        await until(() => delays.length >= 8);
        ws.close();
        return delays.slice(0, 8);
    """
    bounds = [4, 8, 16, 30, 30, 30, 30, 30]
    delays = await site.run(script)
    assert [attempt for attempt, _ in delays] == list(range(1, 9))
    assert all(0 <= delay < bound for (_, delay), bound in zip(delays, bounds, strict=True))
    assert len({delay for _, delay in delays}) == 8
    delays = await site.run("Math.random = () => 0.5;" + script)
    assert [delay for _, delay in delays] == [bound / 2 for bound in bounds]


async def test_delays_start_small_again_after_a_stable_connection(site: Site) -> None:
    attempts = await site.run(
        """
        const attemptsWith = async (stableAfter) => {
            const ws = connect(undefined, { baseDelay: 1, maxDelay: 5, stableAfter });
            const attempts = [];
            ws.on("status", async (status, { attempt }) => {
                if (status === "waiting") attempts.push(attempt);
                if (status !== "open") return;
                const opened = performance.now();
                if (stableAfter === 1) await until(() => performance.now() > opened + 1);
                ws.send("close", { code: 1012 });
            });
            await until(() => attempts.length === 3);
            ws.close();
            return attempts;
        };
        return [await attemptsWith(60_000), await attemptsWith(1)];
        """
    )
    assert attempts == [[1, 2, 3], [1, 1, 1]]


async def test_the_server_says_when_to_come_back(site: Site) -> None:
    script = """
        Math.random = () => 0.5;
        return Promise.all(argument.map(([code, reason]) => new Promise((resolve) => {
            const ws = connect(undefined, { baseDelay: 60_000, maxDelay: 60_000 });
            ws.on("status", (status, { delay }) => {
                if (status !== "waiting") return;
                resolve(delay);
                ws.close();
            });
            ws.send("close", { code, reason });
        })));
    """
    hints = [
        ([1012, "restarting, retry_after=2.5"], 2500),
        ([1012, "retry_after=0.125"], 125),
        ([1001, "restarting, retry_after=0.5"], 500),
        ([1013, "too busy; retry_after=90 or so"], 90_000),
        ([1012, "restarting"], 30_000),
        ([1012, "retry_after=soon"], 30_000),
        ([1012, "retry_after=-1"], 30_000),
        ([1012, "no_retry_after=1"], 30_000),
        ([1011, "retry_after=1"], 30_000),
        ([4000, "retry_after=1"], 30_000),
    ]
    assert await site.run(script, [given for given, _ in hints]) == [delay for _, delay in hints]


async def test_after_the_time_the_server_named_the_usual_delays_follow(site: Site) -> None:
    script = """
        Math.random = () => 0.5;
        const closes = [...argument];
        window.WebSocket = class {
            constructor() {
                queueMicrotask(() => {
                    const [opens, code, reason] = closes.shift();
                    if (opens) this.onopen();
                    this.onclose({ code, reason });
                });
            }
            close() {}
        };
        window.WebSocket.OPEN = 1;
        const ws = connect(undefined, { baseDelay: 8, maxDelay: 32 });
        const delays = [];
        ws.on("status", (status, { delay }) => {
            if (status !== "waiting") return;
            delays.push(delay);
            if (!closes.length) ws.close();
        });
        await until(() => ws.status === "closed");
        return delays;
    """
    restart = [True, 1012, "restarting, retry_after=0.05"]
    lost = [False, 1006, ""]
    assert await site.run(script, [restart, lost, lost, lost]) == [50, 8, 16, 16]
    at_once = [True, 1012, "restarting, retry_after=0"]
    assert await site.run(script, [at_once] * 4) == [0, 8, 16, 16]


async def test_coming_online_ends_the_wait(site: Site) -> None:
    await site.run(
        """
        Math.random = () => 0.9;
        window.ws = connect(undefined, { baseDelay: 60_000, maxDelay: 60_000 });
        await ws.request("close", { code: 1012 }).catch(() => {});
        await until(() => ws.status === "waiting");
        """
    )
    await site.page.context.set_offline(True)
    await site.page.context.set_offline(False)
    assert await site.run("return ws.request('echo', 1)") == 1


async def test_a_page_kept_for_the_back_button_waits_until_it_is_shown(site: Site) -> None:
    statuses = await site.run(
        """
        Math.random = () => 0.9;
        const ws = connect(undefined, { baseDelay: 60_000, maxDelay: 60_000 });
        await ws.join("a");
        const statuses = [];
        for (const [type, persisted] of [["hide", false], ["hide", true], ["show", false], ["show", true]]) {
            dispatchEvent(new PageTransitionEvent(`page${type}`, { persisted }));
            statuses.push(ws.status);
        }
        await ws.request("echo");
        return statuses;
        """
    )
    assert statuses == ["open", "waiting", "waiting", "connecting"]
    assert site.received == ["1:join a", "2:join a", "2:echo"]


async def test_close_leaves_nothing_behind_whatever_the_status(site: Site, wire: str) -> None:
    results = await site.run(
        """
        const results = [];
        for (const [status, url] of Object.entries(argument)) {
            const ws = connect(url, { baseDelay: 60_000 });
            await until(() => ws.status === status);
            const log = [];
            ws.on("status", (status, { code, reason }) => log.push(`${status} ${code} ${reason}`));
            ws.send("echo", 1);
            const pending = [outcome(ws.request("hang")), outcome(ws.join("a"))];
            ws.close(4001, "enough");
            ws.close();
            results.push({
                log, status: ws.status, left: liveTimers().length + listeners, dropped: ws.dropped,
                codes: (await Promise.all(pending)).map(({ code }) => code),
                after: [ws.send("echo"), (await outcome(ws.request("echo"))).code, (await outcome(ws.join("b"))).code],
                rooms: ws.rooms,
            });
        }
        return results;
        """,
        {"open": "/ws", "connecting": wire + "/hang", "waiting": f"ws://127.0.0.1:{unused_port()}"},
    )
    for status, result in zip(("open", "connecting", "waiting"), results, strict=True):
        lost = 0 if status == "open" else 1
        assert result == {
            "log": ["closed 4001 enough"],
            "status": "closed",
            "left": 0,
            "dropped": lost,
            "codes": ["CLOSED", "CLOSED"],
            "after": [False, "CLOSED", "CLOSED"],
            "rooms": ["a", "b"],
        }
    site.console = [line for line in site.console if "closed before the connection is established" not in line]


async def test_a_handler_may_close_in_any_status(site: Site) -> None:
    timers = await site.run(
        """
        for (const unwanted of ["connecting", "open", "waiting"]) {
            const ws = connect(undefined, { baseDelay: 1 });
            await ws.request("echo");
            ws.on("status", (status) => status === unwanted && ws.close());
            if (unwanted === "open") ws.close(), ws.reconnect();
            else ws.send("close", { code: 1012 });
            await until(() => ws.status === "closed");
        }
        return liveTimers().filter((delay) => delay > 2);
        """
    )
    assert timers == []


async def test_a_closed_connection_can_be_opened_again(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect();
        await ws.join("a");
        ws.close();
        ws.reconnect();
        const reply = await ws.request("echo", 1);
        let error;
        try { ws.close(2000); } catch (caught) { error = caught.name; }
        ws.reconnect();  // of no effect while open
        return [reply, ws.rooms, error, ws.status, await ws.request("echo", 2)];
        """
    )
    assert result == [1, ["a"], "InvalidAccessError", "open", 2]
    assert site.received[:3] == ["1:join a", "2:join a", "2:echo 1"]


async def test_reconnect_ends_the_wait(site: Site) -> None:
    attempts = await site.run(
        """
        Math.random = () => 0.9;
        const ws = connect(undefined, { baseDelay: 60_000 });
        const attempts = [];
        ws.on("status", (status, { attempt }) => {
            if (status === "connecting") attempts.push(attempt);
            if (status === "waiting") ws.reconnect();
        });
        await outcome(ws.request("close", { code: 1012 }));
        await ws.request("echo");
        ws.close();
        ws.reconnect();
        await ws.request("echo");
        return attempts;
        """
    )
    assert attempts == [1, 0]


async def test_a_handshake_that_hangs_is_given_up_and_cannot_disturb_what_follows(site: Site, wire: str) -> None:
    result = await site.run(
        """
        const urls = [argument, "/ws"];
        const next = () => (urls.length > 1 ? urls.shift() : urls[0]);
        const log = [];
        const sockets = [];
        const Original = WebSocket;
        window.WebSocket = class extends Original { constructor(...args) { super(...args); sockets.push(this); } };
        const ws = connect(next, { connectTimeout: 500, baseDelay: 1 });
        ws.on("status", (status, { code, reason }) => log.push([status, reason]));
        await ws.request("echo", 1);
        await until(() => sockets[0].readyState === WebSocket.CLOSED);
        sockets[0].dispatchEvent(new CloseEvent("close", { code: 1000 }));
        return [log, ws.status, await ws.request("echo", 2)];
        """,
        wire + "/hang",
    )
    log, *rest = result
    late = [["waiting", "connecting took too long"], ["connecting", None]]
    assert log == [*late * (len(log) // 2), ["open", None]]  # on a busy machine, those that do not hang are late, too
    assert log[: len(late)] == late
    assert rest == ["open", 2]
    site.console = [line for line in site.console if "closed before the connection is established" not in line]


async def test_a_url_function_may_fail_or_hang(site: Site) -> None:
    result = await site.run(
        """
        let tooLate;
        const answers = [
            () => { throw new Error("no token"); },
            () => Promise.reject(new Error("no token yet")),
            () => new Promise((_, reject) => (tooLate = reject)),
            () => "http://[",
            () => "/ws",
        ];
        const next = () => (answers.length > 1 ? answers.shift() : answers[0])();
        const ws = connect(async () => next(), { connectTimeout: 500, baseDelay: 1 });
        const reasons = [];
        ws.on("status", (status, { reason }) => status === "waiting" && reasons.push(reason));
        let error;
        try { connect("http://["); } catch (caught) { error = caught.name; }
        await ws.request("echo", 1);
        tooLate(new Error("too late"));
        return [await ws.request("echo", 2), reasons, error];
        """
    )
    unusable = "there is no usable URL"
    answer, reasons, error = result
    assert (answer, error) == (2, "TypeError")
    late = "connecting took too long"
    assert reasons == [unusable, unusable, late, unusable, *[late] * (len(reasons) - 4)]  # on a busy machine, once more
    site.console = [line for line in site.console if "closed before the connection is established" not in line]
    await eventually(lambda: len(site.errors) == 4)
    site.errors.clear()


async def test_handlers_are_isolated_and_names_of_ours_do_not_collide(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect();
        const log = [];
        ws.on("tea", () => { throw new Error("thrown on purpose"); });
        const off = ws.on("tea", (data) => (log.push(data), off()));
        const handler = (data) => {
            log.push(`second ${data}`);
            ws.off("tea", handler);
            ws.on("tea", handler);
            ws.off("tea", last);
        };
        const last = () => log.push("taken off before its turn");
        ws.on("tea", handler);
        ws.on("tea", last);
        ws.on("status", (status) => log.push(status));
        ws.on("binary", () => log.push("never"));
        ws.on("*", (event, data) => log.push(`* ${event} ${data}`));
        await until(() => ws.status === "open");
        for (const [event, data] of [["tea", 1], ["status", 2], ["binary", 3], ["*", 4], ["reply", 5]]) {
            await ws.request("say", { event, data });
        }
        ws.off("tea", handler);
        ws.off("nothing", handler);
        await ws.request("say", { event: "tea", data: 6 });
        return log;
        """
    )
    assert result == ["open", 1, "second 1", "* tea 1", "* status 2", "* binary 3", "* * 4", "* reply 5", "* tea 6"]
    await eventually(lambda: site.errors == ["thrown on purpose", "thrown on purpose"])
    site.errors.clear()


async def test_binary_messages(site: Site) -> None:
    result = await site.run(
        """
        const ws = connect();
        const received = [];
        ws.on("binary", (data) => received.push(data instanceof ArrayBuffer, [...new Uint8Array(data)]));
        await ws.request("echo");
        ws.sendBytes(new Uint8Array([1, 2, 3]).buffer);
        ws.sendBytes(new Uint8Array([0, 4, 5, 0]).subarray(1, 3));
        ws.sendBytes(new Blob(["A"]));
        await until(() => received.length === 6);
        return received;
        """
    )
    assert result == [True, [3, 2, 1], True, [5, 4], True, [65]]


async def test_errors_without_a_request(site: Site) -> None:
    error = await site.run(
        """
        const ws = connect();
        ws.send("refuse");  // nobody listens yet
        await ws.request("echo");
        return new Promise((resolve) => (ws.on("error", resolve), ws.send("refuse")));
        """
    )
    assert error == {"code": "NO_TEA", "message": "the pot is empty", "pot": 7}
    await eventually(lambda: [line.split(":")[0] for line in site.console] == ["warning"])
    site.console.clear()


async def test_malformed_messages_are_ignored(site: Site, wire: str) -> None:
    result = await site.run(
        "return new Promise((resolve) => connect(argument).on('fine', resolve))", wire + "/malformed"
    )
    assert result == 1
    await eventually(lambda: len(site.console) == 4)
    assert all(line.startswith("warning: velocity: ignored") for line in site.console)
    site.console.clear()


# --- the chat


async def answers(address: Address, process: asyncio.subprocess.Process, within: float = 60) -> None:
    """Wait until the chat answers, on a machine that does other things."""
    async with asyncio.timeout(within), httpx.AsyncClient() as http:
        while True:
            assert process.returncode is None
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(address.http + "/healthz")).is_success:
                    return
            await asyncio.sleep(0.02)  # the pause between two looks


class Chat:
    """The example as a process of its own, which can be stopped and started again at the same address."""

    def __init__(self, directory: Path) -> None:
        self.address = Address(kept_port())
        self.log = directory / "chat.log"
        self._directory = directory
        self._secret = secrets.token_hex()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
        environment = {"PYTHONPATH": str(ROOT), "CHAT_SECRET": self._secret, "WS_PORT": str(self.address.port)}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "examples.chat"),
                cwd=self._directory,
                env={**inherited, **environment},
                stdout=log,
                stderr=log,
            )
        await answers(self.address, self._process)

    async def stop(self) -> None:
        """End it as an init system would; it must leave in good order."""
        if self._process is not None:
            self._process.terminate()
            async with asyncio.timeout(3 * DEADLINE):
                assert await self._process.wait() == 0, self.log.read_text()
            self._process = None


class Tab:
    """Somebody with the chat open, in a browser profile of their own."""

    def __init__(self, page: Page, address: Address) -> None:
        self.page = page
        self.address = address
        self.problems: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.problems.append(error.message))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not EXPECTED_ERROR.search(message.text):
            self.problems.append(message.text)

    async def log_in(self, name: str, room: str | None = None) -> None:
        """Open the page, enter, and go to a room."""
        await self.page.goto(self.address.http)
        await self.page.get_by_label("Your name").fill(name)
        await self.page.keyboard.press("Enter")
        await self.is_status("Connected")
        if room is not None:
            await self.page.get_by_label("Join or create a room").fill(room)
            await self.page.keyboard.press("Enter")
            await expect(self.page.get_by_role("heading", level=1)).to_have_text(room)

    async def is_status(self, text: str, within: float = DEADLINE) -> None:
        await expect(self.page.locator("#status-text")).to_have_text(text, timeout=1000 * within)

    async def worker(self) -> int:
        """The process that has its connection."""
        await expect(self.page.locator("#process")).to_contain_text("kill")
        return int((await self.page.locator("#process").inner_text()).rpartition(" ")[2])

    async def say(self, text: str) -> None:
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    async def sees(self, *lines: str) -> None:
        """Wait for lines of the present room."""
        for line in lines:
            await expect(self.page.get_by_role("log").get_by_text(line, exact=True).last).to_be_visible()

    async def sees_people(self, *names: str) -> None:
        await expect(self.page.locator("#people .name")).to_have_text(list(names))

    async def photograph(self, name: str) -> None:
        ARTIFACTS.mkdir(exist_ok=True)
        await self.page.screenshot(path=ARTIFACTS / f"{name}.png")


@pytest_asyncio.fixture(loop_scope="session")
async def chat(tmp_path: Path) -> AsyncIterator[Chat]:
    chat = Chat(tmp_path)
    await chat.start()
    yield chat
    await chat.stop()


@asynccontextmanager
async def tab_of(browser: Browser, chat: Chat | Address, **options: Any) -> AsyncIterator[Tab]:
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    tab = Tab(await context.new_page(), chat.address if isinstance(chat, Chat) else chat)
    yield tab
    await context.close()
    assert tab.problems == []


async def test_two_tabs_and_another_client_chat_and_survive_a_restart(browser: Browser, chat: Chat) -> None:
    async with tab_of(browser, chat) as ada:
        await ada.page.goto(chat.address.http)
        await ada.photograph("chat-login")
        await ada.log_in("Ada", "engines")
        async with tab_of(browser, chat) as grace:
            await grace.log_in("Grace", "engines")
            await ada.sees("You joined", "Grace joined")
            await ada.say("Hello Grace")
            await grace.sees("Hello Grace")
            await grace.say("<b id=evil>Hello</b> Ada")
            await ada.sees("<b id=evil>Hello</b> Ada")
            assert await ada.page.locator("#evil").count() == 0
            token = await a_third_client_joins_in(chat, ada, grace)
            await ada.sees("Robot left")
            await ada.sees_people("Ada", "Grace")
            await ada.photograph("chat")
        await ada.sees("Grace left")
        await ada.sees_people("Ada")

        mobile = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
        async with tab_of(browser, chat, color_scheme="dark", **mobile) as grace:
            await grace.log_in("Grace")
            await grace.page.get_by_role("button", name="Rooms").click()
            await grace.page.locator("#rooms").get_by_role("button", name="engines").click()
            await ada.sees_people("Ada", "Grace")
            await chat.stop()
            await ada.is_status("Reconnecting")
            await grace.is_status("Reconnecting")
            await expect(ada.page.locator("#countdown")).to_contain_text("in ")
            await ada.say("Are you still there?")
            await ada.photograph("chat-reconnecting")
            await chat.start()
            for tab in (ada, grace):  # neither sees the other before both are back, after pauses of up to 30 s each
                await tab.is_status("Connected", within=30 + DEADLINE)
            for tab in (ada, grace):
                await tab.sees("Connected again")
                await tab.sees("Something said here may have been missed: the server remembers it no more")
                await tab.sees_people("Ada", "Grace")
            await ada.sees("Are you still there?")
            await ada.say("Here we are again")
            await grace.sees("Here we are again")
            await grace.say("By ourselves")
            await ada.sees("By ourselves")
            await grace.photograph("chat-mobile")
    assert token not in chat.log.read_text()


async def a_third_client_joins_in(chat: Chat, ada: Tab, grace: Tab) -> str:
    """The same with a library that is not ours; the token it used."""
    async with httpx.AsyncClient(base_url=chat.address.http) as http:
        token: str = (await http.post("/login", json={"name": "Robot"})).json()["token"]
        async with chat.address.connect(f"/ws?token={token}") as robot:
            await robot.expect("rooms")
            await robot.expect("node")
            await robot.send("chat", {"text": "too early"}, id=1, room="chat:engines")
            assert (await robot.expect("error"))["code"] == "FORBIDDEN"
            await robot.send("join", {"room": "chat: engines"}, id=2)
            assert (await robot.expect("error"))["code"] == "FORBIDDEN"
            await robot.send("join", {"room": "chat:engines"}, id=3)
            assert (await robot.expect("came"))["name"] == "Robot"
            assert [p["name"] for p in (await robot.expect("people"))["people"]] == ["Ada", "Grace", "Robot"]
            assert (await robot.expect("room")) == {"room": "engines", "people": 3}
            answer = await robot.expect("reply")
            assert answer == {"room": "chat:engines", "at": answer["at"]}
            await robot.send("chat", {"text": "x" * 501}, id=4, room="chat:engines")
            assert (await robot.expect("error"))["code"] == "INVALID_DATA"
            await robot.send("chat", {"text": "beep"}, room="chat:engines")
            assert (await robot.expect("chat"))["name"] == "Robot"
            await ada.sees("beep")
            await grace.sees("beep")
            await ada.say("Who is that?")
            while (message := await robot.receive())["event"] != "chat":
                assert message["data"] == {"name": "Ada"}, "she is typing"
            assert message["data"]["text"] == "Who is that?"
            stats = (await http.get("/stats")).json()
        assert stats["connected_clients"] == 3
        assert stats["invalid"] == 2
    return token


async def test_what_was_said_while_a_page_was_away_is_marked_and_a_newcomer_gets_what_was_said_before(
    browser: Browser, chat: Chat
) -> None:
    async with network(chat.address.port) as between, tab_of(browser, chat) as ada, tab_of(browser, chat) as grace:
        ada.address = Address(between.port)
        await ada.log_in("Ada", "engines")
        await grace.log_in("Grace", "engines")
        await grace.say("Hello Ada")
        await ada.sees("Hello Ada")
        await lines_are_marked_that_were_said_without(ada, grace, between)
        async with tab_of(browser, chat) as robot:
            await robot.log_in("Robot", "engines")
            await robot.sees("Hello Ada", "three", "You joined")
            await expect(robot.page.locator("#log .message p")).to_have_text(
                ["Hello Ada", "one", "two", "three", "four"]
            )


async def lines_are_marked_that_were_said_without(ada: Tab, grace: Tab, between: Network) -> None:
    """Somebody is cut off, others go on to talk, and it comes back."""
    between.die()
    await between.close()
    await ada.is_status("Reconnecting")
    for text in ("one", "two", "three"):
        await grace.say(text)
        await grace.sees(text)
    between.live()
    await between.close()  # an attempt that was made meanwhile leads nowhere
    await ada.is_status("Connected", within=30 + DEADLINE)  # which is the longest pause between two attempts
    await ada.sees("3 new while you were away", "one", "two", "three")
    await grace.say("four")
    await ada.sees("four")
    lines = await ada.page.locator("#log > *").all_inner_texts()
    found = [next((word for word in MARKED if word in line), "") for line in lines]
    assert [word for word in found if word] == MARKED


MARKED = ["3 new while you were away", "one", "two", "three", "four"]


@pytest.mark.soak
async def test_a_page_on_a_worker_that_is_killed_gets_what_was_said_meanwhile(browser: Browser, tmp_path: Path) -> None:
    """Whichever worker: the one that runs the engine, too, as that keeps on disk what rooms remember."""
    port = kept_port()
    url = f"embedded://chat?store={tmp_path / 'store'}"
    environment = {**os.environ, "WS_PORT": str(port), "XDG_RUNTIME_DIR": str(tmp_path), "WS_BACKPLANE_URL": url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.cluster", cwd=ROOT, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        address = Address(port)
        await answers(address, process)
        async with network(port) as between, tab_of(browser, address) as ada, tab_of(browser, address) as grace:
            ada.address = Address(between.port)
            await ada.log_in("Ada", "engines")
            worker = await ada.worker()
            await grace.log_in("Grace", "engines")
            while await grace.worker() == worker:
                await grace.page.reload()
                await grace.is_status("Connected")
            await ada.sees_people("Ada", "Grace")
            between.die()
            os.kill(worker, signal.SIGKILL)
            await lines_are_marked_that_were_said_without(ada, grace, between)
            assert await ada.worker() != worker
    finally:
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 0


async def test_the_page_shows_a_lost_connection_and_the_rate_limit(browser: Browser, chat: Chat) -> None:
    async with tab_of(browser, chat) as tab:
        await tab.log_in("Ada")
        await expect(tab.page.locator("#figures dd").first).to_have_text("1")
        await tab.page.get_by_role("button", name="Drop my connection").click()
        await tab.sees("Connection lost (dropped, as you asked). Coming back by itself…", "Connected again")
        await tab.sees_people("Ada")
        await tab.page.get_by_role("button", name="Send 20 at once").click()
        await expect(tab.page.locator("#notices")).to_contain_text("Slow down")
        await expect(tab.page.get_by_role("log")).to_contain_text(
            re.compile(r"20 sent at once, \d+ of them over the rate")
        )
        await tab.page.get_by_role("button", name="Log out").click()
        await expect(tab.page.get_by_label("Your name")).to_be_visible()


async def test_a_token_that_is_not_valid_leads_back_to_the_login(browser: Browser, chat: Chat) -> None:
    async with tab_of(browser, chat) as tab:
        await tab.log_in("Ada")
        await tab.page.evaluate("sessionStorage.setItem('chat', JSON.stringify({ name: 'Ada', token: 'forged.1' }))")
        await tab.page.reload()
        await expect(tab.page.locator("#login-error")).to_contain_text("not valid any more")
        await tab.log_in("Ada")
        await tab.sees_people("Ada")


async def test_a_name_is_asked_for(chat: Chat) -> None:
    async with httpx.AsyncClient(base_url=chat.address.http) as http:
        for body in (b"", b"{}", b'{"name": "   "}', b'{"name": "%s"}' % (b"x" * 25)):
            assert (await http.post("/login", content=body)).status_code == 422


# --- a server that is being written

RELOADED = """
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from velocity_ws import Broker

app = FastAPI()
Broker().attach(app)

@app.get("/", response_class=HTMLResponse)
def page():
    return "<title>first</title>"
"""


async def test_a_page_comes_back_at_once_when_the_server_reloads(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(RELOADED)
    port = kept_port()
    async with serving_folder(tmp_path, "dev", port):
        page = await browser.new_page()
        try:
            await eventually(lambda: "startup complete" in (tmp_path / "log").read_text(), within=3 * DEADLINE)
            await page.goto(f"http://127.0.0.1:{port}/")
            await page.evaluate(
                """async () => {
                    const { connect } = await import("/ws/velocity.js");
                    window.told = [];
                    const ws = connect("/ws", { connectTimeout: 60_000 });
                    await new Promise((resolve) => ws.on("status", (status, { delay }) => {
                        told.push([status, status === "waiting" ? delay : performance.now()]);
                        if (status === "open") resolve();
                    }));
                    window.told.length = 0;
                }"""
            )
            (tmp_path / "main.py").write_text(RELOADED.replace("first", "second"))
            await page.wait_for_function("told.length >= 3", timeout=3000 * DEADLINE)
            (waiting, delay), (connecting, began), (opened, ended) = await page.evaluate("told")
            # One attempt: the parent listens all the time, so it waits for the new process.
            assert (waiting, connecting, opened) == ("waiting", "connecting", "open")
            assert delay <= 500
            assert ended - began < 3000 * DEADLINE
            assert "second" in await (await page.context.request.get(f"http://127.0.0.1:{port}/")).text()
        finally:
            await page.close()
