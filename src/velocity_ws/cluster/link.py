"""Link: a node's connection to its engine: opens it, probes that it hears, gives it up and reconnects after a pause.

Knows the contract of a backplane, and not what the messages mean. A connection counts as healthy while messages that
the node sends itself through the engine come back, which neither TCP nor the engine's own ping shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Protocol

from velocity_ws.backplane.base import Backplane, Leaving, Moving, Receive
from velocity_ws.cluster.complaints import Complaints
from velocity_ws.cluster.envelopes import Probe, encode_body
from velocity_ws.cluster.publisher import Publisher
from velocity_ws.cluster.subscriptions import Subscriptions
from velocity_ws.logs import get_logger, printable

__all__ = ["Link", "LinkUser"]

log = get_logger("velocity_ws.cluster")

CONNECT_TIMEOUT = 2.0
"""Seconds that a new connection may take to be there; resubscribing has its own."""
RESTORE_TIMEOUT = 5.0
"""Seconds that a thousand topics may take to be subscribed to again."""
PROBE_INTERVAL = 0.75
"""Seconds between proofs that the connection hears."""
PROBE_TIMEOUT = 1.5
"""Seconds after which a proof that has not come counts as failed."""
PROBE_BEHIND = 10.0
"""The same at most, while other messages come, behind which it may be."""
SLICES = 6
"""Parts into which the waiting for a proof is cut: a loop that was held up cannot miss more than one."""
FIRST_BACKOFF = 0.05
"""Seconds before a connection is tried again, the first time; doubled each time."""
LAST_BACKOFF = 0.5
"""The same at most."""
CLOSE_TIMEOUT = 1.5
"""Seconds that closing may take before it is left behind; the contract says one."""


class LinkUser(Protocol):
    """What a link tells of its connection. On the broker's loop only."""

    def connecting(self) -> None:
        """A connection begins, from which something may be heard before it is proven."""

    async def connected(self) -> None:
        """A connection is proven to hear everything that is needed. Cancelled when it is lost."""

    def disconnected(self) -> None:
        """A connection that was proven is lost."""


class Link:
    """A supervised connection. On the broker's loop only.

    Attributes:
        publisher: the outbound side.
        subscriptions: the inbound side.
        is_healthy: whether messages to this node itself come back.
        is_stopping: whether `stop` was called.
    """

    def __init__(
        self, backplane: Backplane, publisher: Publisher, subscriptions: Subscriptions, own_topic: str, engine: str
    ) -> None:
        """
        Args:
            backplane: not connected.
            publisher: publishes on this backplane.
            subscriptions: subscribes on this backplane; it needs the node's own topic.
            own_topic: the topic through which the node reaches itself.
            engine: what the log calls the engine; without a password.
        """
        self.publisher = publisher
        self.subscriptions = subscriptions
        self.is_healthy = False
        self._backplane = backplane
        self._own_topic = own_topic
        self._engine = f"the engine {engine}".rstrip()
        self._complaints = Complaints(log, getattr(backplane, "grace", 0.0), "the engine is reached again")
        self._task: asyncio.Task[None] | None = None
        self._may_miss = isinstance(backplane, Moving)  # a proof, while the topic moves to another server
        self._nonce = 0
        self._arrivals = 0
        self._proof = asyncio.Event()
        self._ready = asyncio.Event()
        self.is_stopping = self._is_ending = False

    async def start(self, user: LinkUser, receive: Receive, patience: float) -> None:
        """Begin to connect. Returns when it is healthy, or after a while, and then goes on trying.

        Args:
            user: told of the connection.
            receive: takes what is published to the topics that are subscribed to.
            patience: seconds to wait for a connection.
        """
        self._ready.clear()
        self.is_stopping = self._is_ending = self._complaints.is_silent = False
        self._task = asyncio.create_task(self._supervise(user, receive), name="velocity-ws backplane")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._ready.wait()

    def stop_soon(self) -> None:
        """`stop` will be called soon: a connection that is lost from now on is not worth a warning."""
        self._complaints.is_silent = True

    async def stop(self) -> None:
        """Close the connection, and open none any more."""
        self.is_stopping = True
        self._complaints.end()
        task, self._task = self._task, None
        while task is not None and not task.done():
            # A task group that has failed already, and some libraries, swallow a cancellation. An end is not disturbed.
            if not self._is_ending:
                task.cancel()
            await asyncio.wait([task], timeout=0.1)

    def probe_returned(self, nonce: int) -> None:
        """A probe came back through the engine. One of an earlier proof is ignored."""
        if nonce == self._nonce:
            self._proof.set()

    async def _supervise(self, user: LinkUser, receive: Receive) -> None:
        backoff = FIRST_BACKOFF
        try:
            while not self.is_stopping:
                why: BaseException = ConnectionError("it ended")
                try:
                    await self._connection(user, receive)
                except* OSError as failed:
                    why = _first(failed)
                except* Exception as failed:
                    why = _first(failed)
                    log.exception("the connection to the engine failed in a way it should not")
                if isinstance(why, Leaving):
                    log.info("leaving %s for another server of it: %s", self._engine, printable(str(why)))
                    await self._leave(user)
                    continue
                if self.is_healthy:
                    backoff = FIRST_BACKOFF
                reason = str(why) or "it did not answer in time"
                await self._give_up(user, f"there is no connection to {self._engine} ({reason})")
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                backoff = min(backoff * 2, LAST_BACKOFF)
        finally:
            self._is_ending = True
            await self._give_up(user, "the broker is stopped")
            self._complaints.end()

    async def _connection(self, user: LinkUser, receive: Receive) -> None:
        """One connection from its beginning to its end, which raises."""
        lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        def on_lost(error: Exception) -> None:
            if not lost.done():
                lost.set_result(error)

        def received(topic: str, data: bytes) -> None:
            self._arrivals += 1
            receive(topic, data)

        user.connecting()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._end_with(lost))  # also while it connects, as to a server that does not answer
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._backplane.connect(received, on_lost)
            await self.subscriptions.restore(RESTORE_TIMEOUT)
            self.publisher.open()
            group.create_task(self.publisher.run())
            group.create_task(self.publisher.watch())
            group.create_task(self.subscriptions.run())
            await self._prove()
            self.is_healthy = True
            self._ready.set()
            self._complaints.reached()
            group.create_task(user.connected())
            while True:
                await asyncio.sleep(PROBE_INTERVAL)
                await self._prove()

    async def _prove(self) -> None:
        """Send a message through the engine to this node, and wait for it.

        Raises:
            OSError: it did not come.
        """
        self._nonce += 1
        self._proof.clear()
        entry = self.publisher.put(self._own_topic, encode_body(Probe(self._nonce)), is_vital=True)
        silent, until = 0, asyncio.get_running_loop().time() + PROBE_BEHIND
        while silent < SLICES and asyncio.get_running_loop().time() < until:
            if entry.done.done() and entry.done.result() != "published":
                break
            arrivals = self._arrivals
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_TIMEOUT / SLICES):
                    await self._proof.wait()
                    return
            if self._may_miss:
                self.publisher.put(self._own_topic, encode_body(Probe(self._nonce)), is_vital=True)
            if self._arrivals == arrivals:  # else it hears, and the proof comes behind what others have sent
                silent += 1
        raise TimeoutError("a message to this node itself did not come back through the engine in time")

    async def _end_with(self, lost: asyncio.Future[Exception]) -> None:
        """Wait until the connection has ended, or is to be left, and nothing that was handed over is in doubt."""
        error = await lost
        if isinstance(error, Leaving):
            await self.publisher.rest()
        raise error if isinstance(error, OSError) else ConnectionError(str(error))

    async def _give_up(self, user: LinkUser, why: str) -> None:
        self.publisher.close(why)
        if not self._is_ending:
            self._complaints.lost(why)
        await self._leave(user)

    async def _leave(self, user: LinkUser) -> None:
        """Close the connection; what waits to be published waits for the next one."""
        was_healthy, self.is_healthy = self.is_healthy, False
        if was_healthy:
            user.disconnected()  # which looks at what was subscribed to
        self.subscriptions.connection_lost()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._backplane.close()
        except OSError as error:
            log.debug("closing the connection to the engine failed: %s", error)
        except Exception:  # of a backplane that is not ours; the next connection is tried nevertheless
            log.exception("closing the connection to the engine failed in a way it should not")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
