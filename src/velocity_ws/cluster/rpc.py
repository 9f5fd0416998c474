"""RPC: procedures that nodes call on each other, answered within a timeout, and notifications without an answer.

Knows neither what the procedures do nor how bytes travel.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from velocity_ws.cluster.envelopes import InvalidEnvelope, Notification, Request, Response, decode_as
from velocity_ws.errors import BackplaneUnavailable, VelocityError
from velocity_ws.logs import get_logger, quote

__all__ = ["UNKNOWN", "Procedure", "Replies", "Rpc"]

log = get_logger("velocity_ws.cluster")

UNKNOWN = "is not known here"
"""How the error of a node ends that does not know a procedure, as it is of an older version."""
A = TypeVar("A")
R = TypeVar("R")

PART = 256 * 1024
"""Bytes of a result that travel in one envelope: each engine carries them, and some carry no more than 1 MiB."""
MAX_ERROR = 1000
"""Characters of what is told why a request is not answered with a result."""
MAX_RUNNING = 1000
"""Requests that run at once. More are dropped, and their callers see a node that does not answer."""

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Procedure(Generic[A, R]):
    """Something that one node may call on another, and what its arguments and its result look like.

    Attributes:
        what: its name between nodes; a part of the wire.
        args: the type of the arguments.
        result: the type of the result.
        is_valid: whether a result of that type is one, where the type does not say all.
        is_order: whether it is something to do, which is sent to all nodes even where none is heard of now.
    """

    what: str
    args: type[A]
    result: type[R]
    is_valid: Callable[[R], bool] | None = None
    is_order: bool = False


@dataclass
class Replies(Generic[R]):
    """What came back from the nodes that were called.

    Attributes:
        by_node: results, by node id.
        missing: ids of nodes that did not answer in time, or could not be called.
        errors: what the nodes said that could not answer, by node id.
        is_sent: whether the engine has confirmed that it took the call.
    """

    by_node: dict[str, R] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    errors: dict[str, str] = field(default_factory=dict)
    is_sent: bool = False


class _Call:
    """A call whose responses are waited for."""

    def __init__(self, nodes: Collection[str]) -> None:
        self.waits_for = set(nodes)
        self.gone: set[str] = set()
        self.parts: dict[str, list[bytes]] = {}
        self.responses: dict[str, Response] = {}
        self.is_complete = asyncio.Event()

    def check(self) -> None:
        if self.waits_for <= self.gone:
            self.is_complete.set()


class Rpc:
    """Both sides of a call, and notifications, which have no response. On the broker's loop only."""

    def __init__(self, timeout: float, refuse: Callable[[str, InvalidEnvelope], None]) -> None:
        """
        Args:
            timeout: seconds a call waits for its responses.
            refuse: told where something invalid came from, and why it is invalid.
        """
        self._timeout = timeout
        self._refuse = refuse
        self._ids = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._procedures: dict[str, tuple[msgspec.msgpack.Decoder[Any], Callable[[Any], Awaitable[Any]]]] = {}
        self._at_once: dict[str, Callable[[msgspec.Raw], bytes]] = {}
        self._notified: dict[str, tuple[msgspec.msgpack.Decoder[Any], Callable[[str, Any], None]]] = {}
        self._running: set[asyncio.Task[None]] = set()

    # --- the caller's side

    async def call(
        self, procedure: Procedure[A, R], args: A, nodes: Collection[str], send: Callable[[Request], Awaitable[None]]
    ) -> Replies[R]:
        """Call a procedure, and wait until all nodes have answered or the time is over.

        Args:
            procedure: which one.
            args: its arguments.
            nodes: ids of the nodes that are to answer; where there are none, the request is only sent.
            send: brings it to them.
        """
        replies: Replies[R] = Replies()
        number = next(self._ids)
        call = self._calls[number] = _Call(nodes)
        try:
            with contextlib.suppress(TimeoutError, BackplaneUnavailable):
                async with asyncio.timeout(self._timeout):
                    await send(Request(number, procedure.what, msgspec.Raw(_encode(args))))
                    replies.is_sent = True
                    call.check()
                    await call.is_complete.wait()
        finally:
            del self._calls[number]
        decoder = msgspec.msgpack.Decoder(procedure.result)
        invalid: set[str] = set()
        for node_id, response in call.responses.items():
            if response.error:
                replies.errors[node_id] = response.error
                continue
            try:
                replies.by_node[node_id] = _read(procedure, decoder, b"".join(call.parts[node_id]))
            except InvalidEnvelope as error:
                self._refuse(f"the answers to {procedure.what}", error)
                invalid.add(node_id)
        replies.missing = frozenset(call.waits_for | invalid)
        return replies

    def response_received(self, node_id: str, response: Response) -> None:
        """Take a response, or a part of one. One that comes too late is ignored."""
        call = self._calls.get(response.id)
        if call is None or node_id not in call.waits_for:
            return
        call.parts.setdefault(node_id, []).append(response.result)
        if not response.more:
            call.waits_for.discard(node_id)
            call.responses[node_id] = response
            call.check()

    def node_down(self, node_id: str) -> None:
        """Wait no longer for a node, which is gone."""
        for call in self._calls.values():
            call.gone.add(node_id)
            call.check()

    # --- the called side

    def register(self, procedure: Procedure[A, R], handler: Callable[[A], Awaitable[R]]) -> None:
        """Answer the calls of a procedure.

        Args:
            procedure: which one.
            handler: takes the arguments and returns the result. The caller is told the text of a `VelocityError` it
                raises, and of any other error only the type.
        """
        self._procedures[procedure.what] = (msgspec.msgpack.Decoder(procedure.args), handler)

    def register_at_once(self, procedure: Procedure[A, R], function: Callable[[A], R]) -> None:
        """Answer the calls of a procedure by what cannot wait, done before anything that arrived later is looked at.

        Args:
            procedure: which one.
            function: takes the arguments and returns the result; it raises what the handler of `register` may raise.
        """
        decoder = msgspec.msgpack.Decoder(procedure.args)
        self._at_once[procedure.what] = lambda args: _encode(function(decode_as(decoder, args)))

    def request_received(self, request: Request, reply: Callable[[Response], Awaitable[None]]) -> None:
        """Start to answer a request. Of what is to be done at once, only the answer may be dropped.

        Args:
            request: what came.
            reply: sends a part of the response to the caller.
        """
        done = self._do_at_once(request)
        if len(self._running) < MAX_RUNNING:
            task = asyncio.create_task(self._answer(request, reply, done))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Cancel what still runs, and answer nothing more."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _do_at_once(self, request: Request) -> tuple[bytes, str] | None:
        """The result and the error of what is done at once; ``None`` for all else."""
        function = self._at_once.get(request.what)
        if function is None:
            return None
        try:
            return function(request.args), ""
        except Exception as failure:
            return b"", self._explain(request, failure)

    async def _answer(
        self, request: Request, reply: Callable[[Response], Awaitable[None]], done: tuple[bytes, str] | None
    ) -> None:
        result, error = done or (b"", "")
        if done is None:
            found = self._procedures.get(request.what)
            if found is None:
                error = f"{request.what} {UNKNOWN}"
            else:
                decoder, handler = found
                try:
                    result = _encode(await handler(decode_as(decoder, request.args)))
                except Exception as failure:
                    error = self._explain(request, failure)
        parts = [result[at : at + PART] for at in range(0, len(result), PART)] or [b""]
        with contextlib.suppress(BackplaneUnavailable):
            for number, part in enumerate(parts, 1):
                await reply(Response(request.id, part, error[:MAX_ERROR], len(parts) - number))

    def _explain(self, request: Request, failure: Exception) -> str:
        """What a caller is told of an exception."""
        if isinstance(failure, InvalidEnvelope):
            self._refuse(f"the questions of {request.what}", failure)
            return str(failure)
        if isinstance(failure, VelocityError | UnicodeEncodeError):
            return f"{type(failure).__name__}: {failure}"
        log.error("a question of another node failed: %s", quote(request.what), exc_info=failure)
        return f"it failed: {type(failure).__name__}"

    # --- notifications

    def on_notification(self, what: str, args: type[A], handler: Callable[[str, A], None]) -> None:
        """Have a function called for each notification of a name.

        Args:
            what: the name; a part of the wire.
            args: the type of the content.
            handler: called with the id of the sender and the content.
        """
        self._notified[what] = msgspec.msgpack.Decoder(args), handler

    def notification_received(self, origin: str, notification: Notification) -> None:
        """Give a notification to the function for its name, where there is one.

        Raises:
            InvalidEnvelope: its content has not the shape it should have.
        """
        found = self._notified.get(notification.what)
        if found is not None:
            decoder, handler = found
            handler(origin, decode_as(decoder, notification.args))


def _read(procedure: Procedure[A, R], decoder: msgspec.msgpack.Decoder[R], data: bytes) -> R:
    result = decode_as(decoder, data)
    if procedure.is_valid is not None and not procedure.is_valid(result):
        raise InvalidEnvelope("something in it is out of its bounds")
    return result
