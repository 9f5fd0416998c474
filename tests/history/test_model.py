"""One log against a model of it that says only what is promised: whatever happens, no hole that is not told.

The model keeps every entry that ever was, and what became of it. Positions are all that were ever given, of earlier
epochs too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.engines import ENGINES, engine
from tests.support.log_steps import answers_as_memory_does, bytes_most, digests, envelopes, keys, sizes, users
from velocity_ws.history.items import KEY_TTL, Append, Limits, Log, Lookup, Query, Refused, Removal, granted
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import judge, view_of
from velocity_ws.history.redis import RedisHistory
from velocity_ws.testing.history_engine import Keeper

T = TypeVar("T")
_names = itertools.count()


class Remembered:
    """An entry, and what became of it: it is there, or why it is not."""

    def __init__(self, envelope: bytes, time: int) -> None:
        self.envelope = envelope
        self.time = time
        self.fate: str | None = None


class Machine(RuleBasedStateMachine):
    """What may happen to a log in memory, whose clock is the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.time = 1_800_000_000_000
        self.keeper = Keeper(MemoryHistory(f"memory://model-{next(_names)}", clock=lambda: self.time / 1000))
        self.run(self.keeper.connect())
        self.limits = Limits(3, 100, 1000)
        self.ttl = 100
        self.epoch = 0
        self.epochs: dict[bytes, int] = {}
        self.positions: list[tuple[int, Position]] = []
        self.begin()

    def begin(self) -> None:
        self.entries: list[Remembered] = []
        self.revision = 0
        self.removed: dict[str, int] = {}
        self.keys: dict[str, tuple[bytes, int, int]] = {}
        self.touched = self.time

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.keeper.store.close())
        self.keeper.store.release()
        self.runner.close()

    # --- what may happen

    @initialize()
    def first(self) -> None:
        self.see(self.run(self.keeper.top(self.log)).position)

    @rule(size=sizes, ttl=st.sampled_from([50, 100]), most=bytes_most)
    def other_limits(self, size: int, ttl: int, most: int) -> None:
        self.limits = Limits(size, ttl, most)

    @rule(envelope=envelopes)
    def append(self, envelope: bytes) -> None:
        (entry,) = self.run(self.keeper.append(self.log, envelope))
        self.appended(envelope)
        assert entry.stamp.position.offset == len(self.entries)
        self.see(entry.stamp.position)

    @rule(envelope=envelopes, key=keys, digest=digests)
    def append_once(self, envelope: bytes, key: str, digest: bytes) -> None:
        (result,) = self.run(self.keeper.store.append([Append(self.log, envelope, key, digest)]))
        self.touched = self.time
        known = self.keys.get(key)
        if known is not None and self.time - known[2] < KEY_TTL * 1000:
            if known[0] != digest:
                assert isinstance(result, Refused)
                assert result.reason == "conflict"
            else:
                assert granted(result).is_duplicate
                assert granted(result).stamp.position.offset == known[1]
            return
        assert not granted(result).is_duplicate
        self.appended(envelope)
        self.keys[key] = digest, len(self.entries), self.time
        self.see(granted(result).stamp.position)

    @rule(user=users)
    def remove(self, user: str) -> None:
        (top,) = self.run(self.keeper.store.remove([Removal(self.log, user)]))
        self.revision += 1
        self.removed[user] = self.revision
        self.touched = self.time
        self.see(granted(top).position)

    @rule()
    def clear(self) -> None:
        top = self.run(self.keeper.store.clear(self.log))
        self.revision += 1
        self.keys.clear()
        self.touched = self.time
        for entry in self.entries:
            entry.fate = "evicted"
        self.see(top.position)

    @rule(milliseconds=st.sampled_from([1, 49, 50, 99, 100, 300_000]))
    def pass_time(self, milliseconds: int) -> None:
        self.time += milliseconds

    @rule()
    def set_the_clock_back(self) -> None:
        """The engine's own; its log goes on with the time it had."""
        top = self.run(self.keeper.top(self.log))
        self.time -= 10
        again = self.run(self.keeper.top(self.log))
        assert again.time == top.time
        self.time += 10

    @rule()
    def forget(self) -> None:
        """Nobody asks for longer than anything is known."""
        self.time += self.limits.meta_ttl + 1
        self.epoch += 1
        self.begin()
        self.see(self.run(self.keeper.top(self.log)).position)

    # --- what is promised

    @precondition(lambda self: self.positions)
    @rule(data=st.data(), user=users, limit=st.integers(1, 6))
    def come_back(self, data: st.DataObject, user: str, limit: int) -> None:
        epoch, position = data.draw(st.sampled_from(self.positions))
        found = self.run(self.keeper.read(self.log, position.offset))
        (removed,) = self.run(self.keeper.store.removed([Lookup(self.log, user)]))
        self.touched = self.time
        self.grow_old(self.ttl)
        assert removed == self.removed.get(user, 0)
        view = view_of(position, found.top, found.entries)
        reason = judge(position, found.top, view, removed=removed, limit=limit)
        missed = self.entries[position.offset :]
        fates = [entry.fate for entry in missed]
        if epoch != self.epoch:
            assert reason == "epoch"
        elif position.revision < removed:
            assert reason == "forbidden"
        elif any(fates):
            assert reason == ("evicted" if "evicted" in fates else "expired")
        elif len(missed) > limit:
            assert reason == "too_many"
        else:
            assert reason is None
            assert [entry.envelope for entry in found.entries] == [entry.envelope for entry in missed]

    @rule(after=st.integers(0, 12), limit=st.integers(1, 6), most=bytes_most, newest=st.booleans())
    def read(self, after: int, limit: int, most: int, newest: bool) -> None:
        (result,) = self.run(self.keeper.store.read([Query(self.log, after, limit, most, newest)]))
        self.touched = self.time
        self.grow_old(self.ttl)
        there = [entry.envelope for entry in self.entries[after:] if entry.fate is None]
        found = [entry.envelope for entry in granted(result).entries]
        assert found == (there[len(there) - len(found) :] if newest else there[: len(found)])
        more = there[len(there) - len(found) - 1] if newest and len(there) > len(found) else None
        if not newest and len(there) > len(found):
            more = there[len(found)]
        is_full = more is None or len(found) == limit or sum(map(len, found)) + len(more) > most
        assert is_full
        assert len(found) <= limit
        assert len(found) <= 1 or sum(map(len, found)) <= most

    @invariant()
    def the_end_is_known(self) -> None:
        if not self.epochs:
            return
        top = self.run(self.keeper.top(self.log))
        self.touched = self.time
        assert self.epochs[top.position.epoch] == self.epoch
        assert (top.position.offset, top.position.revision) == (len(self.entries), self.revision)
        evicted = [offset for offset, entry in enumerate(self.entries, 1) if entry.fate == "evicted"]
        assert top.evicted == max(evicted, default=0)

    # --- the model

    @property
    def log(self) -> Log:
        return Log("velocity.room.model", self.limits)

    def see(self, position: Position) -> None:
        assert self.epochs.setdefault(position.epoch, self.epoch) == self.epoch
        self.positions.append((self.epoch, Position.parse(position.at)))

    def grow_old(self, ttl: int) -> None:
        for entry in self.entries:
            if entry.fate is None and self.time - entry.time >= ttl:
                entry.fate = "expired"

    def appended(self, envelope: bytes) -> None:
        self.touched = self.time
        self.grow_old(min(self.ttl, self.limits.ttl))
        self.ttl = self.limits.ttl
        self.entries.append(Remembered(envelope, self.time))
        there = [entry for entry in self.entries if entry.fate is None]
        while len(there) > self.limits.size or sum(len(entry.envelope) for entry in there) > self.limits.max_bytes:
            there.pop(0).fate = "evicted"


@pytest.mark.parametrize("examples", [15, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_log_in_memory_keeps_what_is_promised(examples: int) -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None))


# --- engines do alike


@pytest.mark.parametrize("kind", [kind for kind in ("valkey", "redis") if kind in ENGINES])
def test_redis_answers_as_memory_does(kind: str) -> None:
    answers_as_memory_does(engine(kind), lambda server: RedisHistory(server.url), 12)
