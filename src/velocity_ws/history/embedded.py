"""``embedded://name``: logs on the NATS server that the processes of one machine run for each other.

Knows neither how that server is found nor which process runs it. Logs in memory are gone with it: when the process ends
that runs it, another starts one, and epochs begin anew. Those in the directory of ``?store=`` go on there.
"""

from __future__ import annotations

from velocity_ws.backplane.embedded.backplane import EmbeddedBackplane
from velocity_ws.backplane.urls import PREFIX
from velocity_ws.history.embedded_store import EmbeddedStore
from velocity_ws.history.jetstream import JetStream
from velocity_ws.history.nats import NatsHistory

__all__ = ["EmbeddedHistory"]


class EmbeddedHistory(EmbeddedStore[JetStream], NatsHistory):
    """A connection to the logs of a name, whose server this process may be the one to run. On the broker's loop."""

    def __init__(self, url: str, *, prefix: str = PREFIX, may_run: bool = True) -> None:
        """
        Args:
            url: as for `EmbeddedBackplane`.
            prefix: what the topics of the application begin with; each has a stream of its own.
            may_run: whether this process may run the server; else it only looks for one that does.

        Raises:
            SettingsError: nats-server is not installed.
        """
        NatsHistory.__init__(self, "nats://", prefix=prefix)
        self.engine = EmbeddedBackplane(url, may_run=may_run)
