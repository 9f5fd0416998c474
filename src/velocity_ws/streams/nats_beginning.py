"""Beginning: how streams on NATS begin, and what is known of those that are there. Knows no URL."""

from __future__ import annotations

from collections.abc import Sequence

from velocity_ws.history.items import Refused
from velocity_ws.history.nats_messages import Message, Stored
from velocity_ws.streams.items import Began, Begin
from velocity_ws.streams.nats_connection import Chain
from velocity_ws.streams.nats_engine import NatsEngine
from velocity_ws.streams.nats_state import Record, State, time_of
from velocity_ws.streams.nats_work import NatsWork

__all__ = ["begin_each"]


async def begin_each(engine: NatsEngine, begins: Sequence[Begin]) -> list[Began | Refused]:
    """Begin different streams, in two round trips; see `StreamStore.begin`.

    Raises:
        ConnectionError: each may be done, or not.
    """
    work: NatsWork[Begin, Began] = NatsWork(engine, begins)
    while waiting := work.waiting:
        now = await engine.now()
        records = {key: Record.of(work.items[key], now) for key in waiting}
        stored = await work.store({key: _chain(work, key, record, now) for key, record in records.items()})
        # Asked after it has begun: who forbids one looks for it after that, so that one of the two sees the other.
        asked = work.waiting
        known = [key for key in asked if key not in stored]
        states, found = await engine.states(known, [engine.names.forbidden(key) for key in asked])
        now = await engine.now()
        for key in asked:
            if key in stored:
                record = records[key]
                states[key] = state = State(record, stored[key], now)
                engine.keep(key, state.tail(record, work.subjects(key, record.topic)))
            await _judge(work, key, states[key], found.get(engine.names.forbidden(key)), now)
    return work.results


def _chain(work: NatsWork[Begin, Began], key: str, record: Record, now: int) -> Chain:
    """The index first: what has a record is found."""
    begin, names = work.items[key], work.engine.names
    index = Message(names.index(begin.topic, key), b"%d" % begin.times.ttl)
    return [index, work.engine.record(key, record, now, now + sum(begin.times))], (names.all_of(key), 0)


async def _judge(
    work: NatsWork[Begin, Began], key: str, state: State | None, forbidden: Stored | None, now: int
) -> None:
    if state is None:
        return  # it has gone meanwhile
    summary = state.summary(now)
    if summary is None:  # what is left of one that is forgotten
        await work.engine.stream.purge(work.engine.names.all_of(key), state.newest + 1)
        return
    is_forbidden = forbidden is not None and now < time_of(forbidden) + int(forbidden.payload)
    work.settle(key, Began(summary, is_forbidden))
