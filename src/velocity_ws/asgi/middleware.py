"""Middleware: a broker beside an application's own routes, by a middleware, or by ``attach`` for Starlette's routers.

Knows paths and lifespans, and nothing of connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, NoMatchFound, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from velocity_ws.asgi.app import STREAM, Endpoint, WebSocketApp, serving, start_and_say
from velocity_ws.asgi.pages import is_handshake, is_page, route_path
from velocity_ws.broker.broker import Broker
from velocity_ws.errors import BrokerError, InvalidPathError
from velocity_ws.logs import get_logger
from velocity_ws.paths import EndpointPath

__all__ = ["WebSocketMiddleware", "attach", "frameless"]

log = get_logger("velocity_ws.asgi")


class WebSocketMiddleware:
    """Serves a broker beside any ASGI application: takes the WebSockets at ``settings.path``, and the browser client.

    Everything else goes to the application. The lifespan starts and stops the broker, also where the application
    has no lifespan of its own.

    The path is looked for where the application's own routes are: behind the server's ``root_path``, and behind
    FastAPI's, which a proxy may strip or not.
    """

    def __init__(self, app: ASGIApp, broker: Broker) -> None:
        self._app = app
        self._broker = broker
        self._endpoint = Endpoint(broker)
        self._path = EndpointPath(broker.settings.path)
        self._root_path = next((app.root_path.rstrip("/") for app in _inside(app) if _has_root_path(app)), "")
        broker.surroundings.apps.extend(_inside(app))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send)

    def _serve(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """What a call awaits. It is no coroutine, whose frame would be there for as long as a client is connected."""
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        own = _match(scope, self._path)
        if own is None and self._root_path and not scope.get("root_path"):
            root = {"root_path": self._root_path}
            behind = _match({**scope, **root}, self._path)
            own = None if behind is None else {**behind, **root}
        if own is None:
            return self._app(scope, receive, send)
        if self._path.is_wide and _may_be_the_applications(scope):
            return _serve_if_missing(self._endpoint, self._app, {**scope, **own}, scope, receive, send)
        scope.update(own)  # no copy, which would be kept for as long as the connection is
        return serving(self._endpoint, scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The application starts before the broker and stops after it, so that its resources are there for the hooks.
        asked = answered = failed = False

        async def send_around(message: Message) -> None:
            nonlocal answered, failed
            answered = True
            if message["type"] == "lifespan.startup.complete":
                failed = not await start_and_say(self._broker, send)
            elif not failed:
                await send(message)

        async def receive_around() -> Message:
            nonlocal asked
            # The server does not come back to one that has failed, whose application has begun already.
            message = {"type": "lifespan.shutdown"} if failed else await receive()
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
            await start_and_say(self._broker, send)
            await receive_around()
            await send({"type": "lifespan.shutdown.complete"})


def frameless(app: ASGIApp) -> ASGIApp:
    """What to await in place of a call of an application, for a server: the same, where it can be, without its frame.

    That of a call of `WebSocketMiddleware` would be there for as long as a client is connected.
    """
    return app._serve if type(app) is WebSocketMiddleware else app


class _BrokerRoute(BaseRoute):
    """A route that matches the endpoint with and without a slash at its end, and the browser client below it."""

    def __init__(self, path: str, app: Endpoint, router: Router) -> None:
        self.path = path
        self.app = app
        self._path = EndpointPath(path)
        self.form = self._path.form
        self._router = router

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route takes this scope."""
        own = _match(scope, self._path)
        return (Match.NONE, {}) if own is None else (Match.FULL, {**own, "endpoint": self.app})

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Find nothing, as it has no name.

        Raises:
            NoMatchFound: always.
        """
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what matched: the endpoint, or on a wide path first what the application has there."""
        if not self._path.is_wide or not _may_be_the_applications(scope):
            await self.app(scope, receive, send)
            return
        others = Router(
            [route for route in self._router.routes if route is not self],
            redirect_slashes=self._router.redirect_slashes,
        )
        await _serve_if_missing(self.app, others, scope, scope, receive, send)


def attach(app: Starlette, broker: Broker, path: str | None = None) -> None:
    """Serve a broker in a Starlette or FastAPI application; see `Broker.attach`.

    The route goes behind those of brokers that were attached earlier, and before all others, so that a ``Mount("/")``
    does not hide it. In a sub-application the server runs no lifespan, so the first connection starts the broker.
    """
    if not isinstance(getattr(app, "router", None), Router):
        raise BrokerError(
            f"attach() takes the FastAPI or Starlette application itself, and not {app!r:.80}, in which no broker "
            "would be started"
        )
    path = broker.settings.path if path is None else path
    # At its root an application may itself be mounted, and looked for without a slash.
    route = _BrokerRoute(path, WebSocketApp(broker) if path == "/" else Endpoint(broker), app.router)
    routes = app.router.routes
    earlier = [each for each in routes if isinstance(each, _BrokerRoute)]
    for each in earlier:
        if each.form == route.form:
            raise InvalidPathError(
                f"a broker is attached at {each.path!r} already, which would get all that is meant for this one: give "
                "this one a path of its own, as in attach(app, path='/internal'), or register its hooks on the other"
            )
    routes.insert(routes.index(earlier[-1]) + 1 if earlier else 0, route)
    outer = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with outer(app) as state, broker:
            yield state

    app.router.lifespan_context = lifespan


def _match(scope: Scope, path: EndpointPath) -> Scope | None:
    """What the scope of an endpoint has of its own, if a request is for it or for what is below it."""
    if scope["type"] not in ("http", "websocket"):
        return None
    own: Scope = {}
    asked = route_path(scope)
    parameters = path.match(asked)
    if parameters is None or not (scope["type"] == "websocket" or is_handshake(scope)):
        below = path.match_below(asked) if scope["type"] == "http" else None
        if below is not None and is_page(below[1]):
            parameters = below[0]
        elif scope["type"] == "http" and (of_stream := path.match_stream(asked)) is not None:
            parameters = of_stream[0]
            own[STREAM] = of_stream[1]
        else:
            return None
    if parameters:
        own["path_params"] = {**scope.get("path_params", {}), **parameters}
    return own


def _may_be_the_applications(scope: Scope) -> bool:
    """Whether a request below a wide path may be for a route of the application: its ``/health``."""
    return scope["type"] == "http" and not is_handshake(scope)


async def _serve_if_missing(
    endpoint: Endpoint, app: ASGIApp, own: Scope, scope: Scope, receive: Receive, send: Send
) -> None:
    """Let the application answer, and the endpoint where the application has nothing at that path."""
    is_missing = False

    async def watch(message: Message) -> None:
        nonlocal is_missing
        if message["type"] == "http.response.start":
            is_missing = message["status"] == 404
        if not is_missing:
            await send(message)

    try:
        await app(dict(scope), receive, watch)
    except HTTPException as error:  # within Starlette's router nobody has made a response of it yet
        if error.status_code != 404:
            raise
        is_missing = True
    if is_missing:
        await endpoint(own, receive, send)


def _inside(app: Any, depth: int = 8) -> Iterator[Any]:
    """An application, and those inside of it where it is middleware."""
    while app is not None and depth:
        yield app
        app, depth = getattr(app, "app", None), depth - 1


def _has_root_path(app: Any) -> bool:
    return isinstance(getattr(app, "root_path", None), str)  # which FastAPI was given
