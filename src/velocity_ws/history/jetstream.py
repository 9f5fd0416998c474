"""JetStream: requests to the store of a NATS server, many at once on one connection. Knows no log."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from velocity_ws.backplane.base import Leaving
from velocity_ws.history.nats_answers import Answers
from velocity_ws.history.nats_messages import (
    Ack,
    Guard,
    InDoubt,
    Message,
    Stored,
    WrongSequence,
    end_of_headers,
    parse_ack,
    stored_by_subject,
)
from velocity_ws.history.nats_requests import AGAIN, Requests, header_of, status_of

__all__ = ["JetStream", "TooMany"]

PAGE = 1000
"""Subjects of one request; the server answers at most 1,024."""
MOST_BYTES = 8 * 1024 * 1024
"""Bytes of one answer, about; a server cuts connections for which it has much more waiting."""
FIRST_PAUSE, LAST_PAUSE = 0.001, 0.032
"""Seconds, about, before what is refused for a moment is tried again; doubled each time, and the most."""
_GONE = b"503"
_NOT_FOUND = b"404"
_TOO_MANY = b"413"
_END = b"204"


class TooMany(Exception):
    """More subjects have messages than a server answers at once."""


class JetStream:
    """One connection, and one stream. On one loop only; ends with `close`.

    Attributes:
        replicas: how many servers have the stream. Each of them answers what is read, so that with several one has to
            be found that is not behind.
    """

    def __init__(self, stream: str, anchor: str) -> None:
        """
        Args:
            stream: its name.
            anchor: a subject of it that nothing else uses.
        """
        self.replicas = 1
        self._stream = stream
        self._anchor = anchor
        self._requests = Requests()
        self._left: list[Answers] = []

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
        await self._requests.open(servers, ended, leave)

    @property
    def server(self) -> dict[str, Any]:
        """What the server said of itself."""
        return self._requests.server

    async def close(self) -> None:
        """End the connection, with what waits for an answer."""
        await self._requests.close()

    def together(self) -> AbstractContextManager[None]:
        """See `Requests.together`."""
        return self._requests.together()

    async def api(self, name: str, body: object = None) -> dict[str, Any]:
        """Ask the server about streams; the answer may have an ``error``.

        Raises:
            ConnectionError: there is no JetStream, or the connection has ended.
        """
        data = b"" if body is None else msgspec.json.encode(body)
        (headers, answer), *_ = await self._requests.ask(f"$JS.API.{name}".encode(), data)
        if status_of(headers) == _GONE:
            raise ConnectionError("no server answers for JetStream")
        found: dict[str, Any] = msgspec.json.decode(answer)
        return found

    async def store(self, messages: Sequence[Message], guard: Guard = None) -> int:
        """Store messages, one after the other and each by itself: in one round trip, or in one each with replicas.

        Args:
            messages: of which none but the last one is of a subject of the guard.
            guard: what each of them is stored under.

        Returns:
            The sequence of the last one.

        Raises:
            WrongSequence: the guard of the last one has refused it.
            Refused: the last one is not stored, as the server cannot.
            InDoubt: the last one may be stored, and replaced by another, or not.
            ConnectionError: it may be stored, or not.
        """
        if self._left:
            await self._settle()
        if self.replicas > 1 and guard is not None:
            return await self._store_each(messages, guard)
        *first, last = messages
        *acks, ack = await self._send_all([*first, last], guard)
        sequence = ack.sequence()
        again = [message for message, ack in zip(first, acks, strict=True) if ack.error is not None]
        if again:  # there was no room for them until the last one had replaced another
            await self._send_all(again, guard and (guard[0], sequence))
        return sequence

    async def _store_each(self, messages: Sequence[Message], guard: tuple[str, int]) -> int:
        """Store messages, each once the one before is there, as another server may lead from then on."""
        sequence = 0
        for message in messages:
            sequence = await self._store_one(message, guard, is_last=message is messages[-1])
        return sequence

    async def _store_one(self, message: Message, guard: tuple[str, int], *, is_last: bool) -> int:
        """Store a message on several servers, be it that it is sent several times.

        A server answers nothing where it is gone, or leads no longer. Then the message is sent again: the guard lets
        one of them in at most, and what a server that led has left behind is settled before the next one leads. Where
        one may have been let in, it is looked for.

        The server also refuses what meets another message under the same guard before all replicas have that, be it of
        this connection (nats-server 2.15). That says nothing of the guard: it is sent again, as to read and to make all
        of it anew would only meet more.
        """
        sending = [message.sent(end_of_headers(guard, message.subject))]
        is_in_doubt, pause = False, FIRST_PAUSE
        while True:
            answers, wait = self._requests.send(sending), AGAIN
            try:
                await answers.wait(wait)
                while not answers.are_there:
                    is_in_doubt, wait = True, 2 * wait
                    self._requests.send(sending, answers)
                    await answers.wait(wait)
            finally:
                self._leave(answers)
            ((answered, answer),) = answers.parts
            if status_of(answered) != _GONE:  # else none leads now
                ack = parse_ack(answer)
                if is_in_doubt and is_last and ack.is_guarded:
                    return await self._look_for(message)
                if not ack.is_momentary:
                    return ack.sequence()
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            pause = min(2 * pause, LAST_PAUSE)

    async def _look_for(self, message: Message) -> int:
        """The sequence of a message that may have been stored, where it is the last one of its subject.

        Raises:
            InDoubt: it is not.
        """
        found = (await self.last([message.subject])).get(message.subject)
        if found is None or found.payload != message.payload or message.headers not in found.headers:
            raise InDoubt("the engine did not confirm it while another server began to lead")
        return found.sequence

    async def _send_all(self, messages: Sequence[Message], guard: Guard) -> list[Ack]:
        end = end_of_headers(guard)
        answers = self._requests.send([message.sent(end) for message in messages])
        try:
            await answers.wait()
        finally:
            self._leave(answers)
        acks: list[Ack] = []
        for headers, answer in answers.parts:
            if status_of(headers) == _GONE:
                raise ConnectionError(f"the stream {self._stream} is gone")
            acks.append(parse_ack(answer))
        return acks

    async def last(self, subjects: Sequence[str]) -> dict[str, Stored]:
        """The last message of each of these subjects that has one, as of one moment for each `PAGE` of them.

        All that was stored on any connection before it is called is seen.

        Raises:
            ConnectionError: the connection has ended, or the stream is gone.
        """
        await self._settle()
        least = await self._least()
        pages = [subjects[first : first + PAGE] for first in range(0, len(subjects), PAGE)]
        found: dict[str, Stored] = {}
        for each in await asyncio.gather(*[self._last(page, least) for page in pages]):
            found |= each
        return found

    async def info(self) -> dict[str, Any]:
        """What the server that leads the stream says of it, its clock included.

        Raises:
            ConnectionError: the connection has ended, or the stream is gone.
        """
        answer = await self.api(f"STREAM.INFO.{self._stream}")
        if "state" not in answer:
            raise ConnectionError(f"the stream {self._stream} is gone")
        self.replicas = answer["config"].get("num_replicas", 1)
        return answer

    async def _least(self) -> int:
        """How far a server that is read must be; 0 where there is only one."""
        return int((await self.info())["state"]["last_seq"]) if self.replicas > 1 else 0

    def _leave(self, answers: Answers) -> None:
        """Nobody waits for these answers any more; where they are not there, they come still."""
        if not answers.are_there:
            self._left.append(answers)

    async def _settle(self) -> None:
        """Wait for what was sent by calls that were cancelled: a server may read before it stores what came first."""
        while self._left:
            await self._left[-1].wait()
            self._left = [answers for answers in self._left if not answers.are_there]

    async def _last(self, subjects: Sequence[str], least: int) -> dict[str, Stored]:
        """A page of `last`, from a server that has all up to the sequence ``least``."""
        found: dict[str, Stored] = {}
        while True:
            wanted = [subject for subject in subjects if subject not in found]
            stored, is_all = await self._read({"multi_last": wanted}, least)
            found |= stored_by_subject(stored)
            if is_all:  # else one that was there has gone meanwhile, or there is more
                return found

    async def _read(self, question: dict[str, Any], least: int) -> tuple[list[Stored], bool]:
        """What answers a question of several messages, and whether it is all, from a server that has all up to the
        sequence ``least``.

        An answer says what its server has only where something is found: hence the anchor.

        Raises:
            TooMany: there are more than it answers.
            ConnectionError: the connection has ended, or the stream is gone.
        """
        pause = FIRST_PAUSE
        address = b"$JS.API.DIRECT.GET." + self._stream.encode()
        if least:
            question = {**question, "multi_last": [*question["multi_last"], self._anchor]}
        body = msgspec.json.encode({"max_bytes": MOST_BYTES, **question})
        while True:
            *parts, (end, _) = await self._requests.ask(address, body, is_many=True)
            status, is_empty = status_of(end), b"No Results" in end
            if status == _GONE and self.replicas == 1:
                raise ConnectionError(f"the stream {self._stream} is gone")
            if status == _TOO_MANY:
                raise TooMany
            if status not in (_GONE, _END, _NOT_FOUND):
                raise ConnectionError(f"the engine does not read: {end[9:80]!r}")
            if status == _GONE or least > int(header_of(end, b"Nats-UpTo-Sequence") or 0):
                if is_empty:
                    await self._drop_anchor()
                await asyncio.sleep(pause)  # until it has more, or another answers; at first none may
                pause = min(2 * pause, LAST_PAUSE)
                continue
            is_all = status == _NOT_FOUND or header_of(end, b"Nats-Num-Pending") in (b"", b"0")
            return [Stored(int(header_of(each, b"Nats-Sequence")), data, each) for each, data in parts], is_all

    async def _drop_anchor(self) -> None:
        """Store the anchor, where it is not there.

        Raises:
            Refused: it cannot be.
        """
        with contextlib.suppress(WrongSequence):  # another was first
            await self._store_one(Message(self._anchor, b""), (self._anchor, 0), is_last=False)
