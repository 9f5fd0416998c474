"""Questions between nodes: asked of some or all, answered by each within a time, or not.

Knows neither what is asked nor how bytes travel.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from velocity_ws.cluster.envelopes import Answer, Ask, Foreign, decode_as
from velocity_ws.errors import BackplaneUnavailable, VelocityError
from velocity_ws.logs import get_logger, quote

__all__ = ["Question", "Questions", "Replies"]

log = get_logger("velocity_ws.cluster")

A = TypeVar("A")
R = TypeVar("R")

PART = 256 * 1024
"""Bytes of an answer that travel at once: every engine carries so many, and not every one carries more than 1 MiB."""
MAX_ERROR = 1000
"""Characters of what is told why a question is not answered."""
MAX_ANSWERING = 1000
"""Questions answered at once; more are refused."""

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Question(Generic[A, R]):
    """Something that can be asked, and what its arguments and its answer look like.

    Attributes:
        what: its name between nodes.
        args: type of the arguments.
        result: type of the answer.
        is_good: whether an answer of that type is one, where the type does not say all.
        is_order: whether it is something to do, which nodes that are not heard of now should hear of later.
    """

    what: str
    args: type[A]
    result: type[R]
    is_good: Callable[[R], bool] | None = None
    is_order: bool = False


@dataclass
class Replies(Generic[R]):
    """What came back.

    Attributes:
        by_node: the answers.
        missing: who did not answer in time, or could not be asked.
        errors: what nodes said that could not answer.
    """

    by_node: dict[str, R] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    errors: dict[str, str] = field(default_factory=dict)


class _Pending:
    def __init__(self, nodes: Collection[str]) -> None:
        self.waits_for = set(nodes)
        self.gone: set[str] = set()
        self.parts: dict[str, list[bytes]] = {}
        self.answers: dict[str, Answer] = {}
        self.is_complete = asyncio.Event()

    def check(self) -> None:
        if self.waits_for <= self.gone:
            self.is_complete.set()


class Questions:
    """Both sides of it."""

    def __init__(self, timeout: float, refuse: Callable[[str, Foreign], None]) -> None:
        """
        Args:
            timeout: seconds a question waits for its answers.
            refuse: told of arguments and answers that are none, and where they came.
        """
        self._timeout = timeout
        self._refuse = refuse
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._handlers: dict[str, tuple[msgspec.msgpack.Decoder[Any], Callable[[Any], Awaitable[Any]]]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    # --- asking

    async def ask(
        self, question: Question[A, R], args: A, nodes: Collection[str], send: Callable[[Ask], Awaitable[None]]
    ) -> Replies[R]:
        """Ask, and wait for all the answers, or until the time is over.

        Args:
            question: what.
            args: its arguments.
            nodes: who is to answer; where nobody is, it is only sent.
            send: brings it to them.
        """
        replies: Replies[R] = Replies()
        number = next(self._ids)
        pending = self._pending[number] = _Pending(nodes)
        try:
            with contextlib.suppress(TimeoutError, BackplaneUnavailable):
                async with asyncio.timeout(self._timeout):
                    await send(Ask(number, question.what, msgspec.Raw(_encode(args))))
                    pending.check()
                    await pending.is_complete.wait()
        finally:
            del self._pending[number]
        decoder = msgspec.msgpack.Decoder(question.result)
        bad: set[str] = set()
        for node_id, answer in pending.answers.items():
            if answer.error:
                replies.errors[node_id] = answer.error
                continue
            try:
                replies.by_node[node_id] = _read(question, decoder, b"".join(pending.parts[node_id]))
            except Foreign as error:
                self._refuse(f"the answers to {question.what}", error)
                bad.add(node_id)
        replies.missing = frozenset(pending.waits_for | bad)
        return replies

    def answered(self, node_id: str, answer: Answer) -> None:
        """An answer came."""
        pending = self._pending.get(answer.id)
        if pending is None or node_id not in pending.waits_for:
            return  # too late
        pending.parts.setdefault(node_id, []).append(answer.result)
        if not answer.more:
            pending.waits_for.discard(node_id)
            pending.answers[node_id] = answer
            pending.check()

    def gone(self, node_id: str) -> None:
        """A node is gone: nobody needs to wait for it."""
        for pending in self._pending.values():
            pending.gone.add(node_id)
            pending.check()

    # --- answering

    def on(self, question: Question[A, R], handler: Callable[[A], Awaitable[R]]) -> None:
        """Answer a question with what a function returns; what it raises of this package's own is told."""
        self._handlers[question.what] = (msgspec.msgpack.Decoder(question.args), handler)

    def asked(self, ask: Ask, reply: Callable[[Answer], Awaitable[None]]) -> None:
        """A question came."""
        if len(self._answering) < MAX_ANSWERING:
            task = asyncio.create_task(self._answer(ask, reply))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def close(self) -> None:
        """Answer nothing more."""
        tasks = list(self._answering)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _answer(self, ask: Ask, reply: Callable[[Answer], Awaitable[None]]) -> None:
        result, error = b"", ""
        found = self._handlers.get(ask.what)
        if found is None:
            error = f"{ask.what} is not known here"
        else:
            decoder, handler = found
            try:
                result = _encode(await handler(decode_as(decoder, ask.args)))
            except Foreign as failure:
                self._refuse(f"the questions of {ask.what}", failure)
                error = str(failure)
            except (VelocityError, UnicodeEncodeError) as failure:
                error = f"{type(failure).__name__}: {failure}"
            except Exception as failure:
                log.exception("a question of another node failed: %s", quote(ask.what))
                error = f"it failed: {type(failure).__name__}"
        parts = [result[at : at + PART] for at in range(0, len(result), PART)] or [b""]
        with contextlib.suppress(BackplaneUnavailable):
            for number, part in enumerate(parts, 1):
                await reply(Answer(ask.id, part, error[:MAX_ERROR], len(parts) - number))


def _read(question: Question[A, R], decoder: msgspec.msgpack.Decoder[R], data: bytes) -> R:
    result = decode_as(decoder, data)
    if question.is_good is not None and not question.is_good(result):
        raise Foreign("something in it is out of its bounds")
    return result
