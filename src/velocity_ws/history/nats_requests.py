"""Requests: questions to a NATS server and their answers, many at once on one connection. Knows no stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from velocity_ws.backplane.base import Leaving
from velocity_ws.backplane.nats_client import NatsClient
from velocity_ws.history.nats_answers import Answers, Expected, Parts, Question

__all__ = ["Requests", "Sending", "header_of", "side_by_side", "status_of"]


T = TypeVar("T")


def header_of(headers: bytes, name: bytes) -> bytes:
    """The value of a header; empty where there is none."""
    return headers.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


def status_of(headers: bytes) -> bytes:
    """The status of an answer that has no message; empty for others."""
    return headers[9:12] if headers.startswith(b"NATS/1.0 ") else b""


AGAIN = 0.25
"""Seconds after which a question is asked again: a server that is gone, or leads no longer, answers nothing. Doubled
each time, as it may be only slow."""
Sending = tuple[bytes, bytes, bytes]
"""A message that is sent: its subject, its headers, and its payload."""


class _InboxClient(NatsClient):
    """A client whose messages are the answers to requests.

    Attributes:
        expected: what is answered, and which message of those it was, by the last part of the subject of the answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[bytes, tuple[Expected, int]] = {}

    def message(self, number: bytes, subject: bytes, headers: bytes, payload: bytes) -> None:  # noqa: ARG002
        """See `NatsClient.message`."""
        asked = subject[subject.rindex(b".") + 1 :]
        found = self.expected.get(asked)
        if found is not None and found[0].take(found[1], (headers, payload)):
            del self.expected[asked]

    def give_up(self) -> None:
        """See `NatsClient.give_up`."""
        expected, self.expected = self.expected, {}
        for each, _ in expected.values():
            each.fail(self.reason)
        super().give_up()


class Requests:
    """One connection, on which requests are sent. On one loop only; ends with `close`."""

    def __init__(self) -> None:
        self._client = _InboxClient()
        self._inbox = b"_INBOX." + secrets.token_hex(11).encode()
        self._numbers = itertools.count(1)
        self._unsent: list[bytes] = []
        self._together = 0

    async def open(
        self, servers: Collection[str], ended: Callable[[str], object], leave: Callable[[Leaving], object]
    ) -> None:
        """Connect.

        Args:
            servers: the URLs of the servers.
            ended: called with the reason when the connection ends, also by `close`.
            leave: called when another server shall be connected to, as this one is about to go.

        Raises:
            ConnectionError: none can be reached, or it refuses the login.
        """
        client = self._client

        def over() -> None:
            client.give_up()
            ended(client.reason)

        await client.open(servers, over, leave)
        await client.confirm([b"SUB %b.* 1\r\n" % self._inbox])

    @property
    def server(self) -> dict[str, Any]:
        """What the server said of itself."""
        return self._client.server_info

    async def close(self) -> None:
        """End the connection, with what waits for an answer."""
        await self._client.abort()

    async def ask(self, subject: bytes, data: bytes, *, is_many: bool = False) -> Parts:
        """Send a request, again and again while nothing answers it, and wait for its answer.

        Args:
            subject: where to.
            data: the request, which may be answered twice.
            is_many: whether the answer may have many parts, of which the last one has a status and no message.

        Raises:
            ConnectionError: the connection has ended.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Parts] = loop.create_future()
        asked: dict[bytes, Question] = {}
        timer: asyncio.TimerHandle | None = None

        def send(pause: float) -> None:
            nonlocal timer
            if not any(question.parts for question in asked.values()) and self._client.is_usable:
                question = Question(future, is_many=is_many)
                number, reply = self._expect(question, 0)
                asked[number] = question
                self._write(b"PUB %b %b %d\r\n" % (subject, reply, len(data)), data, b"\r\n")
            timer = loop.call_later(pause, send, 2 * pause)

        self._check()
        send(AGAIN)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            for number in asked:
                self._client.expected.pop(number, None)

    def send(self, messages: Sequence[Sending], again: Answers | None = None) -> Answers:
        """Send messages with headers: at once where nothing else is under way, else with all that this turn sends.

        Args:
            messages: one after the other.
            again: the answers to the same messages, which were sent before.

        Returns:
            What answers them.

        Raises:
            ConnectionError: the connection has ended.
        """
        self._check()
        answers = Answers(len(messages)) if again is None else again
        is_alone = not (self._together or self._client.expected or self._unsent)
        commands: list[bytes] = []
        for index, (subject, headers, payload) in enumerate(messages):
            _, reply = self._expect(answers, index)
            size = len(headers) + len(payload)
            commands += (b"HPUB %b %b %d %d\r\n" % (subject, reply, len(headers), size), headers, payload, b"\r\n")
        if is_alone:  # a turn of the loop takes as long as all that is done with the messages here
            self._unsent = commands
            self._flush()
        else:
            self._write(*commands)
        return answers

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Meanwhile several callers send, and all of a turn goes out together, the first of them included."""
        self._together += 1
        try:
            yield
        finally:
            self._together -= 1

    def _write(self, *parts: bytes) -> None:
        """Send with all else that is sent in this turn of the loop: a system call costs more than all before it."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += parts

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        with contextlib.suppress(ConnectionError):  # with which all these requests have failed
            self._client.write(unsent)

    def _check(self) -> None:
        """Check that there is a connection.

        Raises:
            ConnectionError: there is none.
        """
        if not self._client.is_usable:
            raise ConnectionError(self._client.reason)

    def _expect(self, expected: Expected, index: int) -> tuple[bytes, bytes]:
        """Expect an answer; its number, and where it is sent to."""
        number = b"%d" % next(self._numbers)
        self._client.expected[number] = expected, index
        return number, b"%b.%b" % (self._inbox, number)


async def side_by_side(calls: Collection[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of calls that run side by side; when one fails, or this is cancelled, all end."""
    if len(calls) == 1:
        return [await call for call in calls]
    tasks = [asyncio.create_task(call, name="velocity-ws nats") for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
