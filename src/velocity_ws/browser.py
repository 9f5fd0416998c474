"""What a plain HTTP request to an endpoint, or below it, gets: the browser client, its health. Knows no broker."""

from __future__ import annotations

import functools
from importlib.resources import files

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Scope

__all__ = ["PAGES", "answer"]

STATIC_FILES = {"velocity.js": "text/javascript", "velocity.d.ts": "text/plain"}
"""Files of the browser client, served below the endpoint's path."""
HEALTH = "health"
PAGES = frozenset({*STATIC_FILES, HEALTH})
"""What is served below the endpoint's path."""

# A module is imported across origins only with the second: a page of WS_ALLOWED_ORIGINS may do that.
_STATIC_HEADERS = {"cache-control": "no-cache", "access-control-allow-origin": "*"}


@functools.cache
def _static(name: str) -> bytes:
    return files("velocity_ws").joinpath("static", name).read_bytes()


def answer(scope: Scope, is_healthy: bool) -> Response:
    """What a plain HTTP request to the endpoint gets: a file of the browser client, its health, or how to connect."""
    path: str = scope["path"]
    name = path.rpartition("/")[2]
    if scope["method"] not in ("GET", "HEAD"):
        return PlainTextResponse("Method Not Allowed", 405, {"allow": "GET, HEAD"})
    if name in STATIC_FILES:
        return Response(_static(name), media_type=STATIC_FILES[name], headers=_STATIC_HEADERS)
    if name == HEALTH:
        status = 200 if is_healthy else 503
        return JSONResponse({"healthy": is_healthy}, status, {"cache-control": "no-store"})
    if not name or path == scope.get("root_path", ""):
        return PlainTextResponse("This is a WebSocket endpoint.", 426, {"upgrade": "websocket"})
    return PlainTextResponse("Not Found", 404)
