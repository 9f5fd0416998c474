"""Ending: leases of writers of streams on NATS, renewed by these, and what others end. Knows no URL."""

from __future__ import annotations

from collections.abc import Sequence

from velocity_ws.history.items import Refused
from velocity_ws.streams.items import Deletion, Ending, Renewal, Summary, Written
from velocity_ws.streams.nats_connection import Chain
from velocity_ws.streams.nats_engine import NatsEngine
from velocity_ws.streams.nats_state import CLOCKS, Record, State
from velocity_ws.streams.nats_work import NatsWork
from velocity_ws.streams.pieces import pack_end

__all__ = ["delete_each", "end_each", "renew_each"]


async def renew_each(engine: NatsEngine, renewals: Sequence[Renewal]) -> list[Written | Refused]:
    """Renew the leases of different streams, in two round trips, or three for one that was over.

    See `StreamStore.renew`.

    Raises:
        ConnectionError: each may be done, or not.
    """
    work: NatsWork[Renewal, Written] = NatsWork(engine, renewals)
    while waiting := work.waiting:
        states, _ = await engine.states(waiting)
        now = await engine.now()
        renewed: dict[str, tuple[State, Record]] = {}
        for key, state in states.items():
            record = None if state is None else state.known(now)
            if state is None or record is None or record.writer != work.items[key].writer:
                work.settle(key, Written(is_taken=False))
            elif state.is_over(record, now):
                work.settle(key, Written(is_taken=False, end=state.end))
            else:
                renewed[key] = state, record
        chains: dict[str, Chain] = {}
        for key, (before, record) in renewed.items():
            after = record.renewed(work.items[key])
            # Not by the pieces: those that are appended meanwhile would keep it from being stored.
            guard = engine.names.record(key), before.sequence
            chains[key] = [engine.record(key, after, now, now + sum(after.times))], guard
        await _confirm(work, renewed, await work.store(chains))
    return work.results


async def _confirm(
    work: NatsWork[Renewal, Written], renewed: dict[str, tuple[State, Record]], stored: dict[str, int]
) -> None:
    """Say of renewals that are stored that they are done. Where a lease was over, it may have ended before."""
    engine, unsure = work.engine, []
    now = await engine.now()
    for key in stored:
        times, (before, record) = work.items[key].times, renewed[key]
        engine.renewed(key, now + times.lease + times.ttl)
        if now < before.time + record.times[0] - CLOCKS:
            work.settle(key, Written(is_taken=True))
        else:
            unsure.append(key)
    states = (await engine.states(unsure))[0] if unsure else {}
    for key, state in states.items():
        end = "" if state is None else state.end
        work.settle(key, Written(is_taken=state is not None and not end, end=end))


async def end_each(engine: NatsEngine, endings: Sequence[Ending]) -> list[Summary | Refused | None]:
    """End different streams, in four round trips; see `StreamStore.end`.

    Raises:
        ConnectionError: each may be done, or not.
    """
    work: NatsWork[Ending, Summary | None] = NatsWork(engine, endings)
    while waiting := work.waiting:
        states, _ = await engine.states(waiting)
        now = await engine.now()
        chains: dict[str, Chain] = {}
        for key, state in states.items():
            record = None if state is None else state.known(now)
            if state is None or record is None:
                work.settle(key, None)
            elif state.is_over(record, now) or (work.items[key].is_of_dead and now < state.time + record.times[0]):
                work.settle(key, state.summary(now))
            else:
                chains[key] = _chain(work, key, state, record)
                engine.drop(key)
        ended = await work.store(chains)
        settled = await engine.settle(ended) if ended else {}
        now = await engine.now()
        for key, after in settled.items():
            work.settle(key, None if after is None else after.summary(now))
    return work.results


async def delete_each(engine: NatsEngine, deletions: Sequence[Deletion]) -> list[Refused | None]:
    """Remove different streams; see `StreamStore.delete`.

    Raises:
        ConnectionError: each may be done, or not.
    """
    keys = {engine.names.key(each.id): each for each in deletions}
    states, _ = await engine.states(keys)
    for key, (_, topic, writer) in keys.items():
        state = states[key]
        if state is not None and state.record is not None and state.record.writer == writer:
            engine.drop(key)
            engine.hints.pop(key, None)
            # Not what came after: it may be of one that has begun anew.
            await engine.stream.purge(engine.names.all_of(key), state.newest + 1)
            await engine.stream.purge(engine.names.index(topic, key), state.newest + 1)
    return [None] * len(deletions)


def _chain(work: NatsWork[Ending, Summary | None], key: str, state: State, record: Record) -> Chain:
    """By the record as well: of a writer that has said meanwhile that it lives, it is asked again whether it does."""
    ending = work.items[key]
    subjects = work.subjects(key, record.topic)
    tail = state.tail(record, subjects)
    payload = pack_end(tail.pieces, state.counts[1], ending.end)
    return [work.engine.piece(subjects.pieces, ending.head, payload, tail.mark)], (subjects.all, state.newest)
