"""``nats://``: logs in JetStream, the store of a NATS server. Knows no client.

The newest entry and all that is known of the log are one message, of one subject for each log; older entries lie in a
ring of subjects, which is read by name. Chosen by measuring, on nats-server 2.15 with 100 entries of 128 bytes in each
of 1,000 rooms: an append takes 30 µs of the server's CPU, in memory and on disk, and one that looks at the whole ring
for the newest takes 190; an atomic batch of two messages takes 40 µs in memory, and 2 to 4 ms on disk.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Sequence
from typing import Literal

from velocity_ws.backplane.urls import PREFIX
from velocity_ws.history.entries import STAMP_SIZE
from velocity_ws.history.items import (
    KEPT_SIZE,
    SECRET_SIZE,
    Append,
    Appended,
    Log,
    Lookup,
    Query,
    Range,
    Refused,
    Removal,
    Top,
    granted,
    too_large,
)
from velocity_ws.history.jetstream import JetStream
from velocity_ws.history.nats_appending import append_to_log
from velocity_ws.history.nats_head import Head
from velocity_ws.history.nats_logs import HEADERS, NatsLogs, State
from velocity_ws.history.nats_messages import Message, WrongSequence
from velocity_ws.history.nats_reading import read_range
from velocity_ws.history.nats_requests import side_by_side
from velocity_ws.history.nats_revising import purge, revise
from velocity_ws.history.nats_store import NatsStore
from velocity_ws.history.nats_stream import Names

__all__ = ["NatsHistory"]


class NatsHistory(NatsStore[JetStream]):
    """``nats://`` and ``tls://``; several servers are separated by commas. On the broker's loop only."""

    def __init__(self, url: str, *, prefix: str = PREFIX, storage: Literal["file", "memory"] = "file") -> None:
        """
        Args:
            url: as for `NatsStore`.
            prefix: what the topics of the application begin with; each has a stream of its own.
            storage: where the stream is kept, if it is made.
        """
        self._names = Names(prefix)
        super().__init__(url, storage, self._names.wanted, "history")
        self.max_payload = 1024 * 1024 - STAMP_SIZE - HEADERS
        self._logs: NatsLogs | None = None

    def _make(self) -> JetStream:
        return JetStream(self._names.stream, self._names.anchor)

    async def _use(self, stream: JetStream) -> None:
        logs = NatsLogs(stream, self._names)
        await logs.now()
        self._logs = logs
        self.max_payload = logs.max_payload

    async def append(self, appends: Sequence[Append]) -> list[Appended | Refused]:
        """See `HistoryStore.append`."""
        logs = self._connected()
        if len(appends) == 1:
            return await append_to_log(logs, appends, self.max_payload)
        by_topic: dict[str, list[int]] = {}
        for index, each in enumerate(appends):
            by_topic.setdefault(each.log.topic, []).append(index)
        groups = list(by_topic.values())
        with logs.stream.together():
            done = await side_by_side(
                [append_to_log(logs, [appends[index] for index in group], self.max_payload) for group in groups]
            )
        results: dict[int, Appended | Refused] = {}
        for group, found in zip(groups, done, strict=True):
            results |= zip(group, found, strict=True)
        return [results[index] for index in range(len(appends))]

    async def tops(self, logs: Sequence[Log]) -> list[Top | Refused]:
        """See `HistoryStore.tops`."""
        engine = self._connected()
        known = await self._known(logs)
        now = await engine.now()
        found = [known[log.topic] for log in logs]
        return [each if isinstance(each, Refused) else each[1].top(now) for each in found]

    async def read(self, queries: Sequence[Query]) -> list[Range | Refused]:
        """See `HistoryStore.read`."""
        engine = self._connected()
        known = await self._known([query.log for query in queries])

        async def one(query: Query) -> Range | Refused:
            found = known[query.log.topic]
            return found if isinstance(found, Refused) else await read_range(engine, query, *found)

        return await side_by_side([one(query) for query in queries])

    async def remove(self, removals: Sequence[Removal]) -> list[Top | Refused]:
        """See `HistoryStore.remove`."""
        logs = self._connected()
        results: list[Top | Refused] = []
        for removal in removals:
            try:
                granted(too_large(removal.notice, self.max_payload))
                _, top = await revise(logs, removal.log, removal.notice, removal.user)
                results.append(top)
            except Refused as refusal:
                results.append(refusal)
        return results

    async def removed(self, lookups: Sequence[Lookup]) -> list[int]:
        """See `HistoryStore.removed`."""
        logs = self._connected()
        topics = {lookup.log.topic for lookup in lookups}
        states, found = await logs.states(topics, [logs.names.removals(topic) for topic in topics])
        now = await logs.now()
        results: list[int] = []
        for lookup in lookups:
            head = states[lookup.log.topic].head
            if head is None or not head.is_known(now):
                results.append(0)
            else:
                removals = logs.removals_of(head, found.get(logs.names.removals(lookup.log.topic)))
                results.append(removals.removed(lookup.user))
        return results

    async def clear(self, log: Log, notice: bytes = b"") -> Top:
        """See `HistoryStore.clear`."""
        logs = self._connected()
        granted(too_large(notice, self.max_payload))
        state, top = await revise(logs, log, notice)
        await purge(logs, log.topic, state.sequence)
        return top

    async def secret(self, name: str) -> bytes:
        """See `HistoryStore.secret`."""
        stream, subject = self._connected().stream, self._names.secret(name)
        while True:
            found = (await stream.last([subject])).get(subject)
            if found is not None:
                return found.payload
            with contextlib.suppress(WrongSequence):  # another was first
                made = secrets.token_bytes(SECRET_SIZE)
                await stream.store([Message(subject, made)], (subject, 0))
                return made

    async def keep(self, name: str, value: bytes) -> None:
        """See `HistoryStore.keep`."""
        stream = self._connected().stream
        granted(too_large(value, min(KEPT_SIZE, self.max_payload)))
        await stream.store([Message(self._names.kept(name), value)])

    async def kept(self, name: str) -> bytes | None:
        """See `HistoryStore.kept`."""
        stream, subject = self._connected().stream, self._names.kept(name)
        found = (await stream.last([subject])).get(subject)
        return None if found is None else found.payload

    async def close(self) -> None:
        """See `HistoryStore.close`."""
        self._logs = None
        await super().close()

    async def _known(self, asked: Iterable[Log]) -> dict[str, tuple[State, Head] | Refused]:
        """Each log as it is now; a new epoch where it was not known."""
        logs = self._connected()
        by_topic = {log.topic: log for log in asked}
        states, _ = await logs.states(by_topic)

        async def one(log: Log) -> tuple[State, Head] | Refused:
            try:
                return await logs.known(log, states[log.topic])
            except Refused as refusal:
                return refusal

        known = await side_by_side([one(log) for log in by_topic.values()])
        return dict(zip(by_topic, known, strict=True))

    def _connected(self) -> NatsLogs:
        if self._logs is None:
            raise ConnectionError("there is no connection")
        return self._logs
