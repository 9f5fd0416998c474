"""``embedded://name``: logs on the NATS server that the processes of one machine run for each other.

Knows when to ask for that server, and not which process runs it. Logs in memory are gone with it: when the process ends
that runs it, another starts one, and epochs begin anew. Those in the directory of ``?store=`` go on there.
"""

from __future__ import annotations

from velocity_ws.backplane.base import Lost
from velocity_ws.backplane.embedded.backplane import EmbeddedBackplane
from velocity_ws.backplane.urls import PREFIX
from velocity_ws.history.nats import NatsHistory

__all__ = ["EmbeddedHistory"]


class EmbeddedHistory(NatsHistory):
    """A connection to the logs of a name, whose server this process may be the one to run. On the broker's loop.

    Attributes:
        grace: as that of the backplane.
    """

    grace = EmbeddedBackplane.grace

    def __init__(self, url: str, *, prefix: str = PREFIX, may_run: bool = True) -> None:
        """
        Args:
            url: as for `EmbeddedBackplane`.
            prefix: what the topics of the application begin with; each has a stream of its own.
            may_run: whether this process may run the server; else it only looks for one that does.

        Raises:
            SettingsError: nats-server is not installed.
        """
        super().__init__("nats://", prefix=prefix)
        self._engine = EmbeddedBackplane(url, may_run=may_run)

    async def connect(self, lost: Lost) -> None:
        """See `HistoryStore.connect`. Starts the server where no process runs one; see `EmbeddedBackplane.connect`.

        Raises:
            PermissionError: the directory of its files, or of the store, belongs to another user, or is open to others.
        """
        address = await self._engine.find()
        self.servers = [address.url]
        self.storage = "file" if address.store else "memory"
        await super().connect(lost)
        if self.server_name != address.server_name:
            await self.close()
            raise ConnectionError("another server has the port of the embedded engine")

    def release(self) -> None:
        """See `HistoryStore.release`. The last one in this process ends the server, where this process runs it."""
        self._engine.release()
