"""Mount: lets Starlette's ``Mount`` find a WebSocketApp without the slash at the end of its path. Knows no broker.

``app.mount("/realtime", WebSocketApp(broker))`` matches ``/realtime/`` alone. For HTTP Starlette redirects the other
form; a WebSocket cannot be redirected, so it would be refused with 403, and one that a proxy made a plain request of
would not be told why. No object of ours can help that: ``Router`` asks ``Mount.matches``, which looks at its own path
alone, and ``Mount`` calls nothing of what is mounted before it has matched. So that method is wrapped, once in a
process, when the first `WebSocketApp` is made or a broker is attached at ``/``; not by an import, by ``attach`` at
another path, by ``WebSocketMiddleware`` or by ``Server``. What it returns is Starlette's in every case but one:
Starlette finds no match, it is a WebSocket or was to be one, and what is mounted carries the mark.
"""

from __future__ import annotations

import functools

from starlette.routing import Match, Mount
from starlette.types import Scope

from velocity_ws.asgi.pages import is_handshake

__all__ = ["MARK", "patch_mount"]

MARK = "matches_mount_without_slash"
"""The attribute, true on an application, that asks for it."""
_PATCHED = "velocity_ws_matches_without_slash"


def patch_mount() -> None:
    """Wrap ``Mount.matches``; harmless the second time."""
    if getattr(Mount, _PATCHED, False):
        return
    original = Mount.matches

    @functools.wraps(original)
    def matches(self: Mount, scope: Scope) -> tuple[Match, Scope]:
        match, child = original(self, scope)
        if match is Match.NONE and (scope["type"] == "websocket" or is_handshake(scope)) and _is_marked(self.app):
            return original(self, {**scope, "path": scope["path"] + "/"})
        return match, child

    Mount.matches = matches  # type: ignore[method-assign]
    setattr(Mount, _PATCHED, True)


def _is_marked(app: object, depth: int = 8) -> bool:
    """Whether what is mounted is marked, inside of middleware, or serves something marked at its own root."""
    if depth == 0 or app is None:
        return False
    if getattr(app, MARK, False):
        return True
    at_root = [route for route in getattr(app, "routes", ()) if getattr(route, "path", None) in ("", "/")]
    return _is_marked(getattr(app, "app", None), depth - 1) or any(_is_marked(route, depth - 1) for route in at_root)
