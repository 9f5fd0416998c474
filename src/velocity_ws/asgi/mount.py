"""Lets Starlette's ``Mount`` find a WebSocketApp without the slash at the end of its path. Knows nothing else.

``app.mount("/realtime", WebSocketApp(broker))`` matches ``/realtime/`` alone. For HTTP Starlette redirects the other
form; a WebSocket cannot be redirected, so it would be refused with 403, and one that a proxy made a plain request of
would not be told why. ``Mount`` has no hook for that, and asks nothing of what is mounted, which leaves its
``matches``: it is wrapped once, and behaves differently only for a mount of an application that carries the mark.
"""

from __future__ import annotations

import functools

from starlette.routing import Match, Mount
from starlette.types import Scope

from velocity_ws.asgi.pages import is_handshake

__all__ = ["MARK", "match_without_slash"]

MARK = "matches_mount_without_slash"
"""The attribute, true on an application, that asks for it."""
_WRAPPED = "velocity_ws_matches_without_slash"


def match_without_slash() -> None:
    """Wrap ``Mount.matches``; harmless the second time."""
    if getattr(Mount, _WRAPPED, False):
        return
    original = Mount.matches

    @functools.wraps(original)
    def matches(self: Mount, scope: Scope) -> tuple[Match, Scope]:
        match, child = original(self, scope)
        if match is Match.NONE and (scope["type"] == "websocket" or is_handshake(scope)) and _is_marked(self.app):
            return original(self, {**scope, "path": scope["path"] + "/"})
        return match, child

    Mount.matches = matches  # type: ignore[method-assign]
    setattr(Mount, _WRAPPED, True)


def _is_marked(app: object, depth: int = 8) -> bool:
    """Whether what is mounted is marked, inside of middleware, or serves something marked at its own root."""
    if depth == 0 or app is None:
        return False
    if getattr(app, MARK, False):
        return True
    at_root = [route for route in getattr(app, "routes", ()) if getattr(route, "path", None) in ("", "/")]
    return _is_marked(getattr(app, "app", None), depth - 1) or any(_is_marked(route, depth - 1) for route in at_root)
