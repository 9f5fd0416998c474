"""NodeMessages: what nodes tell each other by name, and the handlers that hear it, bounded, each in a task of its own.

Knows the way to the other nodes, and no client.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec

from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.envelopes import InvalidEnvelope
from velocity_ws.errors import BackplaneUnavailable, EncodeError
from velocity_ws.hooks.hook import Hook
from velocity_ws.logs import CountedWarnings, get_logger, quote
from velocity_ws.messages.inbound import Malformed, decode
from velocity_ws.messages.names import MAX_NAME_LENGTH
from velocity_ws.stats import Counters

__all__ = ["NodeMessages", "tell_others"]

log = get_logger("velocity_ws.broker")

MAX_RUNNING = 64
"""Calls of one handler at once; a plain one that never returns takes no more threads than these."""
MAX_WAITING = 8 * 1024 * 1024
"""Bytes of messages that wait for one handler; beyond, they are dropped and counted."""
OVERHEAD = 1024
"""Bytes that a message counts for beside its own."""


class _Told(msgspec.Struct, array_like=True, frozen=True):
    """A message to nodes: its name, and the JSON of ``{"event", "data"}``."""

    event: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    payload: bytes


async def tell_others(cluster: Cluster, event: str, payload: bytes, until: float | None = None) -> None:
    """Tell all other nodes something. Returns when the engine has it.

    Args:
        cluster: the way to them.
        event: what they know it by.
        payload: the JSON of ``{"event", "data"}``.
        until: when its outcome is told at the latest, in the loop's time; by default at the end of the timeout.

    Raises:
        BackplaneUnavailable: the engine has it not, or that is not known.
    """
    await cluster.notes.tell("told", _Told(event, payload), until)


class NodeMessages:
    """The messages between nodes that an application sends and hears. On the broker's loop only."""

    def __init__(
        self,
        handler: Callable[[str], Hook | None],
        call: Callable[[Hook, str, Any, str], Awaitable[None]],
        counters: Counters,
    ) -> None:
        """
        Args:
            handler: finds the handler of a name.
            call: calls it with that name, the data and the sender's id; raises nothing that it raised.
            counters: the node's.
        """
        self._handler = handler
        self._call = call
        self._counters = counters
        self._warnings = CountedWarnings(log)
        self._queues: dict[str, _Queue] = {}
        self._forget()

    def _forget(self) -> None:
        for queue in self._queues.values():
            queue.clear()
        self._queues = {}
        self._node_id = ""
        self._cluster: Cluster | None = None
        self._is_open = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = contextvars.Context()

    def begin(self, node_id: str, cluster: Cluster | None) -> None:
        """Hear what is told from now on.

        Args:
            node_id: this node's.
            cluster: the way to the others; ``None`` where there are none.
        """
        self._forget()
        self._node_id = node_id
        self._cluster = cluster
        self._is_open = True
        self._context = contextvars.copy_context()  # of the start: no handler sees what a sender's task has set
        if cluster is not None:
            cluster.on_notification("told", _Told, self._told)

    async def tell(self, event: str, payload: bytes) -> None:
        """Tell all nodes something, this one first.

        Args:
            event: what they know it by.
            payload: the JSON of ``{"event", "data"}``.

        Raises:
            EncodeError: no node could read it.
            BackplaneUnavailable: this is not running; or other nodes were not told, or it is not known whether they
                were, and this one was.
        """
        cluster = self._cluster
        if cluster is None and not self._is_open:
            raise BackplaneUnavailable("the broker is not running, and nobody was told")
        message = decode(payload)
        if isinstance(message, Malformed):
            raise EncodeError(event, message.message)
        self._take(event, message.data, len(payload), self._node_id)
        if cluster is not None:
            await tell_others(cluster, event, payload)

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether that task runs a handler now."""
        return task in self._tasks

    # --- what is heard

    def _told(self, origin: str, told: _Told) -> None:
        if self._handler(told.event) is None:
            log.debug("no on_node handler for %s, which node %s tells", quote(told.event), origin)
            return
        message = decode(told.payload)
        if isinstance(message, Malformed):
            raise InvalidEnvelope(message.message)
        self._take(told.event, message.data, len(told.payload), origin)

    def _take(self, event: str, data: Any, size: int, origin: str) -> None:
        hook = self._handler(event)
        if hook is None:
            log.debug("no on_node handler for %s, which this node tells", quote(event))
            return
        if not self._is_open:
            log.debug("a message of event %s came too late for %s", quote(event), hook.name)
            return
        queue = self._queues.setdefault(event, _Queue())
        if queue.running < MAX_RUNNING:
            self._begin(queue, hook, event, data, origin)
        elif queue.bytes + size + OVERHEAD <= MAX_WAITING:
            queue.put(size + OVERHEAD, (hook, event, data, origin))
        else:
            self._counters.errors += 1
            self._warnings.warn(
                hook.name,
                "a message of event %s was dropped: %d calls of its on_node handler %s have not returned, and %d bytes "
                "wait for it",
                *(quote(event), queue.running, hook.name, queue.bytes),
            )

    def _begin(self, queue: _Queue, hook: Hook, event: str, data: Any, origin: str) -> None:
        """Call a handler in a task: tasks begin in the order in which they are made."""
        queue.running += 1
        context = self._context.copy()
        task = asyncio.create_task(self._run(hook, event, data, origin), name="velocity-ws on_node", context=context)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._done(task, queue))

    async def _run(self, hook: Hook, event: str, data: Any, origin: str) -> None:
        await self._call(hook, event, data, origin)

    def _done(self, task: asyncio.Task[None], queue: _Queue) -> None:
        self._tasks.discard(task)
        queue.running -= 1
        if queue.waiting:
            self._begin(queue, *queue.get())

    # --- the end

    async def finish(self, seconds: float, grace: float) -> set[asyncio.Task[None]]:
        """Hear nothing more, and wait for the handlers; in the end cancel them.

        Args:
            seconds: that they have.
            grace: seconds that cancelled ones have to end.

        Returns:
            The tasks of those that swallowed their cancellation.
        """
        self._is_open = False
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._tasks and (left := until - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        self.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        return set(self._tasks)

    def cancel(self) -> None:
        """Cancel the handlers that run, and call none of those that wait."""
        for queue in self._queues.values():
            queue.clear()
        for task in self._tasks:
            task.cancel()

    def end(self) -> None:
        """Tell the other nodes nothing more, and forget what still runs."""
        self._forget()


_Call = tuple[Hook, str, Any, str]


class _Queue:
    """What waits for one handler.

    Attributes:
        running: its calls that have not returned.
        waiting: what it is called with after these, and how many bytes each counts for.
        bytes: the sum.
    """

    __slots__ = ("bytes", "running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[tuple[int, _Call]] = deque()
        self.bytes = 0

    def put(self, size: int, call: _Call) -> None:
        self.bytes += size
        self.waiting.append((size, call))

    def clear(self) -> None:
        self.waiting.clear()
        self.bytes = 0

    def get(self) -> _Call:
        size, call = self.waiting.popleft()
        self.bytes -= size
        return call
