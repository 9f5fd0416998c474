"""Lets Starlette's ``Mount`` find a WebSocketApp without the slash at the end of its path. Knows nothing else.

``app.mount("/realtime", WebSocketApp(broker))`` matches ``/realtime/`` alone. For HTTP Starlette redirects the other
form; a WebSocket cannot be redirected, so it would be refused with 403. ``Mount`` has no hook for that, and asks
nothing of what is mounted, which leaves its ``matches``: it is wrapped once, and behaves differently only for a mount
whose application carries the mark.
"""

from __future__ import annotations

import functools

from starlette.routing import Match, Mount
from starlette.types import Scope

__all__ = ["MARK", "match_without_slash"]

MARK = "matches_mount_without_slash"
"""The attribute, true on an application, that asks for it."""


def match_without_slash() -> None:
    """Wrap ``Mount.matches``; harmless the second time."""
    original = Mount.matches
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def matches(self: Mount, scope: Scope) -> tuple[Match, Scope]:
        match, child = original(self, scope)
        if match is Match.NONE and scope["type"] == "websocket" and getattr(self.app, MARK, False):
            return original(self, {**scope, "path": scope["path"] + "/"})
        return match, child

    Mount.matches = matches  # type: ignore[method-assign]
