"""What uvicorn's middleware for the headers of proxies does is done; neither it nor ours is there afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config

from velocity_ws import Broker, Settings, WebSocketMiddleware
from velocity_ws.asgi.app import serve_client
from velocity_ws.uvicorn.behind_proxies import application


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
    found: list[tuple[Scope, Receive, Send]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append((scope, receive, send))

    own = scope(peer)
    await application(loaded(app))(own, receive, send)
    assert found == [(own, receive, send)]
    assert (own["client"][0], own["scheme"]) == (client, "wss" if client != peer else "ws")


async def test_only_the_application_waits() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    call: Any = application(loaded(app))(scope("127.0.0.1"), receive, send)
    assert call.cr_code is app.__code__
    call.close()


async def test_an_application_without_that_middleware_is_called_itself() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Never called."""

    assert application(loaded(app, proxy_headers=False)) is app


async def test_nothing_of_the_middleware_waits_for_a_client() -> None:
    middleware = WebSocketMiddleware(Starlette(), Broker(Settings(_env_file=None)))
    own = {**scope("127.0.0.1"), "path": "/ws", "root_path": ""}
    call: Any = application(loaded(middleware))(own, receive, send)
    assert call.cr_code is serve_client.__code__
    call.close()
