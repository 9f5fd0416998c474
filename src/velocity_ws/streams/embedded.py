"""``embedded://name``: streams on the NATS server that the processes of one machine run for each other.

Knows neither how that server is found nor which process runs it. Streams in memory are gone with it; those in the
directory of ``?store=`` go on there.
"""

from __future__ import annotations

from velocity_ws.backplane.embedded.backplane import EmbeddedBackplane
from velocity_ws.backplane.urls import PREFIX
from velocity_ws.history.embedded_store import EmbeddedStore
from velocity_ws.streams.nats import NatsStreams
from velocity_ws.streams.nats_connection import NatsConnection

__all__ = ["EmbeddedStreams"]


class EmbeddedStreams(EmbeddedStore[NatsConnection], NatsStreams):
    """A connection to the streams of a name, whose server this process may be the one to run. On the broker's loop."""

    def __init__(self, url: str, *, prefix: str = PREFIX, application: str = PREFIX, may_run: bool = True) -> None:
        """
        Args:
            url: as for `EmbeddedBackplane`.
            prefix: of the cluster; those of others have ids of their own.
            application: the prefix of all its clusters, which have one stream of the server's together.
            may_run: whether this process may run the server; else it only looks for one that does.

        Raises:
            SettingsError: nats-server is not installed.
        """
        NatsStreams.__init__(self, "nats://", prefix=prefix, application=application)
        self.engine = EmbeddedBackplane(url, may_run=may_run)
