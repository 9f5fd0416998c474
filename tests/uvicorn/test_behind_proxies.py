"""What uvicorn's middleware for the headers of proxies does is done; neither it nor ours is there afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from velocity_ws import Broker, Settings, WebSocketMiddleware
from velocity_ws.asgi.app import serve_client
from velocity_ws.uvicorn.behind_proxies import READ, split


def scope(client: str) -> Scope:
    """Of a connection by way of a proxy."""
    headers = [(b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-proto", b"https")]
    return {"type": "websocket", "scheme": "ws", "client": (client, 5000), "headers": headers}


async def receive() -> Any:
    """Nothing is received."""


async def send(message: Any) -> None:
    """Nothing is sent."""


def loaded(app: Any, **options: Any) -> Config:
    """uvicorn's, as its server has it."""
    config = Config(app, log_config=None, **options)
    config.load()
    return config


@pytest.mark.parametrize(("peer", "client"), [("127.0.0.1", "203.0.113.7"), ("198.51.100.1", "198.51.100.1")])
async def test_a_trusted_proxy_names_the_client(peer: str, client: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it is called apart")

    proxies, application = split(loaded(app))
    assert proxies is not None
    own = scope(peer)
    await proxies(own, receive, send)
    assert (own["client"][0], own["scheme"]) == (client, "wss" if client != peer else "ws")
    assert application is app


def test_uvicorns_middleware_reads_no_other_header() -> None:
    """Without these it changes nothing, so that it is not called: a release that reads more is seen here."""
    constants = ProxyHeadersMiddleware.__call__.__code__.co_consts
    names = {each.lower() for each in constants if isinstance(each, bytes) and len(each) > len(b", ")}
    assert names == READ


async def test_an_application_without_that_middleware_is_called_itself() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Never called."""

    assert split(loaded(app, proxy_headers=False)) == (None, app)


async def test_nothing_of_our_middleware_waits_for_a_client() -> None:
    middleware = WebSocketMiddleware(Starlette(), Broker(Settings(_env_file=None)))
    own = {**scope("127.0.0.1"), "path": "/ws", "root_path": ""}
    call: Any = split(loaded(middleware))[1](own, receive, send)
    assert call.cr_code is serve_client.__code__
    call.close()
