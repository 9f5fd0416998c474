"""Pages: what a plain HTTP request to an endpoint, or below it, gets: browser client, health. Knows no broker."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Scope

from velocity_ws.logs import get_logger

__all__ = ["PAGES", "answer", "is_handshake", "route_path"]

STATIC_FILES = {"velocity.js": "text/javascript", "velocity.d.ts": "text/plain"}
"""Files of the browser client, served below the endpoint's path."""
HEALTH = "health"
PAGES = frozenset({*STATIC_FILES, HEALTH})
"""What is served below the endpoint's path."""

# A module is imported across origins only with the second: a page of WS_ALLOWED_ORIGINS may do that.
_STATIC_HEADERS = {"cache-control": "no-cache", "access-control-allow-origin": "*"}

_has_warned = False

log = get_logger("velocity_ws.asgi")


@functools.cache
def _static(name: str) -> bytes:
    return files("velocity_ws").joinpath("browser", name).read_bytes()


def is_handshake(scope: Scope) -> bool:
    """Whether a plain HTTP request was to be a WebSocket: it has the key of one, which no other request has."""
    return scope["type"] == "http" and any(name == b"sec-websocket-key" for name, _ in scope["headers"])


def route_path(scope: Scope) -> str:
    """The path of a request behind its ``root_path``, which some servers take off and some do not."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path


async def answer(scope: Scope, is_healthy: Callable[[], Awaitable[bool]]) -> Response:
    """What a plain HTTP request to the endpoint gets: a file of the browser client, its health, or how to connect.

    Args:
        scope: of the request.
        is_healthy: tells whether the endpoint can be sent clients; asked for ``health`` only.
    """
    path = route_path(scope).strip("/")  # Litestar's mount puts a slash at the end
    name = path.rpartition("/")[2]
    if is_handshake(scope):
        why = _why_no_websocket(scope)
        _warn_once(why)
        scope["query_string"] = b""  # servers log it with the answer, and browsers have no other place for a token
        return _upgrade_required(f"This is a WebSocket endpoint, and {why}.")
    if scope["method"] not in ("GET", "HEAD"):
        return PlainTextResponse("Method Not Allowed", 405, {"allow": "GET, HEAD"})
    if name in STATIC_FILES:
        return Response(_static(name), media_type=STATIC_FILES[name], headers=_STATIC_HEADERS)
    if name == HEALTH:
        healthy = await is_healthy()
        return JSONResponse({"healthy": healthy}, 200 if healthy else 503, {"cache-control": "no-store"})
    if not path:
        return _upgrade_required("This is a WebSocket endpoint.")
    return PlainTextResponse("Not Found", 404)


def _upgrade_required(text: str) -> Response:
    return PlainTextResponse(text, 426, {"upgrade": "websocket"})


def _why_no_websocket(scope: Scope) -> str:
    headers = Headers(scope=scope)
    missing = [] if "websocket" in headers.get("upgrade", "").lower() else ["Upgrade: websocket"]
    if "upgrade" not in headers.get("connection", "").lower():
        missing.append("Connection: Upgrade")
    if scope.get("http_version") == "1.0":
        missing.append("HTTP/1.1")
    if not missing:
        return "this server takes none, as it was started without (uvicorn's --ws none)"
    return f"the request came without {' and '.join(missing)}, which a proxy in front has to pass on"


def _warn_once(why: str) -> None:
    """Warn once for each process: any stranger can cause it."""
    global _has_warned  # noqa: PLW0603 - a process has one log, whatever brokers it has
    if _has_warned:
        return
    _has_warned = True
    log.warning(
        "handshake refused with 426: %s. nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
        "proxy_set_header Connection upgrade;",
        why,
    )
