"""The two ways into an application that exists: WebSocketMiddleware around any ASGI app, attach for Starlette's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from velocity_ws.app import WebSocketApp
from velocity_ws.broker import Broker
from velocity_ws.browser import PAGES
from velocity_ws.errors import InvalidPathError

__all__ = ["WebSocketMiddleware", "attach"]

log = logging.getLogger("velocity_ws.app")


class WebSocketMiddleware:
    """Serves a broker beside any ASGI application: takes the WebSockets at ``settings.path``, and the browser client.

    Everything else goes to the application. The lifespan starts and stops the broker, also where the application
    has no lifespan of its own.
    """

    def __init__(self, app: ASGIApp, broker: Broker) -> None:
        self._app = app
        self._broker = broker
        self._websocket = WebSocketApp(broker)
        self._path = broker.settings.path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif _is_ours(scope, self._path):
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The application starts before the broker and stops after it, so that its resources are there for the hooks.
        asked = answered = False

        async def send_around(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"] == "lifespan.startup.complete":
                await self._broker.start()
            await send(message)

        async def receive_around() -> Message:
            nonlocal asked
            message = await receive()
            asked = True
            if message["type"] == "lifespan.shutdown":
                await self._broker.stop()
            return message

        try:
            await self._app(scope, receive_around, send_around)
        except Exception:
            if answered:
                raise
            log.debug("the application has no lifespan; only the broker's runs", exc_info=True)
        if not answered:
            if not asked:
                await receive()
            await send_around({"type": "lifespan.startup.complete"})
            await receive_around()
            await send({"type": "lifespan.shutdown.complete"})


class _BrokerRoute(BaseRoute):
    """A route that matches the endpoint with and without a slash at its end, and the browser client below it."""

    def __init__(self, path: str, app: WebSocketApp) -> None:
        self.path = path
        self.app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route takes this scope."""
        if scope["type"] in ("http", "websocket") and _is_ours(scope, self.path):
            return Match.FULL, {"endpoint": self.app}
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """It has no name to be found by."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        await self.app(scope, receive, send)


def attach(app: Starlette, broker: Broker, path: str | None = None) -> None:
    """Serve a broker in a Starlette or FastAPI application; see `Broker.attach`.

    The route goes before all others, so that a ``Mount("/")`` does not hide it. In a sub-application whose lifespan
    nobody runs, the first connection starts the broker.
    """
    if path is not None and not path.startswith("/"):
        raise InvalidPathError(f"a path starts with a slash, as in '/ws'; this one is {path!r}")
    app.router.routes.insert(0, _BrokerRoute(path or broker.settings.path, WebSocketApp(broker)))
    outer = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with outer(app) as state, broker:
            yield state

    app.router.lifespan_context = lifespan


def _is_ours(scope: Scope, path: str) -> bool:
    """Whether a scope is for an endpoint at a path, after ``root_path`` is taken off."""
    asked = _route_path(scope)
    base = path.rstrip("/")
    if scope["type"] == "websocket":
        return asked in (base, base + "/")
    return asked.startswith(base + "/") and asked[len(base) + 1 :] in PAGES


def _route_path(scope: Scope) -> str:
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path
