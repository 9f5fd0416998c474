"""NatsClient: one connection to a NATS server, through nats-py, for those who read what arrives themselves.

Knows neither topics nor what is stored. The library connects, logs in, and hears what a server says of itself. Messages
and confirmations are read past it: its parser takes longer than all else that is done with a message, its queues have a
task for each subscription, which loses the order across subjects, and that of flushes confirms what was not written yet
and swallows a cancellation. The contract suites fail where a version of it changes what this rests on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import PING_PROTO, Client

from velocity_ws.backplane.base import Leaving
from velocity_ws.backplane.incoming import Incoming
from velocity_ws.backplane.nats_parser import NatsParser
from velocity_ws.logs import get_logger

__all__ = ["NatsClient"]

log = get_logger("velocity_ws.backplane")

CONNECT_TIMEOUT = 1
"""Seconds for each server."""
NEVER = 365 * 86400
"""Seconds between the library's own pings, which must not interfere; a lost connection shows without them."""
LOOK_AGAIN = 0.5
"""Seconds after which another server is looked for again, where the one of the connection is about to go."""
CLOSE_TIMEOUT = 0.8
"""Seconds that the library's tasks have to end, once their connection is gone."""


class NatsClient(Client):
    """The library's client, for subclasses that take messages in `message`, in the order in which they came.

    Attributes:
        last: the last error that the library reported.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last: Exception = ConnectionError("the connection was closed")
        self._is_over = False
        self._confirmations: deque[asyncio.Future[bool]] = deque()
        self._wire: asyncio.Transport | None = None
        self._incoming: Incoming | None = None
        self._servers: Collection[str] = ()
        self._leave: Callable[[Leaving], object] = lambda _: None
        self._looking: asyncio.Task[None] | None = None

    async def open(
        self, servers: Collection[str], ended: Callable[[], object], leave: Callable[[Leaving], object]
    ) -> None:
        """Connect to the first of some servers that can be reached.

        Args:
            servers: their URLs; user and password, or token, are those of the first that has any.
            ended: called when the connection ends, also by `abort`.
            leave: called when the server has said that it is about to go, and another one takes connections.

        Raises:
            ConnectionError: none can be reached, or it refuses the login.
        """
        self._servers, self._leave = servers, leave
        try:
            await self.connect(
                list(servers),
                name="velocity-ws",
                allow_reconnect=False,
                connect_timeout=CONNECT_TIMEOUT,
                # It tries its servers several times even so; these are the pauses, and how often.
                reconnect_time_wait=0.05,  # type: ignore[arg-type] # it is only slept
                max_reconnect_attempts=1,
                error_cb=self.keep_error,
                lame_duck_mode_cb=self.look_for_another,
                pending_size=0,
                ping_interval=NEVER,
                **_credentials(servers),
            )
            self._take_over()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            await self.abort()
            raise ConnectionError(self.reason) from error
        except BaseException:
            await self.abort()
            raise
        reader = self.reader
        if reader is not None:
            reader.add_done_callback(lambda _: ended())

    def _take_over(self) -> None:
        """Read what arrives from now on, and what the library has read and not yet looked at."""
        streams: Any = self._transport
        reader, writer = streams._io_reader, streams._io_writer
        unread = bytes(reader._buffer)
        reader._buffer.clear()
        if reader.at_eof():  # it has ended already: what came is the library's, which says so
            reader._buffer.extend(unread)
            return
        early = bytes(self._ps.buf) + unread
        self._ps.buf.clear()
        wire = self._wire = writer.transport
        parser = NatsParser(self.message, self._confirmed, self._told)
        self._incoming = Incoming(wire, parser.feed, self._failed)
        self._incoming.data_received(early)

    def message(self, number: bytes, subject: bytes, headers: bytes, payload: bytes) -> None:
        """A message has come.

        Args:
            number: of the subscription.
            subject: of the message.
            headers: all of them, as they are sent; empty where there are none.
            payload: of the message.
        """
        raise NotImplementedError

    def _confirmed(self) -> None:
        if self._confirmations:
            future = self._confirmations.popleft()
            if not future.done():  # its caller may be gone
                future.set_result(True)

    def _told(self, line: bytes) -> None:
        """The server says something of itself, which the library hears."""
        if line.startswith(b"-ERR"):  # before anything that comes behind it is taken for a confirmation
            self.last = ConnectionError(line[4:].strip(b"' \r\n").decode("utf-8", "replace").lower())
            self.give_up()
        if self._incoming is not None:
            self._incoming.pass_on(line)

    def _failed(self, error: Exception) -> None:
        log.error("what the engine sent was not understood", exc_info=error)
        self.last = ConnectionError(f"what the engine sent was not understood: {error}")
        self.give_up()

    async def keep_error(self, error: Exception) -> None:
        """The library's callback for errors, which it would log otherwise."""
        self.last = error

    async def look_for_another(self) -> None:
        """The library's callback for lame duck mode: the server takes no more connections, and ends those it has."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="velocity-ws nats")

    async def _look(self) -> None:
        """Until another server takes connections; the one that is about to go carries all until then, or it goes."""
        name = self.server_info.get("server_name", "")
        while True:
            if await self._is_another():
                break
            await asyncio.sleep(LOOK_AGAIN)
        self._leave(Leaving(f"the server {name} is about to go: it is in lame duck mode"))

    async def _is_another(self) -> bool:
        other = NatsClient()
        try:
            await other.open(self._servers, lambda: None, lambda _: None)
        except ConnectionError:
            return False
        found = other.server_info.get("server_id")
        await other.abort()
        return bool(found != self.server_info.get("server_id"))

    @property
    def is_usable(self) -> bool:
        """Whether there is a connection that has not ended."""
        return self.is_connected and not self._is_over

    @property
    def reason(self) -> str:
        """What the last error says."""
        return str(self.last) or type(self.last).__name__

    def write(self, commands: list[bytes]) -> None:
        """Send commands, in this order and behind all before.

        Raises:
            ConnectionError: the connection has ended.
        """
        if self._wire is None or not self.is_usable:
            raise ConnectionError(self.reason)
        try:
            self._wire.write(b"".join(commands))
        except RuntimeError as error:  # of uvloop 0.23.0, where the transport is closed and nobody was told so yet
            raise ConnectionError(str(error)) from None

    async def confirm(self, commands: Sequence[bytes]) -> None:
        """Send commands, and wait until the server has taken them.

        Raises:
            ConnectionError: the server has refused one, or the connection has ended.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.write([*commands, PING_PROTO])
        self._confirmations.append(future)
        if not await future:
            raise ConnectionError(self.reason)

    async def _process_err(self, err_msg: str) -> None:
        # The library goes on after some of them, though something was not done then.
        self.last = ConnectionError(err_msg.strip("'"))
        self.give_up()
        await self._process_op_err(self.last)

    def give_up(self) -> None:
        """Receive nothing more, and let what waits for a confirmation fail."""
        self._is_over = True
        for future in self._confirmations:
            if not future.done():
                future.set_result(False)
        self._confirmations.clear()

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server said of itself when the connection was made."""
        return self._server_info

    @property
    def reader(self) -> asyncio.Task[None] | None:
        """The task that reads; the connection ends with it."""
        return self._reading_task

    async def abort(self) -> None:
        """End the connection now, with what is not written yet: it must not arrive after what the next one carries."""
        self.give_up()
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        own = (self.reader, self._flusher_task, self._ping_interval_task, self._looking)
        tasks = [task for task in own if task is not None]
        if self._looking is not None:
            self._looking.cancel()
        closing = asyncio.create_task(self.close(), name="velocity-ws nats")
        try:
            await asyncio.wait([closing, *tasks], timeout=CLOSE_TIMEOUT)
        finally:
            for task in (closing, *tasks):
                task.cancel()
        if closing.done() and not closing.cancelled():
            closing.exception()  # retrieved; whatever it is, there is no connection


def _credentials(servers: Collection[str]) -> dict[str, Any]:
    """User and password, or token, decoded: the library takes them as they are in the URL, percent-encoded."""
    for server in servers:
        parts = urlsplit(server)
        if parts.username and parts.password is not None:
            return {"user": unquote(parts.username), "password": unquote(parts.password)}
        if parts.username:
            return {"token": unquote(parts.username)}
    return {}
