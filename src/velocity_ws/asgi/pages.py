"""Pages: what a plain HTTP request to an endpoint, or below it, gets: browser client, health. Knows no broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Scope

from velocity_ws.asgi.browser_files import BrowserFile, find_browser_file
from velocity_ws.logs import get_logger

__all__ = ["answer", "is_handshake", "is_page", "route_path"]

HEALTH = "health"
KEEP = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"

_has_warned = False

log = get_logger("velocity_ws.asgi")


def is_page(name: str) -> bool:
    """Whether something is served under that name below the endpoint's path."""
    return name == HEALTH or find_browser_file(name) is not None


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
    if (found := find_browser_file(name)) is not None:
        return _file_response(*found, scope)
    if name == HEALTH:
        healthy = await is_healthy()
        return JSONResponse({"healthy": healthy}, 200 if healthy else 503, {"cache-control": "no-store"})
    if not path:
        return _upgrade_required("This is a WebSocket endpoint.")
    return PlainTextResponse("Not Found", 404)


def _file_response(file: BrowserFile, is_final: bool, scope: Scope) -> Response:
    etag = f'"{file.fingerprint}"'
    headers = {
        "cache-control": KEEP if is_final else ASK_AGAIN,
        "etag": etag,
        "access-control-allow-origin": "*",  # with it a page of WS_ALLOWED_ORIGINS may import a module
    }
    if _has(Headers(scope=scope).getlist("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    if scope["method"] == "HEAD":
        return Response(media_type=file.media_type, headers={**headers, "content-length": str(len(file.content))})
    return Response(file.content, media_type=file.media_type, headers=headers)


def _has(if_none_match: list[str], etag: str) -> bool:
    """RFC 9110, 13.1.2: tags are compared weakly, as a proxy that compresses has made ours weak."""
    tags = [tag.strip().removeprefix("W/") for tag in ",".join(if_none_match).split(",")]
    return etag in tags or "*" in tags


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
