"""Shared: what the HTTP connections of one server have in common: deadlines, limits, a count. Knows no HTTP."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Protocol

from uvicorn.server import ServerState

from velocity_ws.concurrency.deadlines import Deadlines
from velocity_ws.errors import SettingsError
from velocity_ws.logs import RareWarnings, WarningsOfStrangers, get_logger
from velocity_ws.process.descriptors import most_open
from velocity_ws.settings import Settings
from velocity_ws.stats import UNATTRIBUTED, Counters

__all__ = [
    "HEADER_COUNT",
    "HEADER_SIZE",
    "Shared",
    "count_refusal",
    "is_stopping",
    "refusals_of",
    "refuse_handshakes",
    "settings_from_environment",
]

HEADER_SIZE = "WS_MAX_HEADER_SIZE"
HEADER_COUNT = "WS_MAX_HEADER_COUNT"

RESERVE = 32
"""Descriptors that connections leave to what serves them: the application's files, its database, its engine."""
LEAST_HEADS = 100
"""Connections that may have sent no request yet, however few there may be: pages open several at once."""
FLUSH = 1.0
"""Seconds a refused peer has to read its answer, until it is cut."""

_SHARED = "velocity_ws_http"
_STOPPING = "velocity_ws_is_stopping"
_COUNTERS = "velocity_ws_counters"

log = get_logger("velocity_ws.http")


class Watched(Protocol):
    """What has a deadline."""

    def head_is_late(self) -> None:
        """Headers did not become complete in time."""

    def cut(self) -> None:
        """What was to be closed is not gone in time."""


def refuse_handshakes(server_state: ServerState) -> None:
    """Answer 503 to every WebSocket handshake from now on: the server is stopping."""
    vars(server_state)[_STOPPING] = True


def is_stopping(server_state: ServerState) -> bool:
    """Whether `refuse_handshakes` was called."""
    return _STOPPING in vars(server_state)


def refusals_of(server_state: ServerState, counters: Counters) -> None:
    """Count what a server refuses before any application sees it as a broker's, which it serves alone."""
    vars(server_state)[_COUNTERS] = counters


def count_refusal(server_state: ServerState) -> None:
    """A handshake, or what may have been one, was refused before the application saw it."""
    counters: Counters = vars(server_state).get(_COUNTERS, UNATTRIBUTED)
    counters.rejected += 1


class Shared:
    """What the connections of one server share; it lives as long as the server's state."""

    def __init__(self, loop: asyncio.AbstractEventLoop, given: Settings | None) -> None:
        settings = settings_from_environment() if given is None else given
        # An application's broker counts by its own settings, so a default of ours must not undercut them.
        is_set = given is not None or "max_connections" in settings.model_fields_set
        self.max_connections = settings.max_connections if is_set else 0
        self.max_heads = settings.max_connections and max(settings.max_connections, LEAST_HEADS)
        self.max_header_size = settings.max_header_size
        self.max_header_count = settings.max_header_count
        self.warnings = WarningsOfStrangers(log)
        self.limits = RareWarnings(log)
        self._enough = 0
        self.websockets = 0
        self.heads: Deadlines[Watched] = Deadlines(loop, settings.handshake_timeout, _late)
        self.flushing: Deadlines[Watched] = Deadlines(loop, FLUSH, _cut)
        self.leaving: Deadlines[Watched] = Deadlines(loop, settings.drain_timeout, _cut)

    @classmethod
    def of(cls, state: ServerState, loop: asyncio.AbstractEventLoop, given: Settings | None) -> Shared:
        """That of a server; made with the first connection."""
        shared: Shared | None = vars(state).get(_SHARED)
        if shared is None:
            shared = vars(state)[_SHARED] = cls(loop, given)
        return shared

    def make_room(self) -> None:
        """Where too many have not sent a request yet, cut the one that takes longest: an honest one is quick."""
        if self.max_heads and len(self.heads) > self.max_heads:
            self.heads.act_on_first()

    def are_descriptors_left(self, last: int) -> bool:
        """Whether there are some for further connections, when the last one has got this."""
        if last >= self._enough:  # a broker that starts with its first connection raises the limit after that
            most = most_open()
            self._enough = most - min(RESERVE, most // 8)
        return last < self._enough

    def count(self, protocol: Any) -> None:
        """Count a WebSocket until it is gone."""
        self.websockets += 1
        if hasattr(protocol, "on_lost"):
            protocol.on_lost = self._lost
            return
        connection_lost = protocol.connection_lost

        def counted(exc: Exception | None) -> None:
            self._lost()
            connection_lost(exc)

        protocol.connection_lost = counted

    def _lost(self) -> None:
        self.websockets -= 1


def _late(connection: Watched) -> None:
    connection.head_is_late()


def _cut(connection: Watched) -> None:
    connection.cut()


@functools.cache
def settings_from_environment() -> Settings:
    try:
        return Settings()
    except SettingsError as error:
        # uvicorn makes the first protocol when the first client comes, and then it is too late to stop.
        log.error("the HTTP class takes the default for every setting, because: %s", error)
        return Settings.model_construct()
