"""One stream against a model of it: whatever happens to its writer and its readers, no reader has a hole, a repetition
or anything turned around, all have the same text, and are told the same end.

The nodes are two real ones with real sockets; the engine is in memory, and its clock is the test's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.support import eventually, running
from tests.support import settings as broker_settings
from tests.support.nodes import Node
from tests.support.streaming import ROOM, Gate
from tests.support.streaming_reader import StreamingReader
from velocity_ws import Broker, StreamGone
from velocity_ws.streams import watching
from velocity_ws.streams.memory import MemoryStreams
from velocity_ws.streams.pulse import Pulse

T = TypeVar("T")
_names = itertools.count()

LEASE, TTL = 10.0, 1000.0
ID = "answer"
READERS = 3
places = st.integers(0, 1)
numbers = st.integers(0, READERS - 1)
rarely = st.sampled_from([False] * 7 + [True])
said = st.text(st.sampled_from("ab é€𝄞\u2028\n"), min_size=1, max_size=20)


class Machine(RuleBasedStateMachine):
    """What may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.time = 1_800_000_000.0
        self.stack = AsyncExitStack()
        self.nodes: list[Node] = []
        self.readers = [StreamingReader(ID) for _ in range(READERS)]
        self.gate = Gate()
        self.begun = 0
        self.place: int | None = None
        self.text = ""
        self.unsure = ""
        self.end: str | None = None
        self.is_frozen = self.is_gone = self.is_forbidden = False

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @initialize(place=places, is_late=rarely)
    def begin(self, place: int, *, is_late: bool) -> None:
        self.run(self._begin())
        if not is_late:
            self.run(self._start(place))

    async def _begin(self) -> None:
        url = f"memory://courses-{next(_names)}"
        for reader in self.readers:
            self.stack.callback(reader.cut)
        for _ in range(2):
            own = {"stream_ttl": TTL, "node_lease": LEASE, "rate_limit": 0, "stream_interval": 0, "drain_timeout": 0}
            options = broker_settings(backplane_url=url, backplane_timeout=30, **own)
            broker = Broker(options, twin=True, clock=lambda: self.time)
            broker.rooms("chat:{name}").authorize(lambda: True)
            self.nodes.append(Node(broker, await self.stack.enter_async_context(running(broker, "ours"))))
            if len(self.nodes) == 1:
                engine = MemoryStreams(url, prefix=broker.node._prefix, clock=lambda: self.time)
                await engine.connect(lambda _: None)  # the first one's clock is the engine's
                self.stack.callback(engine.release)
        async with asyncio.timeout(10):
            for node in self.nodes:
                while await node.peers() < 1:
                    await asyncio.sleep(0.001)
                await node.broker.streams.list(ROOM)

    def teardown(self) -> None:
        try:
            if self.nodes:
                self.run(self._settle())
        finally:
            self.run(self.stack.aclose())
            self.runner.close()

    async def _settle(self) -> None:
        """However it went on, all who read have the same, and the end of it."""
        if self.place is not None and self.end is None:
            if self.is_frozen:
                await self._pass(LEASE + 1)
            else:
                self.gate.end()
                self.end = "done"
        await self._all_have_it()

    # --- what may happen

    @rule(place=places)
    def start(self, place: int) -> None:
        self.run(self._start(place))

    async def _start(self, place: int) -> None:
        def source() -> Any:
            self.begun += 1
            return self.gate.source()

        broker = self.nodes[place].broker
        if self.is_gone:
            with pytest.raises(StreamGone):
                await broker.streams.start(ID, room=ROOM, source=source)
            return
        stream = await broker.streams.start(ID, room=ROOM, source=source)
        assert stream.is_new == (self.place is None)
        if self.place is None:
            self.place = place
            if self.is_forbidden:
                self.end = "cancelled"
        await self._all_have_it()

    @precondition(lambda self: self.place is not None and self.end is None)
    @rule(what=said)
    def write(self, what: str) -> None:
        self.run(self._write(what))

    @precondition(lambda self: self.place is not None and self.end is None)
    @rule(parts=st.lists(said, min_size=2, max_size=5))
    def write_much(self, parts: list[str]) -> None:
        for part in parts:
            self.run(self._write(part))

    async def _write(self, what: str) -> None:
        self.gate.say(what)
        if self.is_frozen:
            self.unsure += what  # said if it wakes before it is taken for dead
        else:
            self.text += what
        await self._all_have_it()

    @precondition(lambda self: self.place is not None and self.end is None and not self.is_frozen)
    @rule(is_now=rarely)
    def finish(self, *, is_now: bool) -> None:
        if is_now:
            self.run(self._finish())

    async def _finish(self) -> None:
        self.gate.end()
        self.end = "done"
        await self._all_have_it()

    @rule(place=places, is_now=rarely)
    def cancel(self, place: int, *, is_now: bool) -> None:
        if is_now or self.end is not None:
            self.run(self._cancel(place))

    async def _cancel(self, place: int) -> None:
        if self.is_frozen and place == self.place:
            return
        is_cancelled = await self.nodes[place].broker.streams.cancel(ID)
        if self.end != "lost" or place != self.place:  # which its own node may not know yet
            assert is_cancelled == (self.end in (None, "cancelled")), (is_cancelled, self.end)
        if self.place is None:
            self.is_forbidden = True
        elif self.end is None:
            self.end = "cancelled"
        await self._all_have_it()

    @precondition(lambda self: self.place is not None and self.end is None and not self.is_frozen)
    @rule()
    def freeze(self) -> None:
        """The writer stores and renews nothing, as that of a process that was stopped."""
        self.run(self._freeze())

    async def _freeze(self) -> None:
        for task in self._pulse._tasks:
            task.cancel()
        await asyncio.wait(self._pulse._tasks)
        self.is_frozen = True

    @precondition(lambda self: self.is_frozen)
    @rule()
    def thaw(self) -> None:
        """It goes on; where it was taken for dead, nothing of it comes."""
        self.run(self._thaw())

    async def _thaw(self) -> None:
        self._pulse.start()
        self.is_frozen = False
        if self.end is None:
            self.text += self.unsure
        self.unsure = ""
        await self._all_have_it()

    @property
    def _pulse(self) -> Pulse:
        assert self.place is not None
        return self.nodes[self.place].broker.node.running_streams()._pulse

    @rule()
    def lease_passes(self) -> None:
        self.run(self._pass(LEASE + 1))

    @precondition(lambda self: self.end is not None and not self.is_gone)
    @rule()
    def expire(self) -> None:
        self.run(self._pass(TTL + 1))

    async def _pass(self, seconds: float) -> None:
        steps = 4
        for _ in range(steps):
            self.time += seconds / steps
            if self.place is not None and self.end is None and not self.is_frozen:
                await self._pulse._renew_all(self._pulse.writers)
        if self.is_frozen and self.end is None:
            self.end = "lost"
        if self.end is not None and seconds > TTL and self.place is not None:
            self.is_gone = True
        await self._all_have_it()

    @rule(which=numbers, place=places, data=st.data())
    def join(self, which: int, place: int, data: st.DataObject) -> None:
        reader = self.readers[which]
        if not reader.is_in:
            place = reader.place if reader.is_open else place
            self.run(self._join(reader, place, data.draw(st.integers(0, len(self.text)))))

    async def _join(self, reader: StreamingReader, place: int, length: int) -> None:
        if not reader.is_open:
            await reader.open(self.nodes[place].address.port, place)
        await reader.join(ROOM, self.text[:length])
        await self._all_have_it()

    @rule(which=numbers)
    def leave(self, which: int) -> None:
        reader = self.readers[which]
        if reader.is_in:
            self.run(reader.leave(ROOM))

    @rule(which=numbers)
    def cut(self, which: int) -> None:
        self.readers[which].cut()

    @precondition(lambda self: self.place is not None and not self.is_gone)
    @rule(which=numbers, data=st.data())
    def read(self, which: int, data: st.DataObject) -> None:
        reader = self.readers[which]
        if reader.is_in:
            self.run(self._read(reader, data.draw(st.integers(0, len(self.text)))))

    async def _read(self, reader: StreamingReader, length: int) -> None:
        await reader.read(ROOM, self.text[:length])
        await self._all_have_it()

    # --- what has to be then

    async def _all_have_it(self) -> None:
        """Wait until all who are in the room have what was said, and the end."""
        if self.place is None:
            return
        try:
            await eventually(lambda: self.is_gone or all(self._has_it(reader) for reader in self.readers))
        except TimeoutError:
            raise AssertionError([(self.text, self.end), *map(str, self.readers)]) from None
        for reader in self.readers:
            assert not reader.faults, reader
        assert self.begun <= 1
        if not self.is_gone:
            state = await self.nodes[0].broker.streams.read(ID)
            assert (state.text, state.end) == (self.text, self.end)

    def _has_it(self, reader: StreamingReader) -> bool:
        return not reader.is_in or bool(reader.faults) or (reader.text, reader.end) == (self.text, self.end)


def _run(monkeypatch: pytest.MonkeyPatch, examples: int, steps: int) -> None:
    monkeypatch.setattr(watching, "LOOK", 0.005)
    monkeypatch.setattr(watching, "FORGET", 0.01)
    own = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Machine, settings=own)


def test_any_course_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    _run(monkeypatch, 8, 40)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_very_many_courses_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    _run(monkeypatch, 300, 50)
