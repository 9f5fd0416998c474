"""NatsConnection: what is stored and read of streams on one connection to JetStream. Knows no stream's content."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from velocity_ws.history.items import Refused
from velocity_ws.history.jetstream import JetStream, TooMany
from velocity_ws.history.nats_messages import (
    Guard,
    InDoubt,
    Message,
    Stored,
    WrongSequence,
    end_of_headers,
    parse_ack,
    stored_by_subject,
)
from velocity_ws.history.nats_requests import Sending, side_by_side, status_of

__all__ = ["Chain", "NatsConnection", "Outcome"]

FILTERS = 400
"""Filters of one question, each for two messages or three; the server answers at most 1,024."""
MOST_AT_ONCE = 1000
"""Messages of one answer, where nothing else bounds them."""
_GONE = b"503"

Chain = tuple[Sequence[Message], Guard]
"""Messages of which one is stored after the other, and what each of them is stored under."""
Outcome = int | WrongSequence | InDoubt | Refused
"""The sequence of the last message of a chain, or why it is not stored; `InDoubt` where that is not known."""


class NatsConnection(JetStream):
    """One connection, and one stream. On one loop only; ends with `close`."""

    async def store_each(self, chains: Sequence[Chain]) -> list[Outcome]:
        """Store chains of messages side by side: in one round trip, or in one for each message with replicas.

        Raises:
            ConnectionError: each may be stored, or not.
        """
        await self._settle()
        if self.replicas > 1:
            return await side_by_side([self._store_chain(*chain) for chain in chains]) if chains else []
        sendings: list[Sending] = []
        lasts: list[int] = []
        for messages, guard in chains:
            sendings += [message.sent(end_of_headers(guard, message.subject)) for message in messages]
            lasts.append(len(sendings) - 1)
        answers = self._requests.send(sendings)
        try:
            await answers.wait()
        finally:
            self._leave(answers)
        parts = answers.parts
        return [self._outcome(*parts[last]) for last in lasts]

    def _outcome(self, headers: bytes, answer: bytes) -> Outcome:
        if status_of(headers) == _GONE:
            raise ConnectionError(f"the stream {self._stream} is gone")
        ack = parse_ack(answer)
        if ack.error is None:
            return ack.seq
        try:
            return ack.sequence()
        except (WrongSequence, Refused) as error:
            return error

    async def _store_chain(self, messages: Sequence[Message], guard: Guard) -> Outcome:
        try:
            return await self.store(messages, guard)
        except (WrongSequence, InDoubt, Refused) as error:
            return error

    async def heads(self, filters: Sequence[str]) -> dict[str, Stored]:
        """The last message of each of the subjects that match filters, by subjects; as of one moment for each filter.

        All that was stored on any connection before it is called is seen.

        Args:
            filters: subjects, which may have ``*``, for three messages each at most.

        Raises:
            ConnectionError: the connection has ended, or the stream is gone.
        """
        await self._settle()
        least = await self._least()
        pages = [filters[first : first + FILTERS] for first in range(0, len(filters), FILTERS)]
        found: dict[str, Stored] = {}
        for each in await asyncio.gather(*[self._heads(page, least) for page in pages]):
            found |= each
        return found

    async def _heads(self, filters: Sequence[str], least: int) -> dict[str, Stored]:
        while True:
            stored, is_all = await self._read({"multi_last": filters}, least)
            if is_all:
                return stored_by_subject(stored)
            if len(filters) > 1:
                break
        # One that was there has gone meanwhile, as another has taken its place; or they are too large for one answer.
        middle = len(filters) // 2
        return await self._heads(filters[:middle], least) | await self._heads(filters[middle:], least)

    async def matching(self, subjects: str) -> list[Stored]:
        """The last message of each subject that matches, in order.

        Raises:
            ConnectionError: the connection has ended, or the stream is gone.
        """
        await self._settle()
        try:
            stored, is_all = await self._read({"multi_last": [subjects]}, await self._least())
            if is_all:
                return [each for each in stored if each.header(b"Nats-Subject") != self._anchor.encode()]
        except TooMany:
            pass
        found: dict[str, Stored] = {}
        sequence, is_all = 1, False
        while not is_all:
            stored, is_all = await self.following(subjects, sequence)
            found |= stored_by_subject(stored)
            sequence = stored[-1].sequence + 1 if stored else sequence
        return sorted(found.values())

    async def following(self, subjects: str, sequence: int, most: int = MOST_AT_ONCE) -> tuple[list[Stored], bool]:
        """Messages of subjects that match, in order, and whether there are no more; of a server that may be behind.

        Args:
            subjects: one, or those that match.
            sequence: that of the first one, or one before it.
            most: how many, at most.

        Raises:
            ConnectionError: the connection has ended, or the stream is gone.
        """
        return await self._read({"next_by_subj": subjects, "seq": sequence, "batch": most}, 0)

    async def at(self, sequence: int) -> Stored | None:
        """The message of a sequence; ``None`` where there is none, or the server that was asked is behind.

        Raises:
            ConnectionError: the connection has ended.
        """
        ((headers, payload),) = await self._requests.ask(
            b"$JS.API.DIRECT.GET." + self._stream.encode(), b'{"seq":%d}' % sequence
        )
        return None if status_of(headers) else Stored(sequence, payload, headers)

    async def purge(self, subjects: str, before: int) -> None:
        """Remove messages of subjects that match, up to the one before a sequence.

        Raises:
            ConnectionError: they may be removed, or not.
        """
        await self._settle()
        answer = await self.api(f"STREAM.PURGE.{self._stream}", {"filter": subjects, "seq": before})
        if "error" in answer:
            raise ConnectionError(f"the engine does not purge: {answer['error'].get('description', '')}")
