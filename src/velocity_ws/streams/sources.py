"""Sources: what an application lets say a stream, each in a task of this node, detached from every connection.

Knows writers, and neither engine nor reader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from velocity_ws.logs import get_logger, quote
from velocity_ws.stream_errors import StreamEnded
from velocity_ws.streams.items import End
from velocity_ws.streams.pulse import Pulse
from velocity_ws.streams.writer import StreamWriter

__all__ = ["Sources"]

log = get_logger("velocity_ws.streams")

STORE_TIMEOUT = 1.0
"""Seconds that the engine has to take the ends of streams, when the node stops."""

Report = Callable[[BaseException, str], Awaitable[None]]
"""Tells ``on_error`` of what a source raised, and the id of its stream."""


class _Source:
    __slots__ = ("ended_as", "is_stopped", "task", "writer")

    def __init__(self, writer: StreamWriter) -> None:
        self.writer = writer
        self.task: asyncio.Task[None] | None = None
        self.is_stopped = False
        self.ended_as: End = ""  # by others, while it ran


class Sources:
    """The sources that run here. On the broker's loop only.

    Attributes:
        is_stopping: whether the node is stopping, so that none is begun any more.
    """

    def __init__(self, report: Report, pulse: Pulse) -> None:
        """
        Args:
            report: tells of what a source raised; raises nothing.
            pulse: has stored what they say.
        """
        self.is_stopping = False
        self._report = report
        self._pulse = pulse
        self._running: dict[str, _Source] = {}

    def start(self, writer: StreamWriter, source: AsyncIterator[Any]) -> None:
        """Let a source say a stream."""
        running = _Source(writer)
        running.task = asyncio.create_task(self._run(running, source), name="velocity-ws stream source")
        self._running[writer.id] = running
        writer.when_dead = lambda end: self._dead(running, end)
        running.task.add_done_callback(lambda _: self._running.pop(writer.id, None))

    def runs_in(self, id_: str, room: str | None) -> bool:
        """Whether the source of a stream runs here, and the stream is one of a room; of any, where that is ``None``."""
        running = self._running.get(id_)
        return running is not None and room in (None, running.writer.room)

    def cancel_one(self, id_: str) -> bool:
        """Cancel a source that runs here; whether its stream is ended as ``cancelled``, and not otherwise before."""
        running = self._running[id_]
        running.writer.close("cancelled")
        if running.writer.ends != "cancelled":  # its source is over, and is told of
            return False
        self._stop(running)
        return True

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether a task is one of a source."""
        return any(running.task is task for running in self._running.values())

    async def finish(self, seconds: float, grace: float) -> set[asyncio.Task[None]]:
        """Wait for sources, and blocks that write; in the end cancel the sources: what has not ended is ``lost``.

        Args:
            seconds: that they have.
            grace: seconds that cancelled ones have to end.

        Returns:
            The tasks of those that swallowed their cancellation.
        """
        self.is_stopping = True
        tasks = self._tasks()
        blocks = {asyncio.create_task(writer.wait_over()) for writer in self._pulse.writers}
        if (tasks or blocks) and seconds > 0:
            await asyncio.wait(tasks | blocks, timeout=seconds)
        for block in blocks:
            block.cancel()
        self.cancel()
        tasks = self._tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        writers = self._pulse.writers
        for writer in writers:
            writer.close("lost")
        if writers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(grace, STORE_TIMEOUT)):
                    await asyncio.gather(*[writer.wait_over() for writer in writers])
        return {task for task in tasks if not task.done()}

    def cancel(self) -> None:
        """Cancel all sources, now."""
        for running in list(self._running.values()):
            running.writer.close("lost")
            self._stop(running)

    def _tasks(self) -> set[asyncio.Task[None]]:
        return {running.task for running in self._running.values() if running.task is not None}

    def _stop(self, running: _Source) -> None:
        if not running.is_stopped and running.task is not None:
            running.is_stopped = True
            running.task.cancel()

    def _dead(self, running: _Source, end: End) -> None:
        """The engine takes nothing more of a stream."""
        running.ended_as = end
        if end != "cancelled":
            log.error(
                "stream %s was ended as %s while its source ran, which is cancelled", quote(running.writer.id), end
            )
        self._stop(running)

    async def _run(self, running: _Source, source: AsyncIterator[Any]) -> None:
        try:
            await self._say(running, source)
        finally:
            running.writer.close("error")  # whatever has ended it, the stream does not stay open

    async def _say(self, running: _Source, source: AsyncIterator[Any]) -> None:
        writer = running.writer
        failure: BaseException | None = None
        try:
            async for said in source:
                await writer.write(said)
        except asyncio.CancelledError:
            if not running.is_stopped:  # by what it awaited itself, or somebody who found its task
                writer.close("cancelled")
        except StreamEnded:
            pass  # it swallowed its cancellation, and goes on no further
        except (Exception, GeneratorExit) as error:
            failure = error
        finally:
            await _close(source)
        if running.ended_as not in ("", "cancelled") and failure is None:
            failure = StreamEnded(writer.id, running.ended_as)
        if failure is not None:
            writer.close("error")
            await self._report(failure, writer.id)
        writer.close("done")


async def _close(source: AsyncIterator[Any]) -> None:
    """Close a generator, which may have more to do in its end."""
    close = getattr(source, "aclose", None)
    if close is not None:
        try:
            await close()
        except Exception:  # the application's, of any kind; what the stream has said stands
            log.exception("the source of a stream failed as it was closed")
