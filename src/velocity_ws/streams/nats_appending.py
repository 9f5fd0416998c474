"""Appending: pieces that go into streams on NATS, in one round trip for all of them. Knows no URL."""

from __future__ import annotations

from collections.abc import Sequence

from velocity_ws.history.items import Refused, too_large
from velocity_ws.streams.items import Append, Written
from velocity_ws.streams.nats_connection import Chain
from velocity_ws.streams.nats_engine import NatsEngine
from velocity_ws.streams.nats_state import Tail
from velocity_ws.streams.nats_work import NatsWork
from velocity_ws.streams.pieces import peek

__all__ = ["append_each"]

Tails = dict[str, Tail]


async def append_each(engine: NatsEngine, appends: Sequence[Append]) -> list[Written | Refused]:
    """Append to different streams; see `StreamStore.append`.

    It is done without asking where the next piece goes, as the engine refuses what goes elsewhere. Where it does, or
    this connection has not written to the stream, the stream is read.

    Raises:
        ConnectionError: each may be done, or not.
    """
    work: NatsWork[Append, Written] = NatsWork(engine, appends)
    for key, append in work.items.items():
        refusal = too_large(append.head + append.payload, engine.max_payload)
        if refusal is not None:
            work.settle(key, refusal)
    ended: list[str] = []
    while waiting := work.waiting:
        now = await engine.now()
        tails = {key: tail for key in waiting if (tail := _known(work, key, now)) is not None}
        ended += await _look(work, [key for key in waiting if key not in tails], tails, now)
        ended += await _store(work, tails)
    if ended:
        await engine.settle(ended)
    return work.results


def _known(work: NatsWork[Append, Written], key: str, now: int) -> Tail | None:
    """Where a piece goes, as far as is known here."""
    tail, append = work.engine.tail(key), work.items[key]
    if tail is None or tail.writer != append.writer or now >= tail.until:
        return None
    return tail if tail.pieces == peek(append.payload)[0] else None


async def _look(work: NatsWork[Append, Written], keys: Sequence[str], tails: Tails, now: int) -> list[str]:
    """Where pieces go, or what has become of them, by what the streams are; those that have ended with them."""
    ended: list[str] = []
    states = (await work.engine.states(keys))[0] if keys else {}
    for key, state in states.items():
        judged: Written | Tail = Written(is_taken=False)
        if state is not None and state.record is not None:
            judged = state.judge(work.items[key], work.subjects(key, state.record.topic), now)
        if isinstance(judged, Tail):
            tails[key] = judged
            continue
        work.settle(key, judged)
        if judged.is_taken and judged.end:
            ended.append(key)
    return ended


async def _store(work: NatsWork[Append, Written], tails: Tails) -> list[str]:
    """Store pieces; those that have ended with them."""
    engine = work.engine
    chains: dict[str, Chain] = {}
    for key, tail in tails.items():
        append = work.items[key]
        chains[key] = [engine.piece(tail.subjects.pieces, append.head, append.payload, tail.mark)], tail.guard
        engine.drop(key)  # until it is known what became of it
    ended: list[str] = []
    for key, sequence in (await work.store(chains)).items():
        _, start, _, end = peek(work.items[key].payload)
        work.settle(key, Written(is_taken=True, end=end))
        if end:
            ended.append(key)
        else:
            engine.keep(key, tails[key].after(sequence, start))
    return ended
