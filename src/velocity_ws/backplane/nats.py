"""NATS as a backplane, through nats-py. Knows nothing but bytes and topics; a subject is a topic.

Two things of the library's are done differently, and the contract suite fails where another version of it changes what
they rest on. It gives each subscription a queue and a task of its own, which loses the order across subjects and costs
a task for every room: messages are taken where its parser hands them over. And its ``flush`` sends the ping ahead of
what still waits to be written, so that the answer confirms nothing: here the ping waits in the same line.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Sequence

import nats.errors
from nats.aio.client import PING_PROTO, Client
from nats.aio.subscription import Subscription

from velocity_ws.backplane.base import Lost, Receive

__all__ = ["NatsBackplane"]

CONNECT_TIMEOUT = 2
"""Seconds for each server."""
NEVER = 365 * 86400
"""Seconds between pings of the library's own, which is not to interfere: whether there is a connection shows anyway."""
CLOSE_TIMEOUT = 0.8
"""Seconds that what is still to be written may take."""


class _Client(Client):
    """The library's client, that hands messages over at once, and in the order they came in."""

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self._receive = receive
        self._confirmations: set[asyncio.Future[bool]] = set()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:  # noqa: ARG002
        if sid in self._subs:
            self._receive(subject.decode("ascii"), bytes(data))

    async def confirm(self) -> None:
        """Wait until the server has taken everything up to here."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._confirmations.add(future)
        self._pongs.append(future)
        try:
            await self._send_command(PING_PROTO)
            await self._flush_pending()
            # Not awaited itself: cancelling it would end the library's reader, which expects it to be there.
            await asyncio.wait([future])
        finally:
            self._confirmations.discard(future)
        if not future.result():
            raise ConnectionError("the connection was closed")

    def abort(self) -> None:
        """Let the connection go with whatever was not written, and nobody wait for it."""
        self.give_up()
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def give_up(self) -> None:
        """Nothing more is confirmed."""
        for future in self._confirmations:
            if not future.done():
                future.set_result(False)


class NatsBackplane:
    """``nats://`` and ``tls://``; several servers are parted by commas.

    Attributes:
        servers: their URLs.
    """

    def __init__(self, url: str) -> None:
        """
        Args:
            url: of one server, or of several, ``nats://a:4222,nats://b:4222`` or ``nats://a:4222,b:4222``.
        """
        scheme, _, rest = url.partition("://")
        self.servers = [part if "://" in part else f"{scheme}://{part}" for part in rest.split(",") if part]
        self.max_payload = 1024 * 1024
        self._client: _Client | None = None
        self._subscriptions: dict[str, Subscription] = {}

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        client = _Client(receive)
        last: Exception = ConnectionError("the connection was closed")

        async def on_error(error: Exception) -> None:
            nonlocal last
            last = error

        async def on_closed() -> None:
            client.give_up()
            if self._client is client:
                self._client = None
                lost(ConnectionError(str(last) or type(last).__name__))

        try:
            await client.connect(
                self.servers,
                name="velocity-ws",
                allow_reconnect=False,
                connect_timeout=CONNECT_TIMEOUT,
                # It tries its servers several times, even so; these are the pauses, and how often.
                reconnect_time_wait=0.05,  # type: ignore[arg-type] # whatever it is, it is slept
                max_reconnect_attempts=3,
                error_cb=on_error,
                closed_cb=on_closed,
                pending_size=0,
                ping_interval=NEVER,
            )
        except (nats.errors.Error, TimeoutError) as error:
            await _close(client)
            raise ConnectionError(str(error) or type(error).__name__) from error
        except BaseException:
            await _close(client)
            raise
        self._subscriptions = {}
        self._client = client
        self.max_payload = client.max_payload

    async def subscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.subscribe`."""
        client = self._connected()
        with _translated():
            for topic in topics:
                if topic not in self._subscriptions:
                    self._subscriptions[topic] = await client.subscribe(topic)
            await client.confirm()

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.unsubscribe`."""
        self._connected()
        with _translated():
            for topic in topics:
                subscription = self._subscriptions.pop(topic, None)
                if subscription is not None:
                    await subscription.unsubscribe()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Backplane.publish`."""
        client = self._connected()
        with _translated():
            for topic, payload in messages:
                await client.publish(topic, payload)
            await client.confirm()

    async def close(self) -> None:
        """See `Backplane.close`."""
        client, self._client = self._client, None
        self._subscriptions = {}
        if client is not None:
            await _close(client)

    def release(self) -> None:
        """See `Backplane.release`. There is nothing."""

    def _connected(self) -> _Client:
        if self._client is None:
            raise ConnectionError("there is no connection")
        return self._client


async def _close(client: _Client) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await client.close()
    except (TimeoutError, OSError, nats.errors.Error):
        client.abort()
    except asyncio.CancelledError:
        client.abort()
        raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The library's errors as the contract has them."""
    try:
        yield
    except nats.errors.TimeoutError as error:
        raise TimeoutError("the server did not answer") from error
    except nats.errors.Error as error:
        raise ConnectionError(str(error) or type(error).__name__) from error
