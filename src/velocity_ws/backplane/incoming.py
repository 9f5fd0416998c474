"""Incoming: what arrives on a connection that a library has made, given on as it comes. Knows no engine.

The libraries read by asyncio's streams, where each read wakes a task, and by parsers that are coroutines. That takes
longer than all that is done with a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["Incoming"]


class Incoming(asyncio.Protocol):
    """Takes what arrives in the place of the library, which is told of all else: its writer waits and ends as before.

    On the connection's loop only.
    """

    __slots__ = ("_failed", "_library", "_lost", "_receive", "_transport")

    def __init__(
        self,
        transport: asyncio.Transport,
        receive: Callable[[bytes], None],
        failed: Callable[[Exception], None],
        lost: Callable[[Exception | None], None] = lambda _: None,
    ) -> None:
        """
        Args:
            transport: of the connection, which is open; it is read by this from now on.
            receive: called with the bytes, each time that some have come.
            failed: called with what that has raised; the connection ends then.
            lost: called when the connection has ended, with the reason, if there is one.
        """
        self._transport = transport
        self._receive = receive
        self._failed = failed
        self._lost = lost
        self._library: Any = transport.get_protocol()  # that of a stream
        transport.set_protocol(self)

    def pass_on(self, data: bytes) -> None:
        """Let the library have something that has come, as if it had read it."""
        self._library.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Give on what has come."""
        try:
            self._receive(data)
        except Exception as error:  # whatever it is, what follows is not understood any more
            self._failed(error)
            self._transport.abort()

    def eof_received(self) -> None:
        """End the connection, as the server sends nothing more, and may not read either."""
        self._library.eof_received()
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that the connection has ended."""
        self._library.connection_lost(exc)
        self._lost(exc)

    def pause_writing(self) -> None:
        """Say that much waits to be written."""
        self._library.pause_writing()

    def resume_writing(self) -> None:
        """Say that little waits to be written."""
        self._library.resume_writing()
