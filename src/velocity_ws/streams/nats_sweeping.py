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
from velocity_ws.streams.nats_state import CLOCKS, State, time_of

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
    states, _ = await engine.states(set(keys))
    gone_before = await engine.now() - CLOCKS  # else a writer may just say that it lives
    gone = {
        key for key, state in states.items() if state and state.record and state.gone_at(state.record) < gone_before
    }
    states |= await engine.settle(gone)
    for index, subject, key in zip(indexes, subjects, keys, strict=True):
        state, place = states[key], subject.split(".")[-2]
        is_known = state is not None and state.record is not None
        if is_known and key not in gone and _topic(state) == place:
            continue
        # Not what came after: it may be of one that has begun anew.
        if state is not None and (key in gone or not is_known):
            await engine.stream.purge(engine.names.pieces(key, place), state.newest + 1)
        await engine.stream.purge(subject, index.sequence + 1)


def _topic(state: State | None) -> str:
    """A stream's topic, as it stands in subjects."""
    return token(state.record.topic) if state is not None and state.record is not None else ""
