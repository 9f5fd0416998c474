"""Where an endpoint is found, in every way of mounting it: its path, its parameters, and the pages below it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx2 as httpx
import pytest
from fastapi import APIRouter, FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import InvalidStatus

import velocity_ws.asgi.pages
from tests.support import Address, ServerKind, eventually, serve, settings
from tests.support.engines import engine
from velocity_ws import (
    Broker,
    BrokerError,
    Client,
    InvalidPathError,
    Server,
    SettingsError,
    WebSocketApp,
    WebSocketMiddleware,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The `root_path` parameter is deprecated"
)  # FastAPI's, which many applications have

KEY = {"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", "sec-websocket-version": "13"}


def telling_broker(**values: Any) -> Broker:
    """A broker that tells each client where it came in."""
    broker = Broker(settings(**values))

    @broker.on_connect
    async def tell(client: Client) -> None:
        await client.send("parameters", {name: str(value) for name, value in client.request.path_params.items()})

    return broker


async def parameters_at(address: Address, path: str) -> Any:
    """What a client that connects there is told."""
    async with address.connect(path) as peer:
        return await peer.expect("parameters")


async def own_page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"the application's {request.scope['path']}")


# --- a proxy that passes no Upgrade on


async def test_a_handshake_without_upgrade_is_426_in_every_way_of_mounting(
    kind: ServerKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(velocity_ws.asgi.pages, "_has_warned", False)
    broker, beside = telling_broker(), telling_broker(path="/beside")
    sub, at_root = FastAPI(), Starlette()
    broker.attach(sub)
    broker.attach(at_root, "/")
    app = FastAPI(routes=[Route("/plain", own_page)])
    broker.attach(app)
    app.mount("/sub", sub)
    app.mount("/root", at_root)
    app.mount("/mounted", WebSocketApp(broker))
    app.mount("/nested", Starlette(routes=[Mount("/deep", WebSocketApp(broker))]))
    paths = ["/ws", "/sub/ws", "/root", "/mounted", "/nested/deep", "/beside"]
    async with (
        serve(WebSocketMiddleware(app, beside), kind) as address,
        httpx.AsyncClient(base_url=address.http) as http,
    ):
        plain = {path: (await http.get(path)).status_code for path in paths}
        assert plain == {
            "/ws": 404, "/sub/ws": 404, "/root": 307, "/mounted": 307, "/nested/deep": 307, "/beside": 404,
        }  # fmt: skip
        with caplog.at_level(logging.WARNING, "velocity_ws"), caplog.at_level(logging.INFO, "uvicorn.access"):
            for path in paths:
                for form in (path, path + "/"):
                    answer = await http.get(f"{form}?token=s3cret", headers=KEY)
                    assert (form, answer.status_code) == (form, 426)
                    assert answer.headers["upgrade"] == "websocket"
                    assert "Connection: Upgrade" in answer.text
        assert (await http.get("/plain", headers=KEY)).text == "the application's /plain"
        for path in paths:
            assert await parameters_at(address, path) == {}
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert "s3cret" not in "".join(caplog.messages)
    access = [record for record in caplog.records if record.name == "uvicorn.access"]
    assert len(access) == (0 if kind == "hypercorn" else 2 * len(paths))
    (warning,) = [record.getMessage() for record in caplog.records if record not in access]
    assert "Upgrade: websocket" in warning
    assert "a proxy in front has to pass on" in warning


async def test_server_answers_a_handshake_without_upgrade_with_426() -> None:
    async with (
        Server(telling_broker(port=0)) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http,
    ):
        assert [(await http.get(path, headers=KEY)).status_code for path in ("/ws", "/ws/", "/x")] == [426, 426, 404]
        assert (await http.get("/ws")).status_code == 404


async def test_a_server_that_takes_no_websockets_is_named_as_the_cause() -> None:
    headers = {**KEY, "upgrade": "websocket", "connection": "Upgrade"}
    app = WebSocketMiddleware(Starlette(), telling_broker())
    async with serve(app, cast("Any", "none")) as address, httpx.AsyncClient(base_url=address.http) as http:
        answer = await http.get("/ws", headers=headers)
        assert answer.status_code == 426
        assert "this server takes none" in answer.text


# --- at the root, beside an application's own routes


def attached(app: Starlette, broker: Broker) -> ASGIApp:
    broker.attach(app)
    return app


def around(app: Starlette, broker: Broker) -> ASGIApp:
    return WebSocketMiddleware(app, broker)


@pytest.mark.parametrize("mounted", [attached, around])
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
@pytest.mark.parametrize("path", ["/", "/{room:path}"])
async def test_at_the_root_the_applications_own_routes_come_first(
    mounted: Callable[[Starlette, Broker], ASGIApp], framework: type[Starlette], path: str
) -> None:
    app = framework()
    wrapped = mounted(app, telling_broker(path=path))
    for name in ("/", "/health", "/velocity.js", "/other"):
        app.routes.append(Route(name, own_page))
    async with serve(wrapped) as address, httpx.AsyncClient(base_url=address.http) as http:
        for name in ("/", "/health", "/velocity.js", "/other"):
            assert (await http.get(name)).text == f"the application's {name}"
        assert (await http.post("/health")).status_code == 405
        assert (await http.get("/velocity.d.ts")).text.startswith("/**")
        assert (await http.get("/missing")).status_code == 404
        assert await parameters_at(address, "/") == ({} if path == "/" else {"room": ""})
        assert (await http.get("/", headers=KEY)).status_code == 426


@pytest.mark.parametrize("mounted", [attached, around])
async def test_at_the_root_pages_are_served_where_the_application_has_none(
    mounted: Callable[[Starlette, Broker], ASGIApp], tmp_path: Path
) -> None:
    tmp_path.joinpath("index.html").write_text("hello")
    app = Starlette(routes=[Mount("/", StaticFiles(directory=tmp_path, html=True))])
    async with (
        serve(mounted(app, telling_broker(path="/")), "ours") as address,
        httpx.AsyncClient(base_url=address.http) as http,
    ):
        assert (await http.get("/")).text == "hello"
        assert (await http.get("/velocity.js")).headers["content-type"].startswith("text/javascript")
        assert (await http.get("/health")).json() == {"healthy": True}
        assert (await http.get("/velocity")).status_code == 404
        assert await parameters_at(address, "/") == {}


# --- behind a proxy that strips a prefix, or does not


@pytest.mark.parametrize("mounted", [attached, around])
@pytest.mark.parametrize("strips", [True, False])
async def test_fastapis_root_path_behind_a_proxy_that_strips_it_and_one_that_does_not(
    mounted: Callable[[Starlette, Broker], ASGIApp], strips: bool
) -> None:
    app = FastAPI(root_path="/api", routes=[Route("/items", own_page)], middleware=[Middleware(_Passing)])
    prefix = "" if strips else "/api"
    async with (
        serve(mounted(app, telling_broker()), "ours") as address,
        httpx.AsyncClient(base_url=address.http + prefix) as http,
    ):
        assert (await http.get("/items")).status_code == 200
        assert await parameters_at(address, prefix + "/ws") == {}
        assert await parameters_at(address, prefix + "/ws/") == {}
        assert (await http.get("/ws/velocity.js")).status_code == 200
        assert (await http.get("/ws", headers=KEY)).status_code == 426
        assert (await http.get("/ws")).status_code == 404


@pytest.mark.parametrize("mounted", [attached, around])
async def test_uvicorns_root_path_is_for_a_proxy_that_strips(
    mounted: Callable[[Starlette, Broker], ASGIApp],
) -> None:
    app = Starlette(routes=[Route("/items", own_page)])
    async with (
        serve(mounted(app, telling_broker()), "ours", root_path="/api") as address,
        httpx.AsyncClient(base_url=address.http) as http,
    ):
        assert await parameters_at(address, "/ws") == {}
        assert [(await http.get(path)).status_code for path in ("/items", "/ws/health")] == [200, 200]
        assert [(await http.get(path)).status_code for path in ("/api/items", "/api/ws/health")] == [404, 404]
        with pytest.raises(InvalidStatus):
            await parameters_at(address, "/api/ws")


async def test_a_path_that_names_the_prefix_itself_is_found_as_well() -> None:
    app = WebSocketMiddleware(FastAPI(root_path="/api"), telling_broker(path="/api/ws"))
    async with serve(app, "ours") as address, httpx.AsyncClient(base_url=address.http) as http:
        assert await parameters_at(address, "/api/ws") == {}
        assert (await http.get("/api/ws/health")).status_code == 200


class _Passing:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


# --- parameters


async def test_path_parameters_reach_the_client_in_every_way_of_mounting(kind: ServerKind) -> None:
    broker, beside = telling_broker(), telling_broker(path="/beside/{tenant}")
    sub, app = FastAPI(), FastAPI()
    broker.attach(sub, "/ws/{room:path}")
    broker.attach(app, "/ws/{tenant}")
    broker.attach(app, "/numbers/{number:int}/ws")
    app.mount("/of/{company}", sub)
    app.mount("/mounted/{tenant}", WebSocketApp(broker))
    async with (
        serve(WebSocketMiddleware(app, beside), kind) as address,
        httpx.AsyncClient(base_url=address.http) as http,
    ):
        for path, expected in {
            "/ws/acme": {"tenant": "acme"},
            "/ws/acme/": {"tenant": "acme"},
            "/ws/a%20b?x=1": {"tenant": "a b"},
            "/numbers/007/ws": {"number": "7"},
            "/of/us/ws/a/b": {"company": "us", "room": "a/b"},
            "/of/us/ws/a/b/": {"company": "us", "room": "a/b"},
            "/of/us/ws/": {"company": "us", "room": ""},
            "/mounted/acme": {"tenant": "acme"},
            "/beside/acme": {"tenant": "acme"},
            "/beside/acme/": {"tenant": "acme"},
        }.items():
            assert await parameters_at(address, path) == expected, path
        for path in ("/ws", "/ws/a/b", f"/numbers/{'9' * 5000}/ws", "/numbers/x/ws", "/numbers/1/ws%0A", "/beside/a/b"):
            with pytest.raises(InvalidStatus):
                await parameters_at(address, path)
        for path in ("/ws/acme", "/numbers/1/ws", "/of/us/ws/a/b", "/mounted/acme", "/beside/acme"):
            assert (await http.get(path + "/velocity.js")).status_code == 200, path
            assert (await http.get(path + "/health")).json() == {"healthy": True}, path
            assert (await http.get(path, headers=KEY)).status_code == 426, path
        assert (await http.get("/ws/acme/other")).status_code == 404
        await eventually(lambda: not broker.node.lifecycle.sessions)


@pytest.mark.parametrize("thing", [APIRouter(), Router(), WebSocketApp, None])
def test_what_is_no_application_is_refused_where_a_broker_is_attached(thing: Any) -> None:
    with pytest.raises(BrokerError, match="the FastAPI or Starlette application itself, and not "):
        telling_broker().attach(thing)


@pytest.mark.parametrize(
    "path", ["/ws/{room:nothing}", "/ws/{a}/{a}", "/ws/{room", "/ws/room}", "/ws/{}", "/ws/{1}", "/ws/{a-b}", "ws", ""]
)
def test_a_path_that_can_match_nothing_is_refused_where_it_is_given(path: str) -> None:
    with pytest.raises(InvalidPathError):
        telling_broker().attach(Starlette(), path)
    if path:
        with pytest.raises(SettingsError, match="WS_PATH"):
            settings(path=path)


# --- health


@pytest.fixture
def mounted_without_lifespan() -> tuple[Broker, list[str], ASGIApp]:
    """A broker that nobody starts, in each way that allows it, and where its health is asked for."""
    broker = Broker(settings())
    sub = Starlette()
    broker.attach(sub)
    routes = [Mount("/sub", sub), Mount("/mounted", WebSocketApp(broker))]
    return broker, ["/sub/ws/health", "/mounted/health"], Starlette(routes=routes)


@pytest.mark.parametrize("index", [0, 1])
async def test_asking_for_its_health_starts_a_broker_that_nobody_started(
    kind: ServerKind, mounted_without_lifespan: tuple[Broker, list[str], ASGIApp], index: int
) -> None:
    broker, paths, app = mounted_without_lifespan
    async with serve(app, kind) as address, httpx.AsyncClient(base_url=address.http) as http:
        assert not broker.is_running
        assert (await http.post(paths[index])).status_code == 405
        assert not broker.is_running
        answer = await http.get(paths[index])
        assert (answer.status_code, answer.json()) == (200, {"healthy": True})
        assert broker.is_running
    await broker.stop()


async def test_a_sub_application_is_ready_before_its_first_client_with_a_real_engine_too() -> None:
    async with engine("nats") as server:
        broker, sub = Broker(settings(backplane_url=server.url)), Starlette()
        broker.attach(sub)
        app = Starlette(routes=[Mount("/sub", sub)])
        async with serve(app, "ours") as address, httpx.AsyncClient(base_url=address.http, timeout=10) as http:
            answers = await asyncio.gather(*[http.get("/sub/ws/health") for _ in range(3)])
            assert 200 in [answer.status_code for answer in answers]  # who asks while it starts may hear that
            assert (await http.get("/sub/ws/health")).json() == {"healthy": True}
            assert (await broker.cluster_stats()).nodes.keys() == {broker.node_id}
        await broker.stop()


async def test_asking_for_its_health_starts_the_middlewares_broker_where_no_lifespan_runs() -> None:
    broker = telling_broker()
    async with (
        serve(WebSocketMiddleware(Starlette(), broker), lifespan="off") as address,
        httpx.AsyncClient(base_url=address.http) as http,
    ):
        assert (await http.head("/ws/health")).status_code == 200
    await broker.stop()


async def test_a_stopped_broker_stays_unhealthy_however_often_it_is_asked(
    mounted_without_lifespan: tuple[Broker, list[str], ASGIApp], caplog: pytest.LogCaptureFixture
) -> None:
    broker, (path, *_), app = mounted_without_lifespan
    async with serve(app, "ours") as address, httpx.AsyncClient(base_url=address.http) as http:
        assert (await http.get(path)).status_code == 200
        await broker.stop()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "velocity_ws"):
            answers = await asyncio.gather(*[http.get(path) for _ in range(5)])
        assert {answer.status_code for answer in answers} == {503}
        assert not broker.is_running
        assert [message for message in caplog.messages if "stopped" in message] == caplog.messages[:1]
        await broker.start()
        assert (await http.get(path)).status_code == 200
    await broker.stop()


async def test_a_broker_that_cannot_start_is_unhealthy_and_its_log_says_why(
    mounted_without_lifespan: tuple[Broker, list[str], ASGIApp],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, (path, *_), app = mounted_without_lifespan

    async def fail() -> None:
        raise BrokerError("the twin of it runs already")

    monkeypatch.setattr(broker.node.lifecycle, "start", fail)
    with caplog.at_level(logging.WARNING, "velocity_ws"):
        async with serve(app, "ours") as address, httpx.AsyncClient(base_url=address.http) as http:
            assert [(await http.get(path)).status_code for _ in range(2)] == [503, 503]
    assert [message for message in caplog.messages if "twin" in message] == ["not healthy: the twin of it runs already"]


async def test_many_ask_for_its_health_at_once_and_one_start_serves_them_all() -> None:
    broker = Broker(settings(backplane_url="redis://127.0.0.1:9/0"))  # where nothing listens
    sub = Starlette()
    broker.attach(sub)
    app = Starlette(routes=[Mount("/sub", sub)])
    async with serve(app, "ours") as address, httpx.AsyncClient(base_url=address.http, timeout=10) as http:
        answers = await asyncio.gather(*[http.get("/sub/ws/health") for _ in range(5)])
        assert [answer.status_code for answer in answers] == [503] * 5
        assert (await http.get("/sub/ws/health")).json() == {"healthy": False}
        assert broker.is_running
    await broker.stop()


# --- other hosts


async def test_litestars_mount_serves_the_endpoint_and_its_pages() -> None:
    broker = telling_broker()
    app = Litestar(
        [asgi("/realtime", is_mount=True, copy_scope=True)(WebSocketApp(broker))],
        on_startup=[broker.start],
        on_shutdown=[broker.stop],
        logging_config=None,
    )
    async with serve(cast("ASGIApp", app), "ours") as address, httpx.AsyncClient(base_url=address.http) as http:
        assert await parameters_at(address, "/realtime") == {}
        assert await parameters_at(address, "/realtime/") == {}
        assert (await http.get("/realtime/velocity.js")).headers["content-type"].startswith("text/javascript")
        assert (await http.get("/realtime/velocity.d.ts")).status_code == 200
        assert json.loads((await http.get("/realtime/health")).text) == {"healthy": True}
        assert (await http.get("/realtime")).status_code == 426
        assert (await http.get("/realtime", headers=KEY)).status_code == 426
        assert (await http.get("/realtime/other")).status_code == 404
