"""NatsStore: what stores on a NATS server have in common: servers, and a connection with a stream. Knows no content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

from velocity_ws.backplane.base import Lost
from velocity_ws.backplane.urls import options_of, server_urls
from velocity_ws.history.jetstream import JetStream
from velocity_ws.history.nats_stream import open_stream
from velocity_ws.logs import get_logger

__all__ = ["NatsStore"]

log = get_logger("velocity_ws.history")

S = TypeVar("S", bound=JetStream)


class NatsStore(Generic[S]):
    """``nats://`` and ``tls://``; several servers are separated by commas. On the broker's loop only.

    Attributes:
        servers: the URLs of the servers.
        storage: where the stream is kept that this makes.
    """

    def __init__(self, url: str, storage: Literal["file", "memory"], wanted: Mapping[str, Any], keeps: str) -> None:
        """
        Args:
            url: as for `NatsBackplane`; ``?replicas=3`` has three servers keep the stream, if it is made.
            storage: where the stream is kept, if it is made.
            wanted: what the stream must be like; see `open_stream`.
            keeps: what it is for, in a word.
        """
        base, options = options_of(url)
        self.servers = server_urls(base)
        self.storage: Literal["file", "memory"] = storage
        self._wanted = wanted
        self._keeps = keeps
        self._replicas = int(options.get("replicas", 0))
        self._has_warned = False
        self._stream: S | None = None

    async def connect(self, lost: Lost) -> None:
        """Open a connection, and make the stream where there is none.

        Args:
            lost: called once when the connection ends in any way but `close`.

        Raises:
            OSError: there is no server, it refuses the login, or it cannot keep the stream now.
            SettingsError: it never keeps one, or has another one of this name; the text says what to do.
        """
        stream = self._make()

        def ended(reason: str) -> None:
            if self._stream is stream:
                lost(ConnectionError(reason))

        await stream.open(self.servers, ended, lost)
        try:
            await open_stream(stream, self._wanted, self.storage, self._replicas, keeps=self._keeps)
            self._warn(stream.replicas)
            await self._use(stream)
        except BaseException:
            await stream.close()
            raise
        self._stream = stream

    @property
    def server_name(self) -> str:
        """What the server of the connection calls itself; empty without a connection."""
        return "" if self._stream is None else str(self._stream.server.get("server_name", ""))

    async def close(self) -> None:
        """End the connection, within a second. Harmless when there is none; `connect` works again after it."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    def release(self) -> None:
        """Give back what outlives a connection; there is nothing."""

    def _make(self) -> S:
        """A connection that is not open."""
        raise NotImplementedError

    async def _use(self, stream: S) -> None:
        """Get ready to use a stream of `_make`, once it is open.

        Raises:
            ConnectionError: the engine did not answer.
        """
        raise NotImplementedError

    def _warn(self, replicas: int) -> None:
        if self._replicas not in (0, replicas) and not self._has_warned:
            self._has_warned = True
            name = self._wanted["name"]
            log.warning(
                "the stream %s has %d replicas, and not the %d of WS_BACKPLANE_URL; change that by "
                "`nats stream edit %s --replicas %d`",
                *(name, replicas, self._replicas, name, self._replicas),
            )
