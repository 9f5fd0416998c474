"""Sweeping: removes what is left of streams on NATS that are gone. Knows no URL.

Records go by themselves, in the time that they are given. Pieces cannot: when they are stored, nobody knows how long
the stream lives. They are found by their index, which has no expiry either. So what is gone is removed when any node
next begins a stream, or renews one, whether it knew of it or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from velocity_ws.history.nats_messages import Message, Stored
from velocity_ws.history.nats_stream import token
from velocity_ws.streams.nats_engine import NatsEngine
from velocity_ws.streams.nats_state import time_of

__all__ = ["INTERVAL", "sweep"]

INTERVAL: Final = 30.0
"""Seconds from one look for what is gone to the next, by one node of all."""
AT_ONCE: Final = 400


async def sweep(engine: NatsEngine) -> None:
    """Remove what is gone, where nobody has done so lately.

    Raises:
        OSError: not all of it may be removed.
    """
    turn = engine.names.turn
    (outcome,) = await engine.stream.store_each([([Message(turn, b"", int(INTERVAL * 1000))], (turn, 0))])
    sequence, is_all = 1, not isinstance(outcome, int)
    while not is_all:
        indexes, is_all = await engine.stream.following(engine.names.indexes, sequence, AT_ONCE)
        now = await engine.now()
        await _remove(engine, [each for each in indexes if now >= time_of(each) + int(each.payload)])
        sequence = indexes[-1].sequence + 1 if indexes else sequence


async def _remove(engine: NatsEngine, indexes: Sequence[Stored]) -> None:
    """Remove the streams of indexes, and the indexes, where these are gone."""
    if not indexes:
        return
    subjects = [each.header(b"Nats-Subject").decode() for each in indexes]
    keys = [subject.rpartition(".")[2] for subject in subjects]
    states = await engine.settle(set(keys))
    now = await engine.now()
    for index, subject, key in zip(indexes, subjects, keys, strict=True):
        state = states[key]
        record = None if state is None else state.known(now)
        is_gone = record is None or state is None or now >= state.gone_at(record)
        place = subject.split(".")[-2]
        if record is not None and token(record.topic) == place and not is_gone:
            continue
        # Not what came after: it may be of one that has begun anew.
        if state is not None and is_gone:
            await engine.stream.purge(engine.names.pieces(key, place), state.newest + 1)
        await engine.stream.purge(subject, index.sequence + 1)
