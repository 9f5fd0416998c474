"""Logins that end: what a client is told, how it renews its login, and what the handshake's answer carries."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import Response
from websockets.exceptions import InvalidStatus

from tests.support import Peer, ServerKind, eventually, running, settings
from tests.support.clocks import HandClock, looks_often
from velocity_ws import (
    Accept,
    Broker,
    Client,
    ClientError,
    EventRouter,
    HookError,
    InvalidExpiryError,
    LoginExpired,
    Message,
    Reject,
)
from velocity_ws.uvicorn import HTTPProtocol


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """The time of brokers in these tests, which passes by hand."""
    looks_often(monkeypatch)
    return HandClock()


def in_an_hour() -> datetime:
    """When most logins here end."""
    return datetime.now(UTC) + timedelta(hours=1)


class Token(BaseModel):
    """What a client renews its login with."""

    user: str
    hours: int = 1


def application(clock: Callable[[], float], **options: Any) -> Broker:
    """A broker whose clients are logged in for an hour, as the user that they ask for."""
    broker = Broker(settings(**options), clock=clock)

    @broker.authenticate
    async def authenticate(request: HTTPConnection) -> Accept | None:
        user = request.query_params.get("user")
        return None if user is None else Accept(user, expires_at=in_an_hour())

    @broker.on("echo")
    async def echo(client: Client, data: Any) -> Any:
        return [client.user_id, data]

    return broker


def renews(broker: Broker | EventRouter) -> None:
    """Have it renew logins for hours of a client's choice."""

    @broker.refresh
    async def refresh(client: Client, data: Token) -> Accept:
        assert client.user is not None
        return Accept(data.user, expires_at=datetime.now(UTC) + timedelta(hours=data.hours))


async def expires_in(peer: Peer) -> float:
    """What the next message, a ``session``, says."""
    data = await peer.expect("session")
    assert data.keys() == {"expires_in"}
    seconds: float = data["expires_in"]
    return seconds


async def test_who_does_not_renew_its_login_is_told_may_go_on_for_a_while_and_is_closed(
    kind: ServerKind, clock: HandClock
) -> None:
    broker = application(clock)
    closes: list[Any] = []

    @broker.on_disconnect
    async def gone(client: Client, close: Any) -> None:
        closes.append((close.code, close.reason, close.by, client.user, client.expires_at is not None))

    async with running(broker, kind) as address, address.connect("/ws?user=ann") as peer, address.connect() as other:
        assert 3590 < await expires_in(peer) <= 3600
        (client,) = [client for client in broker.get_clients() if client.user]
        assert client.expires_at is not None
        assert abs(client.expires_at - in_an_hour()) < timedelta(seconds=30)
        clock.advance(3600)
        assert await peer.expect("session_expired") is None
        assert (await peer.request("echo", 1))["data"] == ["ann", 1]
        assert await broker.to_user("ann").send("news") == 1
        await peer.expect("news")
        assert client.expires_at < datetime.now(UTC) + timedelta(hours=1)
        clock.advance(10)
        assert await peer.closed() == (4401, "session expired")
        await eventually(lambda: closes)
        assert closes == [(4401, "session expired", "server", "ann", True)]
        assert (await other.request("echo", 1))["data"] == [None, 1], "who has no login hears nothing of all this"
        assert len(broker.node.logins) == 0


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_login_is_renewed_before_its_end_and_after_it(
    kind: ServerKind, clock: HandClock, is_over: bool
) -> None:
    broker = application(clock)
    renews(broker)
    async with running(broker, kind) as address, address.connect("/ws?user=ann") as peer:
        await expires_in(peer)
        clock.advance(3600 if is_over else 1800)
        if is_over:
            await peer.expect("session_expired")
        for number in range(2):
            await peer.send("refresh", {"user": "ann", "hours": 2}, id=number)
            told = await expires_in(peer)
            answer = await peer.receive()
            assert answer == {"event": "reply", "id": number, "data": {"expires_in": told}}
            assert 7190 < told <= 7200
        await peer.send("refresh", {"user": "ann", "hours": 3})  # which is no request
        assert await expires_in(peer) > 10_790
        clock.advance(3 * 3600 - 60)
        assert (await peer.request("echo", 2))["data"] == ["ann", 2]
        clock.advance(60)
        await peer.expect("session_expired")
        clock.advance(10)
        assert await peer.closed() == (4401, "session expired")


async def test_what_a_refresh_cannot_be_is_answered_and_changes_nothing(clock: HandClock) -> None:
    broker = application(clock, rate_limit=0)
    errors: list[Exception] = []

    @broker.on_error
    async def failed(client: Client, error: Exception) -> None:
        errors.append(error)

    @broker.refresh
    async def refresh(client: Client, data: Any) -> Any:
        match data:
            case "another":
                return Accept("bob", expires_at=in_an_hour())
            case "over":
                return Accept("ann", expires_at=time.time() - 1)
            case "reject":
                raise Reject("token revoked", status=401)
            case "reject with a code":
                raise Reject("not you", code=4403)
            case "own error":
                raise ClientError("LOCKED", "ask an admin", since=5)
            case "failure":
                raise LookupError("no such key")
            case "bad":
                return Accept("ann", expires_at="soon")  # type: ignore[arg-type]
            case "nobody":
                return Accept(None)
        return None

    async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
        await expires_in(peer)
        (client,) = broker.get_clients()
        before = (client.user, client.user_id, client.expires_at)
        for data, code, message in (
            ("another", "FORBIDDEN", "own user"),
            ("over", "UNAUTHORIZED", "expired"),
            ("reject", "UNAUTHORIZED", "token revoked"),
            ("reject with a code", "FORBIDDEN", "not you"),
            ("own error", "LOCKED", "ask an admin"),
            ("failure", "INTERNAL_ERROR", "failed"),
            ("bad", "INTERNAL_ERROR", "failed"),
            ("nobody", "UNAUTHORIZED", "not renewed"),
            (None, "UNAUTHORIZED", "not renewed"),
        ):
            answer = await peer.request("refresh", data)
            assert (answer["event"], answer["data"]["code"]) == ("error", code), data
            assert message in answer["data"]["message"]
            assert (client.user, client.user_id, client.expires_at) == before
        assert answer["id"] == 1
        assert [type(error) for error in errors] == [LookupError, InvalidExpiryError]
        async with address.connect() as stranger:
            answer = await stranger.request("refresh", "another")
            assert answer["data"]["code"] == "UNAUTHORIZED"
            assert "nobody is logged in" in answer["data"]["message"]
        clock.advance(3600)
        await peer.expect("session_expired")
        clock.advance(10)
        assert await peer.closed() == (4401, "session expired")


async def test_a_refresh_is_a_message_as_any_other(clock: HandClock) -> None:
    broker = application(clock, rate_limit=1, rate_burst=4)
    renews(broker)
    seen: list[str] = []

    @broker.on_message
    async def guard(client: Client, message: Message) -> None:
        seen.append(message.event)
        if message.id == "no":
            raise ClientError("MAINTENANCE")

    async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
        await expires_in(peer)
        assert (await peer.request("refresh", {"user": "ann"}, id="no"))["data"]["code"] == "MAINTENANCE"
        answer = await peer.request("refresh", {"user": 5})
        assert (answer["data"]["code"], answer["data"]["details"][0]["loc"]) == ("INVALID_DATA", ["user"])
        for _ in range(2):
            await peer.send("refresh", {"user": "ann"}, id=1)
            await expires_in(peer)
            await peer.expect("reply")
        assert (await peer.request("refresh", {"user": "ann"}))["event"] == "rate_limit_exceeded"
        assert seen == ["refresh"] * 4


async def test_without_the_hook_refresh_is_an_event_of_the_application(clock: HandClock) -> None:
    bare, own = application(clock), application(clock)

    @own.on("refresh")
    async def refresh(client: Client, data: Any) -> str:
        return "a page"

    for broker, answer in ((bare, "UNKNOWN_EVENT"), (own, "a page")):
        async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
            await expires_in(peer)
            data = (await peer.request("refresh"))["data"]
            assert (data if broker is own else data["code"]) == answer


def test_what_renews_logins_is_registered_once() -> None:
    first, second, router = Broker(settings()), Broker(settings()), EventRouter()
    renews(first)
    renews(router)
    second.on("refresh")(lambda client: None)
    for broker in (first, second):
        with pytest.raises(HookError, match=r"'refresh' is handled by .* already"):
            renews(broker)
        with pytest.raises(HookError, match=r"'refresh' is handled by .* already"):
            broker.include(router)
    with pytest.raises(HookError, match="already"):
        first.on("refresh")(lambda client: None)


async def test_a_router_may_have_the_hook_whatever_its_prefix(clock: HandClock) -> None:
    broker, router = application(clock), EventRouter()
    renews(router)
    broker.include(router, prefix="account.")
    async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
        await expires_in(peer)
        await peer.send("refresh", {"user": "ann"}, id=1)
        await expires_in(peer)
        await peer.expect("reply")


async def test_a_plain_user_renews_for_ever(clock: HandClock) -> None:
    broker = application(clock)

    @broker.refresh
    def refresh(client: Client) -> Any:
        return client.user

    async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
        await expires_in(peer)
        await peer.send("refresh", id=1)
        assert await peer.expect("session") == {}
        assert await peer.receive() == {"event": "reply", "id": 1, "data": {}}
        (client,) = broker.get_clients()
        assert client.expires_at is None
        assert len(broker.node.logins) == 0


async def test_who_asks_in_time_is_not_closed_while_the_hook_decides(clock: HandClock) -> None:
    broker = application(clock)
    asked, answer = asyncio.Event(), asyncio.Event()

    @broker.refresh
    async def refresh(client: Client) -> Accept:
        asked.set()
        await answer.wait()
        return Accept(client.user, expires_at=in_an_hour())

    async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
        await expires_in(peer)
        (session,) = broker.node.lifecycle.sessions
        clock.advance(3600)
        await peer.expect("session_expired")
        await peer.send("refresh", id=1)
        await asked.wait()
        clock.advance(10)
        await eventually(lambda: broker.node.logins._told[session])
        answer.set()
        await expires_in(peer)
        await peer.expect("reply")
        clock.advance(3599)
        assert (await peer.request("echo", 1))["data"] == ["ann", 1]


async def test_who_asks_in_time_is_not_closed_while_it_waits_behind_a_slow_handler(clock: HandClock) -> None:
    broker = application(clock)
    renews(broker)
    go = asyncio.Event()

    @broker.on("slow")
    async def slow() -> None:
        await go.wait()

    async with running(broker, "ours") as address:
        async with address.connect("/ws?user=ann") as asks, address.connect("/ws?user=bob") as does_not:
            for peer in (asks, does_not):
                await expires_in(peer)
                await peer.send("slow")
            clock.advance(3600)
            for peer in (asks, does_not):
                await peer.expect("session_expired")
                await peer.send("echo", "refresh", id=1)
            await asks.send("refresh", Token(user="ann").model_dump(), id=2)
            await eventually(lambda: broker.get_stats().messages_received == 5)
            clock.advance(10)
            assert await does_not.closed() == (4401, "session expired")
            go.set()
            await asks.expect("reply")
            await expires_in(asks)
            await asks.expect("reply")
            clock.advance(3599)
            assert (await asks.request("echo", 1))["data"] == ["ann", 1]


@pytest.mark.parametrize("meanwhile", ["bob", None])
async def test_a_refresh_does_not_undo_what_was_set_meanwhile(clock: HandClock, meanwhile: str | None) -> None:
    broker = application(clock)
    asked, answer = asyncio.Event(), asyncio.Event()

    @broker.refresh
    async def refresh(client: Client) -> Accept:
        user = client.user
        asked.set()
        await answer.wait()
        return Accept(user, expires_at=in_an_hour())

    async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
        await expires_in(peer)
        await peer.send("refresh", id=1)
        await asked.wait()
        (client,) = broker.get_clients()
        await client.set_user(meanwhile)
        assert await peer.expect("session") == {}
        answer.set()
        assert (await peer.receive())["data"]["code"] == "FORBIDDEN"
        assert (client.user, client.expires_at) == (meanwhile, None)


async def test_a_client_that_goes_while_its_login_is_renewed_leaves_nothing_behind(clock: HandClock) -> None:
    broker = application(clock)
    asked, answer = asyncio.Event(), asyncio.Event()

    @broker.refresh
    async def refresh(client: Client) -> Accept:
        asked.set()
        await answer.wait()
        return Accept(client.user, expires_at=in_an_hour())

    async with running(broker, "ours") as address:
        async with address.connect("/ws?user=ann") as peer:
            await peer.send("refresh", id=1)
            await asked.wait()
        await eventually(lambda: not broker.get_clients())
        answer.set()
        await eventually(lambda: not broker.node.lifecycle.sessions)
        logins = broker.node.logins
        assert (len(logins), logins._told, logins._renewing) == (0, {}, set())
        assert broker.get_stats().errors == 0


# --- set_user


async def test_a_login_may_end_that_came_after_connecting_and_another_is_told_of(
    kind: ServerKind, clock: HandClock
) -> None:
    broker = application(clock)

    @broker.on("login")
    async def login(client: Client, data: Any) -> str | None:
        user, seconds = data
        await client.set_user(user, None if seconds is None else time.time() + seconds)
        return client.user_id

    @broker.on("block")
    def block(client: Client, data: int) -> None:
        client.sync.set_user("cat", time.time() + data)
        client.sync.set_user("cat", expires_at=time.time() + data)

    async with running(broker, kind) as address, address.connect() as peer:
        assert (await peer.request("login", ["ann", None]))["data"] == "ann"  # and no word of a session
        await peer.send("login", ["ann", 60], id=1)
        assert 50 < await expires_in(peer) <= 60
        await peer.expect("reply")
        await peer.send("login", ["bob", 100], id=1)
        assert 90 < await expires_in(peer) <= 100
        await peer.expect("reply")
        clock.advance(60)
        assert (await peer.request("echo", 1))["data"] == ["bob", 1]
        answer = await peer.request("login", ["ann", -1])
        assert (answer["event"], answer["data"]["code"]) == ("error", "UNAUTHORIZED")
        assert [client.user for client in broker.get_clients()] == ["bob"]
        await peer.send("login", [None, None], id=1)
        assert await peer.expect("session") == {}
        await peer.expect("reply")
        assert len(broker.node.logins) == 0
        assert (await peer.request("login", [None, None]))["data"] is None  # as there is nothing to say any more
        await peer.send("block", 100, id=1)
        for _ in range(2):
            assert 90 < await expires_in(peer) <= 100
        await peer.expect("reply")
        clock.advance(100)
        await peer.expect("session_expired")
        await peer.send("login", ["dan", None], id=1)
        assert await peer.expect("session") == {}
        await peer.expect("reply")
        clock.advance(100)
        assert (await peer.request("echo", 1))["data"] == ["dan", 1]


async def test_what_set_user_refuses_leaves_the_login_as_it_was(clock: HandClock) -> None:
    broker = application(clock)
    async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
        await expires_in(peer)
        (client,) = broker.get_clients()
        before = client.expires_at
        for wrong in (datetime.now(), True, float("nan"), -5, "soon", 10**15):  # noqa: DTZ005 - what it is about
            with pytest.raises(InvalidExpiryError):
                await client.set_user("bob", wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidExpiryError, match="none without a user"):
            await client.set_user(None, in_an_hour())
        with pytest.raises(LoginExpired, match="UNAUTHORIZED"):
            await client.set_user("bob", time.time() - 1)
        for name in ("user", "expires_at"):
            with pytest.raises(AttributeError, match=r"set_user\(user, expires_at\)"):
                setattr(client, name, "bob")
        assert (client.user, client.expires_at) == ("ann", before)
        assert len(broker.node.logins) == 1


async def test_the_session_event_comes_when_on_connect_is_done(kind: ServerKind, clock: HandClock) -> None:
    broker = application(clock)

    @broker.on_connect
    async def slow(client: Client) -> None:
        await client.send("one")
        await asyncio.sleep(0.01)
        await client.send("two")

    @broker.on_connect
    async def logs_in(client: Client) -> None:
        if client.user is None:
            await client.set_user("guest", in_an_hour())

    async with running(broker, kind) as address:
        async with address.connect("/ws?user=ann") as peer:
            await peer.send("echo", 1, id=1)
            events = [(await peer.receive())["event"] for _ in range(4)]
            assert events == ["one", "two", "session", "reply"]
        async with address.connect() as peer:
            await peer.send("echo", 1, id=1)
            events = [(await peer.receive())["event"] for _ in range(4)]
            assert events == ["one", "two", "session", "reply"]


async def test_set_user_takes_what_authenticate_may_return(clock: HandClock) -> None:
    broker = application(clock)
    end = in_an_hour()
    async with running(broker, "ours") as address, address.connect() as peer:
        await peer.request("echo", 1)
        (client,) = broker.get_clients()
        await client.set_user(Accept({"id": 5}, expires_at=end, headers={"x": "1"}))
        assert (client.user, client.user_id, client.expires_at) == ({"id": 5}, "5", end)
        assert 3000 < await expires_in(peer) <= 3600
        await client.set_user(Accept("ann", expires_at=end), end - timedelta(minutes=30))
        assert (client.user, client.expires_at) == ("ann", end - timedelta(minutes=30))
        assert 1000 < await expires_in(peer) <= 1800
        await asyncio.to_thread(client.sync.set_user, Accept(None))
        assert (client.user, client.expires_at) == (None, None)
        assert await peer.expect("session") == {}


@pytest.mark.parametrize("kind", ["ours", "websockets-sansio"])
async def test_many_whose_logins_end_at_once_are_all_told_while_another_is_served(
    kind: ServerKind, clock: HandClock
) -> None:
    broker = application(clock)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(running(broker, kind))
        other = await stack.enter_async_context(address.connect())
        peers = [await stack.enter_async_context(address.connect("/ws?user=ann")) for _ in range(200)]
        for peer in peers:
            await expires_in(peer)
        clock.advance(3600)
        assert (await other.request("echo", 1))["data"] == [None, 1]
        for peer in peers:
            await peer.expect("session_expired")
        clock.advance(10)
        assert (await other.request("echo", 2))["data"] == [None, 2]
        assert {await peer.closed() for peer in peers} == {(4401, "session expired")}
        assert (await other.request("echo", 3))["data"] == [None, 3]


@pytest.mark.parametrize("way", ["refresh", "set_user", "sync"])
async def test_rooms_ask_again_whether_a_user_that_changed_may_be_in_them(kind: ServerKind, way: str) -> None:
    broker = Broker(settings())
    asked: list[str] = []

    @broker.authenticate
    async def authenticate() -> Accept:
        return Accept({"id": 1, "role": "editor"}, expires_at=in_an_hour())

    @broker.refresh
    async def refresh(client: Client, data: str) -> Accept:
        return Accept({"id": 1, "role": data}, expires_at=in_an_hour())

    @broker.on("become")
    async def become(client: Client, data: str) -> None:
        user = {"id": 1, "role": data}
        if way == "sync":
            await asyncio.to_thread(client.sync.set_user, user, in_an_hour())
        else:
            await client.set_user(user, in_an_hour())
        assert ("doc:7" in client.rooms) is (data != "none")
        await broker.to_room("doc:7").send("for members")

    documents = broker.rooms("doc:{number}")

    @documents.authorize
    async def may_read(client: Client, number: int) -> bool:
        await asyncio.sleep(0)
        asked.append(client.user["role"])
        return asked[-1] != "none"

    async with running(broker, kind) as address, address.connect() as peer:
        await expires_in(peer)
        await peer.request("join", {"room": "doc:7"})
        for role in ("viewer", "none"):
            await peer.send("refresh" if way == "refresh" else "become", role, id=2)
            events = [await peer.receive()]
            while events[-1].get("id") != 2:
                events.append(await peer.receive())
            named = [event["event"] for event in events]
            assert ("left" in named) is (role == "none")
            assert ("for members" in named) is (role == "viewer" and way != "refresh")
            assert named.count("session") == 1
        assert asked == ["editor", "viewer", "none"]
        assert broker.get_rooms() == []


# --- the handshake


async def test_who_comes_with_a_login_that_is_over_is_refused(
    kind: ServerKind, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(settings(), clock=clock)

    @broker.authenticate
    async def authenticate() -> Accept:
        return Accept("s3cret", expires_at=time.time() - 5)

    async with running(broker, kind) as address:
        with pytest.raises(InvalidStatus) as caught:
            async with address.connect():
                pass
        assert caught.value.response.status_code == 401
        assert broker.get_stats().rejected == 1
        assert len(broker.node.logins) == 0
    (line,) = [message for message in caplog.messages if "was over" in message]
    assert re.search(r"over [56]\.\d+ s ago", line)
    assert "s3cret" not in caplog.text


async def test_headers_and_cookies_go_out_with_the_answer(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def authenticate(request: HTTPConnection) -> Accept:
        response = Response()
        response.set_cookie("session", "abc", httponly=True)
        response.set_cookie("theme", "dark")
        return Accept("ann", headers=[*response.headers.items(), ("X-Trace", "7")])

    async with running(broker, kind) as address:
        for _ in range(2):
            async with address.connect() as peer:
                assert peer.ws.response is not None
                headers = peer.ws.response.headers
                cookies = sorted(headers.get_all("set-cookie"))
                assert [cookie.split(";")[0] for cookie in cookies] == ["session=abc", "theme=dark"]
                assert "HttpOnly" in cookies[0]
                assert headers["x-trace"] == "7"
                assert [value.lower() for value in headers.get_all("upgrade")] == ["websocket"]
        assert [client.user for client in broker.get_clients()][-1:] in ([], ["ann"])


@pytest.mark.parametrize("http", [HTTPProtocol, "httptools", "h11"])
async def test_they_do_so_with_each_class_that_reads_requests(http: Any) -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def authenticate() -> Accept:
        return Accept("ann", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    async with running(broker, "ours", http=http, headers=[("x-server", "yes")]) as address:
        async with address.connect() as peer:
            assert peer.ws.response is not None
            assert peer.ws.response.headers.get_all("set-cookie") == ["a=1", "b=2"]
            assert peer.ws.response.headers["x-server"] == "yes"
            await broker.to_user("ann").send("hello")
            await peer.expect("hello")


async def test_a_header_that_cannot_be_sent_is_reported_and_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings())
    errors: list[str] = []

    @broker.authenticate
    async def authenticate(request: HTTPConnection) -> Accept:
        return Accept("ann", headers={request.query_params["name"]: request.query_params["value"]})

    @broker.on_error
    async def failed(client: Client, error: Exception) -> None:
        errors.append(str(error))

    async with running(broker, "ours") as address:
        for query in ("name=x&value=a%0D%0Aset-cookie:stolen", "name=sec-websocket-protocol&value=v2"):
            with pytest.raises(InvalidStatus) as caught:
                async with address.connect(f"/ws?{query}"):
                    pass
            assert caught.value.response.status_code == 500
            assert "set-cookie" not in caught.value.response.headers
    assert ["break out" in errors[0], "belongs to the handshake" in errors[1]] == [True, True]


@pytest.mark.parametrize(
    ("offered", "listed", "wanted", "selected"),
    [
        (["v1", "v2"], "", "v2", "v2"),
        (["v1", "v2"], "v1", "v2", "v1"),  # what WS_SUBPROTOCOLS has comes first
        (["v1", "v2"], "v3", "v2", "v2"),
        (["v1"], "", "v2", None),  # not offered, and so not sent
        (None, "", "v2", None),
        (["v1"], "", None, None),
    ],
)
async def test_a_subprotocol_of_accept_is_the_second_choice(
    kind: ServerKind, offered: Any, listed: str, wanted: str | None, selected: str | None
) -> None:
    broker = Broker(settings(subprotocols=listed))

    @broker.authenticate
    async def authenticate() -> Accept:
        return Accept("ann", subprotocol=wanted)

    @broker.on_connect
    async def tell(client: Client) -> None:
        await client.send("you", client.subprotocol)

    async with running(broker, kind) as address, address.connect(subprotocols=offered) as peer:
        assert peer.ws.subprotocol == selected
        assert await peer.expect("you") == selected


async def test_of_several_hooks_the_last_that_is_not_none_counts_whole() -> None:
    broker = Broker(settings())
    results: list[Any] = []

    @broker.authenticate
    async def first() -> Any:
        return results[0]

    @broker.authenticate
    async def second() -> Any:
        return results[1]

    async with running(broker, "ours") as address:
        for one, other, user, has_end, header in (
            (Accept("ann", in_an_hour(), headers={"x": "1"}), None, "ann", True, "1"),
            (Accept("ann", in_an_hour(), headers={"x": "1"}), "bob", "bob", False, None),
            ("ann", Accept("bob", headers={"x": "2"}), "bob", False, "2"),
            ("ann", Accept(None, headers={"x": "3"}), None, False, "3"),
        ):
            results[:] = [one, other]
            async with address.connect() as peer:
                (client,) = broker.get_clients()
                assert (client.user, client.user_id, client.expires_at is not None) == (user, user, has_end)
                assert peer.ws.response is not None
                assert peer.ws.response.headers.get("x") == header
            await eventually(lambda: not broker.get_clients())


async def test_a_broker_that_stops_leaves_no_timer_and_can_start_again(clock: HandClock) -> None:
    broker = application(clock)
    for _ in range(2):
        async with running(broker, "ours") as address, address.connect("/ws?user=ann") as peer:
            await expires_in(peer)
            schedule = broker.node.logins._schedule
            assert schedule is not None
        assert broker.node.logins._schedule is None
        assert (len(schedule), schedule._timer) == (0, None)
