"""NatsLogs: logs in the stream of one connection: read, and changed one guarded step at a time. Knows no URL.

A change is stored only where the log's head is still the one that it was made of; else the head is read again, and the
change is made again. The newest entry lies in the message of the head. What replaces that message puts the entry into
its slot first, and the result for its key into a record, in the same round trip and under the same guard: so that of
two writers with one head only one is heard, and a slot never gets what is older than what it has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import msgspec

from velocity_ws.history.entries import STAMP_SIZE, Entry, InvalidEntry
from velocity_ws.history.items import KEY_TTL, Log, Refused
from velocity_ws.history.jetstream import JetStream
from velocity_ws.history.nats_clock import EngineClock
from velocity_ws.history.nats_head import Found, Head
from velocity_ws.history.nats_messages import Message, Stored, WrongSequence
from velocity_ws.history.nats_own import Own
from velocity_ws.history.nats_removals import Removals
from velocity_ws.history.nats_stream import Names

__all__ = ["NatsLogs", "State"]

HEAD: Final = b"V"
TOTAL: Final = b"T"
"""Headers: of a head, and of an entry in a slot."""
HEADERS: Final = 4096
"""Bytes that are kept free for the headers of a message."""
CACHED: Final = 4096
"""Heads of logs that were written to last, and the largest message that is kept with one; so that a next append
needs no reading."""


class State(NamedTuple):
    """A log as it was in one moment.

    Attributes:
        sequence: that of the message that has the head; 0 where there is none.
        head: the head; ``None`` for an unknown log.
        newest: the newest entry, where it is in the message of the head.
        packed: the same as it is stored; empty where that is not at hand.
    """

    sequence: int
    head: Head | None
    newest: Entry | None = None
    packed: bytes = b""


class NatsLogs:
    """The logs behind one connection. On one loop only.

    Attributes:
        max_payload: bytes of the largest envelope, or record.
        own: what was appended here.
        clock: the engine's.
    """

    def __init__(self, stream: JetStream, names: Names) -> None:
        """
        Args:
            stream: open.
            names: of what is in it.
        """
        self.stream = stream
        self.names = names
        self.max_payload = int(stream.server.get("max_payload", 1024 * 1024)) - STAMP_SIZE - HEADERS
        self.own = Own()
        self._cache: OrderedDict[str, State] = OrderedDict()
        self.clock = EngineClock(stream)

    # --- the engine's clock

    async def now(self) -> int:
        """The engine's time in milliseconds.

        Raises:
            ConnectionError: the engine did not answer.
        """
        return await self.clock.now()

    # --- heads

    async def states(
        self, topics: Collection[str], more: Sequence[str] = ()
    ) -> tuple[dict[str, State], dict[str, Stored]]:
        """Logs as the engine has them now, and what else is at other subjects, as of one moment for a few of them.

        Raises:
            ConnectionError: the engine did not answer.
        """
        subjects = [name(topic) for topic in topics for name in (self.names.head, self.names.quiet)]
        found = await self.stream.last([*subjects, *more])
        return {topic: self._state(topic, found) for topic in topics}, found

    def _state(self, topic: str, found: dict[str, Stored]) -> State:
        loud, quiet = found.get(self.names.head(topic)), found.get(self.names.quiet(topic))
        last = max((each for each in (loud, quiet) if each is not None), default=None)
        if last is None:
            return State(0, None)
        try:
            head = Head.parse(last.header(HEAD))
        except ValueError:  # not ours; a new log replaces it
            return State(last.sequence, None)
        newest = None
        if head.is_here and loud is not None:
            entry = _entry(loud.payload)
            if entry is not None and entry.stamp.position.mark == head.position.mark:
                newest = entry
        return State(last.sequence, head, newest)

    async def fresh(self, topic: str) -> State:
        """One log as the engine has it now."""
        return (await self.states([topic]))[0][topic]

    def cached(self, topic: str) -> State | None:
        """A log as it was written last on this connection; what is made of it is refused if that is too old."""
        return self._cache.get(topic)

    async def known(self, log: Log, state: State) -> tuple[State, Head]:
        """A log once it is known for as long as a call asks for; a new epoch where it was not known.

        Raises:
            Refused: it cannot begin.
            ConnectionError: the engine did not answer.
        """
        while True:
            now = await self.now()
            head = self.head(log, state, now)
            if head is state.head:
                return state, head
            is_known = state.head is not None and head.place == state.head.place
            try:
                newest = state.newest if is_known else None
                return await self.write(log.topic, state, head, now, newest=newest), head
            except WrongSequence:  # another has changed it meanwhile
                state = await self.fresh(log.topic)
            except Refused:
                if not is_known:
                    raise
                return state, head  # which is known still

    def head(self, log: Log, state: State, now: int) -> Head:
        """A log's head, once it is known for as long as a call asks for; that of a new epoch where it is not known."""
        if state.head is not None and state.head.is_known(now):
            return state.head.kept(log.limits, now)
        return Head.begin(log.limits, now)

    async def write(
        self,
        topic: str,
        state: State,
        head: Head,
        now: int,
        *,
        newest: Entry | None = None,
        loud: bytes | None = None,
        also: Sequence[Message] = (),
    ) -> State:
        """Store a head, where the log is still as it was.

        Args:
            topic: the log's.
            state: the log as it was.
            head: the new one.
            now: the engine's time.
            newest: the newest entry, where it is in the message of the head.
            loud: what is published to the topic; ``None`` for nothing.
            also: what is stored before, if the log is as it was.

        Raises:
            WrongSequence: it is not.
            Refused: the engine cannot.
            InDoubt: it may be stored, and replaced since, or not.
            ConnectionError: it may be stored, or not.
        """
        messages = [*also]
        if head.removal and head.removals_until < head.until:
            removals = await self.removals(topic, head)
            head = msgspec.structs.replace(head, removals_until=now + 2 * (head.until - now))
            messages.append(self.removals_message(topic, removals, head, now))
        if loud is not None:
            messages += self._settled(topic, state, head, now)
        subject = self.names.quiet(topic) if loud is None else self.names.head(topic)
        messages.append(Message(subject, loud or b"", head.until - now, b"%b: %b\r\n" % (HEAD, head.text)))
        guard = self.names.heads(topic), state.sequence
        self._cache.pop(topic, None)
        sequence = await self.stream.store(messages, guard)
        after = State(sequence, head, newest, b"" if newest is None or loud is None else loud)
        if loud is None or len(loud) <= CACHED:
            self._cache[topic] = after
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return after

    def _settled(self, topic: str, state: State, head: Head, now: int) -> list[Message]:
        """What becomes of the newest entry, whose message is replaced: its slot, and the result for its key."""
        old, newest = state.head, state.newest
        if old is None or newest is None or old.place[:6] != head.place[:6] or not old.is_here:
            return []
        messages: list[Message] = []
        offset, time = newest.stamp.position.offset, newest.stamp.time
        if head.oldest <= offset and time > head.gone_at(now):
            subject, ttl = self.names.slot(topic, head.slot(offset)), max(1, time + head.limits[1] - now)
            total = b"%b: %d\r\n" % (TOTAL, old.total)
            messages.append(Message(subject, state.packed or newest.pack(), ttl, total))
        key, digest = old.key
        if key and (ttl := old.time + int(KEY_TTL * 1000) - now) > 0 and offset > head.cleared:
            messages.append(Message(self.names.key(topic, key), digest + newest.stamp.pack(), ttl))
        return messages

    # --- entries

    async def entries(self, topic: str, state: State, head: Head, offsets: Sequence[int]) -> dict[int, Found]:
        """Those of some entries that are there.

        Raises:
            ConnectionError: the engine did not answer.
        """
        position = head.position
        slots = {offset: self.names.slot(topic, head.slot(offset)) for offset in offsets}
        if state.newest is not None:
            slots.pop(position.offset, None)
        stored = await self.stream.last(list(slots.values())) if slots else {}
        found: dict[int, Found] = {}
        for offset, subject in slots.items():
            entry = _entry(stored[subject].payload) if subject in stored else None
            if entry is not None and entry.stamp.position[:2] == (position.epoch, offset):
                found[offset] = Found(entry, int(stored[subject].header(TOTAL) or 0))
        if state.newest is not None and position.offset in offsets:
            found[position.offset] = Found(state.newest, head.total)
        return found

    # --- removals

    async def removals(self, topic: str, head: Head) -> Removals:
        """Who was removed; everybody, where the engine has lost it."""
        subject = self.names.removals(topic)
        stored = (await self.stream.last([subject])).get(subject)
        return self.removals_of(head, stored)

    def removals_of(self, head: Head, stored: Stored | None) -> Removals:
        """Who was removed, by what was found; everybody, where the engine has lost it."""
        position = head.position
        found = None if stored is None else Removals.parse(stored.payload, position.epoch, head.removal)
        if found is None:
            return Removals(position.epoch, head.removal, position.revision if head.removal else 0, {})
        return found

    def removals_message(self, topic: str, removals: Removals, head: Head, now: int) -> Message:
        """That which stores who was removed."""
        return Message(self.names.removals(topic), removals.data, head.removals_until - now)


def _entry(data: bytes) -> Entry | None:
    try:
        return Entry.unpack(data)
    except InvalidEntry:
        return None
