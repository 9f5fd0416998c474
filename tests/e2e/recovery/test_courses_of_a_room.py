"""One room against a model of it: whatever happens to it and its members, nothing is lost, repeated or turned around
that was not told, and nothing comes of a time in which somebody was not let in.

The room is that of two real nodes with real sockets; the engine is in memory, and its clock is the test's.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support import running
from tests.support import settings as broker_settings
from tests.support.nodes import Node
from tests.support.returning import Denied, Ledger, Page
from tests.support.trails import place_of
from velocity_ws import Broker, Client, History
from velocity_ws.history import memory
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.history.positions import Position

T = TypeVar("T")
_names = itertools.count()

ROOM = "model:1"
SIZE, TTL, LIMIT = 5, 10.0, 3
USERS = ("ann", "bob", None)
numbers = st.integers(0, len(USERS) - 1)
places = st.integers(0, 1)


class Said:
    """A message, and what became of it: it is there, or why it is not."""

    def __init__(self, number: int, at: str, time: float) -> None:
        self.number = number
        self.at = at
        self.time = time
        self.fate: str | None = None


class Machine(RuleBasedStateMachine):
    """What may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.time = 1_800_000_000.0
        self.ledger = Ledger("the model")
        self.denied: set[str | None] = set()
        self.stack = AsyncExitStack()
        self.pages = [self.ledger.page(str(user), user) for user in USERS]
        self.nodes: list[Node] = []
        self.life: list[Said] = []
        self.positions: list[str] = []
        self.lives: dict[bytes, int] = {}
        self.removed = dict.fromkeys(USERS, 0)
        self.epoch = 0
        self.is_certain = self.is_noticed = True
        self.saved: tuple[Any, ...] | None = None

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @initialize()
    def begin(self) -> None:
        self.run(self._begin())

    async def _begin(self) -> None:
        self.name = f"model-{next(_names)}"
        url = f"memory://{self.name}"
        engine = MemoryHistory(url, clock=lambda: self.time)  # the first one's clock is the engine's
        await engine.connect(lambda _: None)
        self.stack.callback(engine.release)
        for _ in range(2):
            own = {"recovery_limit": LIMIT, "rate_limit": 0, "node_lease": 1e9, "backplane_timeout": 30}
            options = broker_settings(backplane_url=url, **own)
            broker = Broker(options, twin=True, clock=lambda: self.time)
            self._serve(broker)
            self.nodes.append(Node(broker, await self.stack.enter_async_context(running(broker, "ours"))))
        for page in self.pages:
            self.stack.callback(page.cut)
        async with asyncio.timeout(10):
            for node in self.nodes:
                while await node.peers() < 1:
                    await asyncio.sleep(0.001)

    def _serve(self, broker: Broker) -> None:
        broker.authenticate(lambda request: request.query_params.get("user"))
        rooms = broker.rooms("model:{which}", history=History(size=SIZE, ttl=TTL), rewind=True)

        @rooms.authorize
        def may_enter(client: Client) -> bool:
            return client.user_id not in self.denied

        broker.on("whoami")(lambda client: client.id)

    def teardown(self) -> None:
        try:
            if self.nodes:
                self.run(self.ledger.settles(self.nodes[0].broker, ROOM))
        finally:
            self.run(self.stack.aclose())
            self.runner.close()

    # --- what may happen

    @rule(place=places, count=st.integers(1, 3))
    def publish(self, place: int, count: int) -> None:
        self.run(self._publish(place, count))

    async def _publish(self, place: int, count: int) -> None:
        for _ in range(count):
            sent = await self.ledger.say(self.nodes[place].broker, ROOM)
            number = self.ledger.log(ROOM).begun - 1
            assert sent.at is not None
            self.is_noticed = True
            if self.is_certain:
                assert place_of(sent.at).offset == len(self.life) + 1
            self.grow_old()
            self.life.append(Said(number, sent.at, self.time))
            for said in self.kept()[:-SIZE]:
                said.fate = "evicted"
            self.see(sent.at)
        await self.ledger.reaches(ROOM, number)

    def see(self, at: str) -> None:
        """A position was told."""
        self.positions.append(at)
        life = self.lives.setdefault(place_of(at).epoch, self.epoch)
        assert life == self.epoch or not self.is_certain or not self.is_noticed

    @rule(which=numbers, place=places, data=st.data())
    def join(self, which: int, place: int, data: st.DataObject) -> None:
        page = self.pages[which]
        trail = page.trails.get(ROOM)
        if trail is not None and trail.is_in:
            return
        since = trail.at if trail is not None else None
        if self.positions:
            since = data.draw(st.one_of(st.just(since), st.sampled_from(self.positions)))
        self.run(self._join(page, place, since))

    async def _join(self, page: Page, place: int, since: str | None) -> None:
        if not page.is_open:
            await page.open(self.nodes[place].address)
        if page.user in self.denied:
            with pytest.raises(Denied, match="FORBIDDEN"):
                await page.join(ROOM, since=since)
            return
        answer = await page.join(ROOM, since=since)
        self.see(answer["at"])
        if since is None:
            assert set(answer) == {"room", "at"}
        elif self.is_certain and self.is_noticed:
            expected = self.reason(since, page.user)
            assert answer.get("reason") == expected, (answer, page.trails[ROOM].explain())
            if expected is None:
                assert answer["missed"] == len(self.life) - place_of(since).offset
        if self.life and answer.get("missed"):
            await self.ledger.reaches(ROOM, self.life[-1].number)

    def reason(self, since: str, user: str | None) -> str | None:
        """Why a position does not recover, as the contract has it."""
        position = Position.parse(since)
        if self.lives.get(position.epoch, self.epoch) != self.epoch:
            return "epoch"
        if position.revision < self.removed[user]:
            return "forbidden"
        self.grow_old()
        missed = self.life[position.offset :]
        fates = {said.fate for said in missed if said.fate}
        if fates:
            return "evicted" if "evicted" in fates else "expired"
        return "too_many" if len(missed) > LIMIT else None

    @property
    def revision(self) -> int:
        """The engine's: how many changes one removal is, is its own affair."""
        (log,) = [log for topic, log in memory._engines[self.name]._logs.items() if "model" in topic]
        return log._revision

    def grow_old(self) -> None:
        """What is too old is gone, once somebody looks."""
        for said in self.kept():
            if self.time - said.time >= TTL:
                said.fate = "expired"

    def kept(self) -> list[Said]:
        """What the engine has."""
        return [said for said in self.life if said.fate is None]

    @rule(which=numbers)
    def leave(self, which: int) -> None:
        page = self.pages[which]
        if page.is_open and ROOM in page.trails and page.trails[ROOM].is_in:
            self.run(page.leave(ROOM))

    @rule(which=numbers)
    def cut(self, which: int) -> None:
        async def cut() -> None:
            self.pages[which].cut()

        self.run(cut())

    @rule(seconds=st.sampled_from([1.0, 4.0, 9.0, 11.0, 400.0]))
    def pass_time(self, seconds: float) -> None:
        self.time += seconds

    @rule(place=places)
    def clear(self, place: int) -> None:
        self.run(self.nodes[place].broker.clear_history(ROOM))
        for said in self.life:
            said.fate = "evicted"

    @rule(place=places, user=st.sampled_from(["ann", "bob"]))
    def remove_user(self, place: int, user: str) -> None:
        self.run(self._remove(place, user))

    async def _remove(self, place: int, user: str) -> None:
        await self.nodes[place].broker.remove_user(user, ROOM)
        self.removed[user] = self.revision
        page = self.pages[USERS.index(user)]
        if page.is_open:
            await page.ask("whoami")  # what was under way has come
            if ROOM in page.trails:
                page.trails[ROOM].put_out("removed")

    @rule(place=places, user=st.sampled_from(["ann", "bob"]))
    def revoke(self, place: int, user: str) -> None:
        self.run(self._revoke(place, user))

    async def _revoke(self, place: int, user: str) -> None:
        page = self.pages[USERS.index(user)]
        was_in = ROOM in page.trails and page.trails[ROOM].is_in
        self.denied.add(user)
        await self.nodes[place].broker.reauthorize(ROOM)
        if was_in:
            await page.ask("whoami")
            assert not page.trails[ROOM].is_in
            self.removed[user] = self.revision

    @precondition(lambda self: self.denied)
    @rule()
    def allow(self) -> None:
        self.denied.clear()

    @rule()
    def forget(self) -> None:
        """The engine has evicted all of it; nodes notice when something is said."""
        engine = memory._engines[self.name]
        with engine.bus.lock:
            engine._logs.clear()
            engine._dues.clear()
        self.is_certain, self.is_noticed = True, False
        self.epoch += 1
        self.life, self.removed = [], dict.fromkeys(USERS, 0)
        self.saved = None

    @precondition(lambda self: self.nodes and self.life)
    @rule()
    def save(self) -> None:
        engine = memory._engines[self.name]
        with engine.bus.lock:
            logs = copy.deepcopy({topic: log for topic, log in engine._logs.items() if "1" in topic})
        self.saved = logs, len(self.life), self.epoch

    @precondition(lambda self: self.saved is not None)
    @rule()
    def rewind(self) -> None:
        """The engine goes back to what it had; what the node has from before may stay."""
        assert self.saved is not None
        logs, count, epoch = self.saved
        if epoch != self.epoch:
            return
        log = self.ledger.log(ROOM)
        log.is_straight, self.is_certain = False, False
        log.undone.update(each.number for each in self.life[count:])
        self.life = self.life[:count]
        engine = memory._engines[self.name]
        with engine.bus.lock:
            engine._logs.update(copy.deepcopy(logs))

    # --- what is promised

    @invariant()
    def nothing_is_wrong(self) -> None:
        for trail in self.ledger.trails():
            trail.is_clean()

    @precondition(lambda self: self.nodes)
    @rule(place=places)
    def read(self, place: int) -> None:
        found = self.run(self.nodes[place].broker.history(ROOM))
        if self.is_certain:
            self.grow_old()
            assert [entry.data for entry in found] == [said.number for said in self.kept()]


@pytest.mark.parametrize("examples", [4, pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_a_room_keeps_what_is_promised(examples: int) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
