"""EmbeddedStore: a store on the NATS server that the processes of one machine run for each other.

Knows when to ask for that server, and not which process runs it, nor what is stored.
"""

from __future__ import annotations

from typing import TypeVar

from velocity_ws.backplane.base import Lost
from velocity_ws.backplane.embedded.backplane import EmbeddedBackplane
from velocity_ws.history.jetstream import JetStream
from velocity_ws.history.nats_store import NatsStore

__all__ = ["EmbeddedStore"]

S = TypeVar("S", bound=JetStream)


class EmbeddedStore(NatsStore[S]):
    """What makes a store that comes behind it among the bases of a class one on the embedded engine. On the broker's
    loop only.

    Attributes:
        grace: as that of the backplane.
        engine: that finds the server, or runs it; set by the class.
    """

    grace = EmbeddedBackplane.grace
    engine: EmbeddedBackplane

    async def connect(self, lost: Lost) -> None:
        """See `NatsStore.connect`. Starts the server where no process runs one; see `EmbeddedBackplane.connect`.

        Raises:
            PermissionError: the directory of its files, or of the store, belongs to another user, or is open to others.
        """
        address = await self.engine.find()
        self.servers = [address.url]
        self.storage = "file" if address.store else "memory"
        await super().connect(lost)
        if self.server_name != address.server_name:
            await self.close()
            raise ConnectionError("another server has the port of the embedded engine")

    def release(self) -> None:
        """See `NatsStore.release`. The last one in this process ends the server, where this process runs it."""
        self.engine.release()
