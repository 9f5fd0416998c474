"""One room's feed, its members, and the log that it is of."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from velocity_ws.history.entries import Stamp
from velocity_ws.history.envelopes import encode_entry
from velocity_ws.history.feed import Feed, Gap
from velocity_ws.history.items import Append, Appended, Log, Query
from velocity_ws.history.memory_log import MemoryLog
from velocity_ws.history.ring import Frame, Rings
from velocity_ws.messages.outbound import encode, parse
from velocity_ws.retention import Limits

__all__ = ["LOG", "Engine", "Members", "new_feed", "settle"]

LOG = Log("x.room.chat", Limits(size=8, ttl=60_000, max_bytes=100_000))


class Members:
    """What the members of a room got: messages by number, and gaps."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.back: list[tuple[bytes, list[int]]] = []
        self.asks = 0

    def deliver(self, feed: Feed, frame: Frame) -> None:
        assert frame.message.at == Stamp.unpack(frame.stamp).position.at
        self.got.append(parse(frame.message.payload)[1])

    def tell(self, feed: Feed, gap: Gap) -> None:
        self.got.append(gap)

    def ask(self, feed: Feed) -> None:
        self.asks += 1

    def wait(self, feed: Feed) -> None:
        self.asks += 1

    def wake(self, feed: Feed) -> None:
        pass

    def went_back(self, feed: Feed, epoch: bytes, entries: list[tuple[int, bytes]]) -> None:
        self.back.append((epoch, [offset for offset, _ in entries]))


class Engine:
    """A log, and what was published and not heard yet."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = 1_000_000
        self.log = MemoryLog(LOG.limits, self.now)
        self.on_the_way: deque[tuple[bytes, bytes]] = deque()
        self.said = 0
        self.saved: Any = None

    def append(self) -> tuple[bytes, bytes]:
        self.said += 1
        self.now += self.chance.choice([1, 1, 1, 50])
        payload = encode("said", self.said).payload
        envelope = encode_entry("a" * 11, "chat", payload, frozenset())
        done = self.log.append(Append(LOG, envelope), self.now)
        assert isinstance(done, Appended)
        self.on_the_way.append((done.stamp.pack(), payload))
        return done.stamp.pack(), payload


def settle(feed: Feed, engine: Engine, *, limit: int = 1000) -> None:
    """Ask the engine all that the feed wants to know."""
    for _ in range(50):
        asked = feed.asked()
        if feed.wants_range:
            query = Query(LOG, 0, min(limit, LOG.limits.size), 100_000, newest=True)
            feed.learned_range(engine.log.read(query, engine.now), query, asked)
        elif feed.wants_rest and feed.is_open:
            query = Query(LOG, feed.offset, 3, 100_000)
            feed.learned_rest(engine.log.read(query, engine.now), query, asked)
        elif not feed.is_settled:
            feed.learned_top(engine.log.top(engine.now), asked)
        else:
            return
    raise AssertionError("it wants to know more and more")


def new_feed(members: Members, **options: Any) -> Feed:
    return Feed("chat", LOG, Rings(options.pop("ring", 10**6)), members, is_latest=False, clock=lambda: 0.0, **options)
