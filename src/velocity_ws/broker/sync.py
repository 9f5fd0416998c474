"""The broker for plain threads: its awaited methods, blocking until done. Knows only the broker's public methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velocity_ws.broker.server_api import SyncServerAPI

if TYPE_CHECKING:
    from velocity_ws.broker.broker import Broker

__all__ = ["SyncBroker"]


class SyncBroker(SyncServerAPI):
    """`Broker` for plain threads and ``def`` routes: the same methods, blocking.

    Raises, from each: WouldDeadlockError on the broker's own event loop.
    """

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._broker = broker

    def stop(self) -> None:
        """Blocking `Broker.stop`."""
        self._broker.portal.block(self._broker.stop)
