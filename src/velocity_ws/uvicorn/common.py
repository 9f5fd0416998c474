"""Common: what the WebSocket connections of one uvicorn server share. Knows uvicorn's state, and no connection."""

from __future__ import annotations

import asyncio

from uvicorn.config import Config
from uvicorn.server import ServerState

from velocity_ws.settings import Settings
from velocity_ws.uvicorn.drain import Drain
from velocity_ws.uvicorn.latecomers import Latecomers
from velocity_ws.websocket.handshake import Negotiator
from velocity_ws.websocket.keepalive import Keepalive
from velocity_ws.websocket.parser_adapter import ParserPool
from velocity_ws.websocket.peer import PeerWatch
from velocity_ws.websocket.unfinished import MESSAGE_TIMEOUT, UNFINISHED_SIZE, UnfinishedMessages

__all__ = ["Common"]

_COMMON = "velocity_ws_websockets"


class Common:
    """Used on the server's event loop only.

    Attributes:
        drain: how its connections end when it stops.
        judge: of handshakes.
        latecomers: who connects while they do, where somebody has to mind them.
        parsers: of the library's protocol objects.
        usual: messages of which a part has come, with the bounds of connections that no broker has.
        watch: over those whose sockets are not read.
    """

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.drain = Drain(loop)
        self.latecomers = Latecomers.of(config, loop)
        self.negotiator = Negotiator()
        self.parsers = ParserPool()
        self.watch = PeerWatch(loop)
        self._loop = loop
        self._keepalives: dict[tuple[float, float], Keepalive] = {}
        self._unfinished: dict[tuple[float, int], UnfinishedMessages] = {}
        self._settings: Settings | None = None
        self._of_broker: tuple[UnfinishedMessages, Keepalive | None]
        self.usual = self.unfinished()

    def of_broker(self, settings: Settings) -> tuple[UnfinishedMessages, Keepalive | None]:
        """What a broker's connections share; most processes have one broker."""
        if settings is not self._settings:
            self._settings = settings
            self._of_broker = (
                self.unfinished(settings.message_timeout, settings.max_unfinished_size),
                self.keepalive(settings.ping_interval, settings.ping_timeout),
            )
        return self._of_broker

    def keepalive(self, interval: float | None, timeout: float | None) -> Keepalive | None:
        """Of all connections with the same interval and timeout, in seconds; ``None`` where there are no pings."""
        if not interval:
            return None
        found = self._keepalives.get((interval, timeout or 0.0))
        if found is None:
            found = self._keepalives[interval, timeout or 0.0] = Keepalive(self._loop, interval, timeout or 0.0)
        return found

    def unfinished(self, seconds: float = MESSAGE_TIMEOUT, limit: int = UNFINISHED_SIZE) -> UnfinishedMessages:
        """Of all connections with the same bounds, messages of which a part has come."""
        found = self._unfinished.get((seconds, limit))
        if found is None:
            found = self._unfinished[seconds, limit] = UnfinishedMessages(self._loop, seconds, limit)
        return found

    @staticmethod
    def of(state: ServerState, config: Config, loop: asyncio.AbstractEventLoop) -> Common:
        """That of a server."""
        common: Common | None = vars(state).get(_COMMON)
        if common is None:
            common = vars(state)[_COMMON] = Common(config, loop)
        return common
