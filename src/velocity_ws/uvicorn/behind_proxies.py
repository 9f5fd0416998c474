"""Behind proxies: uvicorn's middleware for their headers, apart from what it would wait for. Knows no connection."""

from __future__ import annotations

import copy
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from velocity_ws.asgi.middleware import frameless

__all__ = ["READ", "split"]

READ = frozenset((b"x-forwarded-for", b"x-forwarded-proto"))
"""The headers that the middleware reads. Where a request has neither, it changes nothing, and is not called."""


def split(config: Config) -> tuple[ASGIApp | None, ASGIApp]:
    """What uvicorn calls for each connection, in two: the one that reads the headers of proxies, and the application.

    The middleware writes what those say into the scope, and then only waits for the application: 376 bytes, and two
    objects for the garbage collector, for as long as a client is connected. Called by itself, it waits for nothing.
    """
    app: Any = config.loaded_app
    if type(app) is not ProxyHeadersMiddleware:
        return None, frameless(app)
    proxies: Any = copy.copy(app)
    inner: Any = proxies.app
    proxies.app = _nothing
    return proxies, frameless(inner)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Nothing waits behind the middleware."""
