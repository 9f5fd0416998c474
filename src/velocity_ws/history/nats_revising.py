"""Revising: what changes a log on NATS beside appends: that a user is removed, and that it is cleared. Knows no URL."""

from __future__ import annotations

import msgspec

from velocity_ws.history.entries import Entry
from velocity_ws.history.items import Log, Top
from velocity_ws.history.nats_logs import NatsLogs, State
from velocity_ws.history.nats_messages import Message, WrongSequence

__all__ = ["purge", "revise"]


async def revise(logs: NatsLogs, log: Log, notice: bytes, user: str = "") -> tuple[State, Top]:
    """Remove a user; or clear the log, where none is given. See `HistoryStore.remove` and `clear`.

    Raises:
        Refused: it is not done.
        ConnectionError: it may be done, or not.
    """
    state = logs.cached(log.topic)
    while True:
        if state is None:
            state = await logs.fresh(log.topic)
        now = await logs.now()
        head = logs.head(log, state, now)
        also: list[Message] = []
        if user:
            removals = await logs.removals(log.topic, head)
            head = head.revised(log.limits, now)
            revision = head.position.revision
            until = max(head.removals_until, now + 2 * (head.until - now))
            head = msgspec.structs.replace(head, removal=revision, removals_until=until)
            also.append(logs.removals_message(log.topic, removals.add(user, revision, logs.max_payload), head, now))
        else:
            head = head.revised(log.limits, now).emptied()
        is_same = state.head is not None and state.head.place[:6] == head.place[:6]
        newest = state.newest if is_same and not notice and user else None
        loud = None
        if notice:
            head = msgspec.structs.replace(head, is_here=False, key=("", b""))
            loud = Entry(head.notice(now), notice).pack()
        try:
            after = await logs.write(log.topic, state, head, now, newest=newest, loud=loud, also=also)
            return after, head.top(now)
        except WrongSequence:
            state = None


async def purge(logs: NatsLogs, topic: str, sequence: int) -> None:
    """Take what was before a clearing out of the stream, though nobody reads it any more.

    Raises:
        ConnectionError: the engine did not answer.
    """
    for subject in (logs.names.slot(topic, "*"), logs.names.head(topic)):
        await logs.stream.api(f"STREAM.PURGE.{logs.names.stream}", {"filter": subject, "seq": sequence})
