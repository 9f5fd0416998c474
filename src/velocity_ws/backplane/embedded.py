"""``embedded://name``: a NATS server for all processes of a user on one machine, with nothing to install or run.

Whoever holds the lock of the name runs the server; the others find it by a file that only their user can read. When its
process dies, the server does too, and the lock is free: the next one that connects takes it and starts another.
"""

from __future__ import annotations

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.host import Host, host_of
from velocity_ws.backplane.nats import NatsBackplane

__all__ = ["EmbeddedBackplane"]


class EmbeddedBackplane(NatsBackplane):
    """A connection to the server of that name, which this process may be the one to run."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: ``embedded://``, or with a name, where several applications of one user are to be apart.
        """
        super().__init__("nats://")
        self._name = url.partition("://")[2] or "default"
        self._host: Host | None = None

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`. Starts the server where nobody else does; it takes connections a little later.

        Raises:
            PermissionError: the directory of the files belongs to somebody else, or is open to others.
        """
        if self._host is None:
            self._host = host_of(self._name)
            self._host.users += 1
        self.servers = [self._host.url()]
        await super().connect(receive, lost)

    def release(self) -> None:
        """See `Backplane.release`. The last one in a process ends the server, where this process runs it."""
        host, self._host = self._host, None
        if host is not None:
            host.users -= 1
            if not host.users:
                host.stop()
