"""Dependencies: FastAPI's ``Depends`` in hooks and handlers, from the handshake to the last hook."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, ClassVar

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Path, Query, Security, WebSocket
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from starlette.requests import HTTPConnection, Request
from websockets.exceptions import InvalidStatus

from tests.support import DEADLINE, ServerKind, eventually, running, serve, settings
from velocity_ws import Broker, Client, ClientError, Close, EventRouter, Message, WebSocketApp, WebSocketMiddleware
from velocity_ws.uvicorn.server import not_found

KINDS: tuple[ServerKind, ...] = ("ours", "websockets-sansio")
kinds = pytest.mark.parametrize("kind", KINDS)


class Session:
    """What a database library gives: opened, used, closed."""

    opened: ClassVar[list[Session]] = []

    def __init__(self) -> None:
        self.log: list[str] = []
        self.opened.append(self)


@pytest.fixture(autouse=True)
def sessions() -> list[Session]:
    Session.opened = []
    return Session.opened


async def get_session() -> AsyncIterator[Session]:
    session = Session()
    try:
        yield session
        session.log.append("committed")
    except BaseException as error:
        session.log.append(f"rolled back: {type(error).__name__}")
        raise
    finally:
        session.log.append("closed")


def get_plain_session() -> Iterator[Session]:
    session = Session()
    session.log.append(threading.current_thread().name)
    try:
        yield session
        session.log.append("committed")
    except BaseException as error:
        session.log.append(f"rolled back: {type(error).__name__}")
        raise
    finally:
        session.log.append("closed")


Db = Annotated[Session, Depends(get_session)]


class Repository:
    def __init__(self, db: Db) -> None:
        self.db = db


class Paging:
    """An instance is a dependency with settings of its own."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    async def __call__(self, page: int = Query(1)) -> tuple[int, int]:
        return page, self.limit


@kinds
async def test_every_form_of_a_dependency_is_resolved_in_a_handler(kind: ServerKind) -> None:
    broker = Broker(settings())

    def plain(db: Session = Depends(get_session)) -> tuple[str, Session]:
        return threading.current_thread().name, db

    @broker.on("all")
    async def all_of_them(
        client: Client,
        data: int,
        db: Db,
        again: Annotated[Session, Depends(get_session)],
        repository: Annotated[Repository, Depends()],
        paging: Annotated[tuple[int, int], Depends(Paging(50))],
        of_plain: tuple[str, Session] = Depends(plain),
        fresh: Session = Depends(get_session, use_cache=False),
    ) -> dict[str, Any]:
        assert db is again is repository.db is of_plain[1]
        assert fresh is not db
        assert db.log == []
        return {"data": data, "paging": paging, "thread": of_plain[0]}

    async with running(broker, kind) as address, address.connect("/ws?page=3") as peer:
        answer = (await peer.request("all", "7"))["data"]
    assert answer["data"] == 7
    assert answer["paging"] == [3, 50]
    assert answer["thread"].startswith("velocity-ws hook")
    assert [session.log for session in Session.opened] == [["committed", "closed"]] * 2


async def test_a_dependency_may_ask_for_client_message_broker_and_the_handshake(sessions: list[Session]) -> None:
    broker = Broker(settings())

    async def context(
        client: Client,
        message: Message,
        broker: Broker,
        connection: HTTPConnection,
        request: Request,
        websocket: WebSocket,
        user_agent: Annotated[str, Header()],
        tenant: Annotated[str, Path()],
        theme: Annotated[str, Cookie()] = "light",
        q: str | None = None,
    ) -> dict[str, Any]:
        assert connection is client.request
        assert request.headers == websocket.headers == connection.headers
        assert broker.get_client(client.id) is client
        return {"message": [message.event, message.data], "agent": user_agent, "theme": theme, "q": q, "tenant": tenant}

    @broker.on("who")
    async def who(context: Annotated[dict[str, Any], Depends(context)]) -> dict[str, Any]:
        return context

    app = FastAPI()
    broker.attach(app, "/ws/{tenant}")
    headers = {"User-Agent": "tests", "Cookie": "theme=dark"}
    async with serve(app) as address:
        async with address.connect("/ws/acme?q=x", additional_headers=headers, user_agent_header=None) as peer:
            answer = await peer.request("who", [1])
    assert answer["data"] == {"message": ["who", [1]], "agent": "tests", "theme": "dark", "q": "x", "tenant": "acme"}


async def test_each_hook_may_have_dependencies(sessions: list[Session]) -> None:
    broker = Broker(settings())
    saw: list[str] = []

    async def named(db: Db) -> Callable[[str], None]:
        assert db.log == []
        return saw.append

    See = Annotated[Callable[[str], None], Depends(named)]  # noqa: N806

    @broker.authenticate
    async def authenticate(see: See) -> str:
        see("authenticate")
        return "ann"

    @broker.on_connect
    async def connect(client: Client, see: See) -> None:
        see("connect")
        await broker.join_room(client.id, "tea")

    @broker.on_join
    def join(c: Client, r: str, see: See) -> None:
        see(f"join {r}")

    @broker.on_leave
    async def leave(client: Client, room: str, *, see: See) -> None:
        see(f"leave {room}")

    @broker.on_message
    async def message(client: Client, message: Message, see: See) -> None:
        see(f"message {message.event}")

    @broker.on_binary
    async def binary(client: Client, data: bytes, see: See) -> None:
        see(f"binary {data!r}")

    @broker.on("fail")
    def fail(see: See) -> None:
        see("event")
        raise KeyError("it")

    @broker.on_error
    async def error(client: Client, error: BaseException, see: See) -> None:
        see(f"error {error!r}")

    @broker.on_disconnect
    async def disconnect(client: Client, close: Close, see: See) -> None:
        see(f"disconnect {close.code}")

    async with running(broker) as address:
        async with address.connect() as peer:
            await peer.request("fail")
            await peer.ws.send(b"b")
        await eventually(lambda: "disconnect 1000" in saw)
    assert saw == [
        *("authenticate", "connect", "join tea", "message fail", "event", "error KeyError('it')", "binary b'b'"),
        *("leave tea", "disconnect 1000"),
    ]
    assert all(session.log[-1] == "closed" for session in sessions)
    assert len(sessions) == len(saw) - 1, "a message has one session, for its guard and its handler"


@kinds
@pytest.mark.parametrize("get", [get_session, get_plain_session])
async def test_what_a_handler_raises_is_thrown_into_what_it_depends_on(kind: ServerKind, get: Any) -> None:
    broker = Broker(settings())

    @broker.on("refuse")
    async def refuse(db: Session = Depends(get)) -> None:
        raise ClientError("NO", "not now")

    @broker.on("fail")
    def fail(db: Session = Depends(get)) -> None:
        raise KeyError("it")

    async with running(broker, kind) as address, address.connect() as peer:
        assert (await peer.request("refuse"))["data"] == {"code": "NO", "message": "not now"}
        assert (await peer.request("fail"))["data"]["code"] == "INTERNAL_ERROR"
    assert [session.log[-2:] for session in Session.opened] == [
        ["rolled back: ClientError", "closed"],
        ["rolled back: KeyError", "closed"],
    ]
    assert broker.get_stats().errors == 1


async def test_a_commit_that_fails_is_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings())

    async def get() -> AsyncIterator[None]:
        yield
        raise OSError("disk full")

    @broker.on("save", concurrent=False)
    async def save(db: Annotated[None, Depends(get)]) -> str:
        return "saved"

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("save"))["data"]["code"] == "INTERNAL_ERROR"
        assert (await peer.request("save"))["data"]["code"] == "INTERNAL_ERROR"
    assert "disk full" in caplog.text
    assert broker.get_stats().errors == 2


async def test_a_dependency_that_swallows_an_exception_does_not_hide_it() -> None:
    broker = Broker(settings())

    async def get() -> AsyncIterator[None]:
        with contextlib.suppress(KeyError):
            yield

    @broker.on("fail")
    async def fail(db: Annotated[None, Depends(get)]) -> str:
        raise KeyError("it")

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("fail"))["data"]["code"] == "INTERNAL_ERROR"
    assert broker.get_stats().errors == 1


async def test_what_has_begun_is_ended_where_the_next_dependency_raises() -> None:
    broker = Broker(settings())

    def refuse(db: Db) -> None:
        raise ClientError("FORBIDDEN", "not yours")

    @broker.on("x")
    async def handler(db: Db, allowed: Annotated[None, Depends(refuse)]) -> None: ...

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("x"))["data"]["code"] == "FORBIDDEN"
    assert [session.log for session in Session.opened] == [["rolled back: ClientError", "closed"]]


async def test_invalid_data_opens_no_session(sessions: list[Session]) -> None:
    broker = Broker(settings())

    @broker.on("x")
    async def handler(client: Client, data: int, db: Db) -> None: ...

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("x", "seven"))["data"]["code"] == "INVALID_DATA"
    assert sessions == []


async def test_a_guard_that_closes_ends_its_dependencies(sessions: list[Session]) -> None:
    broker = Broker(settings())

    @broker.on_message
    async def guard(client: Client, db: Db) -> None:
        await client.disconnect(4000)

    async with running(broker) as address, address.connect() as peer:
        await peer.send("x")
        assert await peer.closed() == (4000, "")
    assert [session.log for session in sessions] == [["committed", "closed"]]


@pytest.mark.parametrize("get", [get_session, get_plain_session])
async def test_a_client_that_goes_away_has_its_dependencies_ended(
    monkeypatch: pytest.MonkeyPatch, get: Any, sessions: list[Session]
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.05)
    broker = Broker(settings())
    entered = asyncio.Event()

    @broker.on("hang")
    async def hang(db: Session = Depends(get)) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with running(broker) as address:
        async with address.connect() as peer:
            await peer.send("hang")
            await asyncio.wait_for(entered.wait(), DEADLINE)
        await eventually(lambda: sessions and sessions[0].log[-2:] == ["rolled back: CancelledError", "closed"])
        await eventually(lambda: broker.get_stats().connected_clients == 0)


async def test_a_plain_dependency_that_begins_after_its_client_has_gone_is_ended_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.05)
    broker = Broker(settings())
    entered, release = threading.Event(), threading.Event()
    log: list[str] = []

    def slow() -> Iterator[None]:
        entered.set()
        assert release.wait(DEADLINE)
        try:
            yield
        finally:
            log.append("closed")

    @broker.on("x")
    async def handler(db: Annotated[None, Depends(slow)]) -> None: ...

    async with running(broker) as address:
        async with address.connect() as other:
            async with address.connect() as peer:
                await peer.send("x")
                assert await asyncio.to_thread(entered.wait, DEADLINE)
                assert (await other.request("y"))["data"]["code"] == "UNKNOWN_EVENT", "nobody else waits for it"
            await eventually(lambda: len(broker.node.lifecycle.sessions) == 1)  # its handler was cancelled meanwhile
            release.set()
            await eventually(lambda: log == ["closed"])


async def test_an_end_that_waits_for_a_thread_comes_though_its_client_has_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.05)
    monkeypatch.setattr("velocity_ws.sessions.calls.MAX_THREADS", 1)
    monkeypatch.setattr("velocity_ws.sessions.calls.PATIENCE", 1000.0)
    broker = Broker(settings())
    is_ending, release, handled = threading.Event(), threading.Event(), asyncio.Event()
    kept: list[object] = []

    def get(client: Client) -> Iterator[None]:
        kept.append(client)
        try:
            yield
        finally:
            if client is kept[0]:
                is_ending.set()
                release.wait(DEADLINE)
            else:
                log.append("closed")
                raise OSError("cannot close")

    log: list[str] = []

    @broker.on("x")
    async def handler(db: Annotated[None, Depends(get)]) -> None:
        if len(kept) > 1:
            handled.set()

    async with running(broker) as address, address.connect() as first:
        await first.send("x")
        assert await asyncio.to_thread(is_ending.wait, DEADLINE)
        async with address.connect() as second:
            await second.send("x")
            await asyncio.wait_for(handled.wait(), DEADLINE)
        await eventually(lambda: len(broker.node.lifecycle.sessions) == 1)  # its handler was cancelled meanwhile
        assert log == []
        release.set()
        await eventually(lambda: log == ["closed"])
        await eventually(lambda: "cannot close" in caplog.text)
    gc.collect()
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1, errors
    assert "a dependency failed to end" in errors[0]


async def test_what_fails_to_end_after_a_cancellation_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.05)
    broker = Broker(settings())
    entered = asyncio.Event()

    async def get() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise OSError("cannot close")

    @broker.on("hang")
    async def hang(db: Annotated[None, Depends(get)]) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with running(broker) as address:
        async with address.connect() as peer:
            await peer.send("hang")
            await asyncio.wait_for(entered.wait(), DEADLINE)
        await eventually(lambda: "cannot close" in caplog.text)
    assert "a dependency failed to end" in caplog.text


async def test_a_concurrent_handler_has_dependencies_of_its_own(sessions: list[Session]) -> None:
    broker = Broker(settings())
    release = asyncio.Event()

    @broker.on_message
    async def guard(message: Message, db: Db) -> None: ...

    @broker.on("ask", concurrent=True)
    async def ask(db: Db) -> list[str]:
        await release.wait()
        return [*db.log]

    async with running(broker) as address, address.connect() as peer:
        await peer.send("ask", id=1)
        await eventually(lambda: len(sessions) == 2)
        assert [session.log for session in sessions] == [["committed", "closed"], []]
        release.set()
        assert (await peer.receive())["data"] == []
    assert [session.log for session in sessions] == [["committed", "closed"]] * 2


async def test_a_limit_of_fastapi_for_calls_at_once_is_kept_until_the_end() -> None:
    broker = Broker(settings())
    at_once: list[int] = []
    running_now = 0
    release = asyncio.Event()

    async def get() -> AsyncIterator[None]:
        nonlocal running_now
        running_now += 1
        at_once.append(running_now)
        yield
        running_now -= 1

    @broker.on("x", concurrent=True)
    async def handler(limited: Annotated[None, Depends(get, max_concurrency=2)]) -> None:
        await release.wait()

    async with running(broker) as address, address.connect() as peer:
        for number in range(4):
            await peer.send("x", id=number)
        await eventually(lambda: len(at_once) == 2)
        release.set()
        assert {(await peer.receive())["id"] for _ in range(4)} == {0, 1, 2, 3}
    assert at_once[:2] == [1, 2]
    assert max(at_once) == 2


# --- the handshake

bearer = OAuth2PasswordBearer("token")


async def current_user(
    scopes: SecurityScopes, token: Annotated[str, Depends(bearer)], session: Annotated[str | None, Cookie()] = None
) -> dict[str, Any]:
    return {"id": token, "scopes": scopes.scopes, "session": session}


@kinds
async def test_authenticate_is_written_as_in_fastapi(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def authenticate(user: Annotated[dict[str, Any], Security(current_user, scopes=["chat"])]) -> dict[str, Any]:
        return user

    @broker.on("me")
    async def me(client: Client) -> Any:
        return client.user

    async with running(broker, kind) as address:
        headers = {"Authorization": "Bearer ann", "Cookie": "session=s"}
        async with address.connect(additional_headers=headers) as peer:
            assert (await peer.request("me"))["data"] == {"id": "ann", "scopes": ["chat"], "session": "s"}
        with pytest.raises(InvalidStatus) as refused:
            async with address.connect():
                pass
        assert refused.value.response.status_code == 401


async def test_authenticate_takes_parameters_of_the_handshake_itself() -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def authenticate(
        request: HTTPConnection, token: Annotated[str, Query(min_length=3)], x_tenant: str = Header("none")
    ) -> str:
        return f"{token} {x_tenant} {request.query_params['token']}"

    @broker.on("me")
    async def me(client: Client) -> Any:
        return client.user

    async with running(broker) as address:
        async with address.connect("/ws?token=ann") as peer:
            assert (await peer.request("me"))["data"] == "ann none ann"
        with pytest.raises(InvalidStatus) as refused:
            async with address.connect("/ws?token=a"):
                pass
        assert refused.value.response.status_code == 422
    assert broker.get_stats().errors == 0


async def test_a_handler_whose_handshake_lacks_something_answers_invalid_data() -> None:
    broker = Broker(settings())

    async def need(x_tenant: Annotated[str, Header()]) -> str:
        return x_tenant

    @broker.on("x")
    async def handler(tenant: Annotated[str, Depends(need)]) -> None: ...

    async with running(broker) as address, address.connect() as peer:
        data = (await peer.request("x"))["data"]
    assert data["code"] == "INVALID_DATA"
    assert data["details"] == [{"loc": ["header", "x-tenant"], "msg": "Field required", "type": "missing"}]


# --- overrides


async def real() -> str:
    return "real"


async def outer(name: Annotated[str, Depends(real)]) -> str:
    return f"outer {name}"


@pytest.mark.parametrize("way", ["attach", "middleware", "mounted"])
async def test_dependency_overrides_of_the_application_are_read_at_each_call(way: str) -> None:
    broker = Broker(settings())

    @broker.on("x")
    async def handler(name: Annotated[str, Depends(outer)]) -> str:
        return name

    app = FastAPI()
    served: Any = app
    if way == "attach":
        broker.attach(app)
    elif way == "middleware":
        served = WebSocketMiddleware(app, broker)
    else:
        app.mount("/ws", WebSocketApp(broker))

    def fake(client: Client) -> str:
        return f"fake for {client.user_id}"

    async with broker, serve(served) as address, address.connect() as peer:
        assert (await peer.request("x"))["data"] == "outer real"
        app.dependency_overrides[real] = fake
        assert (await peer.request("x"))["data"] == "outer fake for None"
        app.dependency_overrides[outer] = lambda: "nothing"
        assert (await peer.request("x"))["data"] == "nothing"
        app.dependency_overrides.clear()
        assert (await peer.request("x"))["data"] == "outer real"


async def test_dependencies_work_in_routers_and_without_a_fastapi_application() -> None:
    broker, router = Broker(settings()), EventRouter()

    @router.on("x")
    async def handler(
        broker: Annotated[Broker, Depends(lambda: None)], same: Annotated[str, Depends(lambda: "x")]
    ) -> str:
        assert broker is None
        return same

    async def own(broker: Broker) -> str:
        return broker.node_id

    @router.on("node")
    async def node(node_id: Annotated[str, Depends(own)]) -> str:
        return node_id

    broker.include(router)
    async with serve(WebSocketMiddleware(not_found, broker)) as address, address.connect() as peer:
        assert (await peer.request("x"))["data"] == "x"
        assert (await peer.request("node"))["data"] == broker.node_id
