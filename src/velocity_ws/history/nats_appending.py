"""Appending: entries that go into one log on NATS, one guarded step after the other. Knows no URL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from velocity_ws.history.entries import STAMP_SIZE, Entry, Stamp
from velocity_ws.history.items import KEY_TTL, Append, Appended, Refused, too_large
from velocity_ws.history.nats_head import TABLE, Found, Head, UnknownOldest
from velocity_ws.history.nats_logs import NatsLogs, State
from velocity_ws.history.nats_messages import InDoubt, WrongSequence
from velocity_ws.history.nats_stream import key_name

__all__ = ["append_to_log"]

DIGEST_SIZE: Final = 16
Keys = dict[str, tuple[bytes, Stamp]]
"""Digest and stamp of the entries with idempotency keys, by the names of these."""


async def append_to_log(logs: NatsLogs, appends: Sequence[Append], max_payload: int) -> list[Appended | Refused]:
    """Append to one log, in order, each in one round trip, or two where one has a key; see `HistoryStore.append`.

    Raises:
        ConnectionError: each may be done, or not.
    """
    log = appends[0].log
    names = [key_name(each.key) if each.key else "" for each in appends]
    results: list[Appended | Refused] = []
    state, keys = logs.cached(log.topic), None if any(names) else Keys()
    for append, name in zip(appends, names, strict=True):
        refusal = too_large(append.envelope, max_payload)
        if refusal is not None:
            results.append(refusal)
            continue
        while True:
            if state is None or keys is None:
                state, keys = await _with_keys(logs, log.topic, {each for each in names if each})
            try:
                result, state = await _append(logs, append, name, state, keys)
            except WrongSequence:
                state, keys = None, None
                continue
            except Refused as error:
                result = error
            results.append(result)
            break
    return results


async def _append(
    logs: NatsLogs, append: Append, name: str, state: State, keys: Keys
) -> tuple[Appended | Refused, State]:
    now = await logs.now()
    head = logs.head(append.log, state, now)
    if name and name in keys:
        digest, stamp = keys[name]
        position = stamp.position
        is_valid = position.epoch == head.position.epoch and position.offset > head.cleared
        if is_valid and now < stamp.time + KEY_TTL * 1000:
            state, _ = await logs.known(append.log, state)
            if digest == append.digest:
                return Appended(stamp.pack(), is_duplicate=True), state
            return Refused("conflict", "the key stands for another message, which was first"), state
    while True:
        try:
            after, stamp = head.append(append, name, now)
            break
        except UnknownOldest as unknown:
            head = unknown.head
            own = logs.own.oldest(append.log.topic, head.position, head.oldest, TABLE)
            head = head.learn_own(own) if own else head.learn(await _oldest(logs, append.log.topic, state, head))
    entry, packed = Entry(stamp, append.envelope), stamp.pack()
    try:
        state = await logs.write(append.log.topic, state, after, now, newest=entry, loud=append.envelope + packed)
    except InDoubt:
        state = await _with(logs, append.log.topic, stamp)
    logs.own.add(append.log.topic, stamp, len(append.envelope))
    if name:
        keys[name] = append.digest, stamp
    return Appended(packed), state


async def _with(logs: NatsLogs, topic: str, stamp: Stamp) -> State:
    """A log that has an entry of which it was not known whether it has; who replaced its message put it into its slot.

    Raises:
        WrongSequence: it has not got it.
        ConnectionError: it may have had it.
    """
    state, at = await logs.fresh(topic), stamp.position
    head = state.head
    if head is None or head.position.epoch != at.epoch:
        raise ConnectionError("the log was lost before the engine confirmed it")
    found = (await logs.entries(topic, state, head, [at.offset])).get(at.offset)
    if found is not None and found.entry.stamp == stamp:
        return state
    if found is None and head.position.offset >= at.offset:
        raise ConnectionError("it would be gone again before the engine confirmed it")
    raise WrongSequence


async def _with_keys(logs: NatsLogs, topic: str, names: Collection[str]) -> tuple[State, Keys]:
    """A log, and the results for keys, as of one moment."""
    states, found = await logs.states([topic], [logs.names.key(topic, name) for name in names])
    state, keys = states[topic], Keys()
    for name in names:
        stored = found.get(logs.names.key(topic, name))
        if stored is not None and len(stored.payload) == DIGEST_SIZE + STAMP_SIZE:
            keys[name] = stored.payload[:DIGEST_SIZE], Stamp.unpack(stored.payload[DIGEST_SIZE:])
    if state.head is not None and state.newest is not None and state.head.key[0]:
        keys[state.head.key[0]] = state.head.key[1], state.newest.stamp
    return state, keys


async def _oldest(logs: NatsLogs, topic: str, state: State, head: Head) -> dict[int, Found]:
    """The next entries that are there, from the oldest on."""
    last = head.position.offset
    for first in range(head.oldest, last + 1, TABLE):
        found = await logs.entries(topic, state, head, range(first, min(first + TABLE, last + 1)))
        if found:
            return found
    return {}
