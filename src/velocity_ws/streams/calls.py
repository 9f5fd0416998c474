"""Calls: what an application does with streams on this node: begins, runs, cancels and reads them. Knows no client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from velocity_ws.cluster.cluster import Cluster
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.stream_errors import StreamNotFound
from velocity_ws.streams.asking import Asking
from velocity_ws.streams.following import Following
from velocity_ws.streams.items import BY_REQUESTS, End, Summary
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.pulse import Pulse
from velocity_ws.streams.sources import Sources
from velocity_ws.streams.tail import Chunk
from velocity_ws.streams.tails import Tails
from velocity_ws.streams.values import StreamInfo, StreamState
from velocity_ws.streams.writer import StreamWriter

__all__ = ["CANCELLED", "NOTICE", "Calls"]

LOOK_AGAIN = 0.5
"""Seconds between two questions whether a stream of another node has ended, where somebody waits for that."""
AGAIN = 2.0
"""Seconds until the engine is told again what it did not take."""
NOTICE = "streams"
"""The name of the notification by which nodes hear that there are streams."""
CANCELLED = "stream_cancelled"
"""The name of the one by which the writer of a stream hears that it was cancelled; else it hears by its lease."""


class Calls:
    """The streams as an application of this process has them. On the broker's loop only.

    Each waits, the first time, until there is a connection to the engine, and raises SettingsError where the engine
    never keeps streams, and BackplaneUnavailable where it did not answer.
    """

    def __init__(
        self,
        node_id: str,
        limit: int,
        wake: Callable[[], Awaitable[None]],
        link: StreamLink,
        asking: Asking,
        pulse: Pulse,
        sources: Sources,
        following: Following,
        tails: Tails,
        took: Callable[[str, str, bytes], None],
        cluster: Cluster | None,
    ) -> None:
        """
        Args:
            node_id: this node's.
            limit: bytes that a stream may have.
            wake: waits until there is a connection.
            link: the way to the engine.
            asking: the streams by their ids.
            pulse: has stored what is written here.
            sources: what runs here.
            following: the streams of rooms that have members here.
            tails: the streams that are read here as they are said.
            took: told of the room, the id and the payload of each piece that the engine has taken, in order.
            cluster: the way to the other nodes; ``None`` where there are never any.
        """
        self._node_id = node_id
        self._limit = limit
        self._wake = wake
        self._link = link
        self._asking = asking
        self._pulse = pulse
        self._sources = sources
        self._following = following
        self._tails = tails
        self._took = took
        self._cluster = cluster
        self._is_marked = False
        link.on_up.append(self._mark_again)
        if cluster is not None:
            cluster.on_notification(CANCELLED, str, lambda _, id_: self._cancelled(id_))

    async def begin(self, id_: str, room: str) -> tuple[StreamWriter | None, Summary]:
        """Begin a stream, or find the one that is there.

        Returns:
            Its writer, where it is this call's to write; and the stream.

        Raises: what `Asking.begin` does, and SettingsError: the engine never keeps streams.
        """
        await self._wake()
        begun, stream, is_forbidden = await self._asking.begin(id_, room)
        if begun is None:
            return None, stream
        writer = StreamWriter(begun, self._node_id, self._limit, self._link.max_payload, self._pulse, self._took)
        self._pulse.begin(writer)
        writer.announce()
        self.announce()
        if is_forbidden:
            writer.close("cancelled")
        elif self._sources.is_stopping:
            writer.close("lost")
        return writer, stream

    def run(self, writer: StreamWriter, source: AsyncIterator[Any]) -> None:
        """Let a source say a stream."""
        self._sources.start(writer, source)

    async def cancel(self, id_: str, room: str | None = None) -> bool:
        """Cancel a stream, wherever it is written, or forbid that it begins; whether it is cancelled, or will be.

        Args:
            id_: the stream's.
            room: the only one of which the stream may be; ``None`` for any.

        Raises: what `Asking.cancel` does.
        """
        await self._wake()
        if self._sources.runs_in(id_, room):
            return self._sources.cancel_one(id_)
        is_cancelled = await self._asking.cancel(id_, room)
        if is_cancelled:
            self._cancelled(id_)
        if is_cancelled and self._cluster is not None:
            self._cluster.notes.notify(self._cluster.topics.nodes, CANCELLED, id_)
        return is_cancelled

    def _cancelled(self, id_: str) -> None:
        """A stream was ended as cancelled that may be written here."""
        for writer in self._pulse.writers:
            if writer.id == id_:
                writer.dead("cancelled")

    async def read(self, id_: str) -> StreamState:
        """A stream with all that it has said so far; see `Asking.read`."""
        await self._wake()
        return await self._asking.read(id_)

    async def listed(self, room: str) -> list[StreamInfo]:
        """The streams of a room; see `Asking.listed`."""
        await self._wake()
        return [StreamInfo.of(stream) for stream in await self._asking.listed(room)]

    async def wait_over(self, id_: str) -> End:
        """Wait until a stream has ended; the end. Raises what `Asking.look` does, but of one that is deleted meanwhile,
        as only what requests write is: its readers are told that it was cancelled.
        """
        await self._wake()
        for writer in self._pulse.writers:
            if writer.id == id_:
                return await writer.wait_over()
        by = b""
        while True:
            try:
                stream = await self._asking.look(id_)
            except BackplaneUnavailable:  # it is waited for, however long that takes
                pass
            except StreamNotFound:
                if by.startswith(BY_REQUESTS):
                    return "cancelled"
                raise
            else:
                by = by or stream.writer
                if stream.writer != by and by.startswith(BY_REQUESTS):
                    return "cancelled"  # and begun anew
                if stream.end:
                    return stream.end
            await asyncio.sleep(LOOK_AGAIN)

    async def follow(self, id_: str, position: int, writer: bytes) -> Chunk:
        """What follows a position of a stream, as soon as there is something, or its end; see `Tails.read`."""
        await self._wake()
        return await self._tails.read(id_, position, None, writer=writer)

    def announce(self) -> None:
        """Have other nodes, and those to come, know that there are streams."""
        if not self._is_marked and self._cluster is not None:
            self._is_marked = True
            self._cluster.notes.notify(self._cluster.topics.nodes, NOTICE, True)
            self._following.run(self._mark())

    def _mark_again(self) -> None:
        """There is a connection again, perhaps to an engine that has forgotten everything."""
        if self._is_marked:
            self._following.run(self._mark())

    async def _mark(self) -> None:
        while True:
            try:
                await self._link.mark()
                return
            except BackplaneUnavailable:
                await asyncio.sleep(AGAIN)
