"""Soaks of engines that fail over: nodes, clients and voices, whom one disturbance of the engine after another reaches.

Three nodes in processes of their own, clients in rooms with history (``chat:N``) and without (``plain:N``) that stay
connected, voices of every node in every room. After each disturbance everyone hears every node again, and the books are
closed: in rooms without history what did not come was refused, or told. In those with one this is proved at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import groupby
from statistics import median
from typing import Any, NamedTuple

from tests.support import eventually
from tests.support.plain_rooms import Ear, PlainRoom
from tests.support.returning import EVENT, Ledger, Page, until_available
from tests.support.talking import Process, Talking

__all__ = ["FAILOVERS", "NODES", "SEED", "Disturbance", "FailingOver", "Failover", "Mend", "failing_over"]

NODES = 3
FAILOVERS = int(os.environ.get("FAILOVERS", "20"))
"""How many disturbances there are."""
CLIENTS = int(os.environ.get("FAILOVER_CLIENTS", "100"))
ROOMS = int(os.environ.get("FAILOVER_ROOMS", "10"))
"""Half of them with history, half without."""
RATE = float(os.environ.get("FAILOVER_RATE", "100"))
"""Messages a second in all rooms together."""
SEED = int(os.environ.get("FAILOVER_SEED", "1"))
PACE = 0.1
"""Seconds between two probes of a node in a room, when each is answered at once; what silence is measured by."""
CALM = 2.0
"""Seconds from when all hear again until the engine is mended, and from then until the next disturbance."""
AGAIN = 30.0
"""Seconds after which somebody who does not hear another node waits for ever."""
LONGEST = 5.0
"""Seconds after which somebody who asks for an outcome waits for ever; where nothing else runs it takes one at most."""

Mend = Callable[[], Awaitable[None]]
Disturbance = Callable[[], Awaitable[Mend | None]]
"""Does something to the engine, and returns what mends it, which is called when all hear each other again."""


class Failover(NamedTuple):
    """What a disturbance cost.

    Attributes:
        name: of the disturbance.
        plain: seconds that somebody heard nothing of a node at most, in probed rooms without history.
        chat: the same in those with one.
        lost: messages that did not come, of all ears in rooms without history.
        unknown: how often somebody was told that an unknown number was lost.
    """

    name: str
    plain: float
    chat: float
    lost: int
    unknown: int

    def __str__(self) -> str:
        cost = f"{self.lost} lost, {self.unknown} times unknown how many"
        return f"{self.name}: silent {self.plain:.2f} s, with history {self.chat:.2f} s; {cost}"


class _Silence:
    """How long a listener hears nothing of a node in a room.

    Attributes:
        last: when it heard something last, in the loop's time.
        longest: seconds between two things that it heard, at most.
    """

    def __init__(self) -> None:
        self.last = asyncio.get_running_loop().time()
        self.longest = 0.0

    def ends(self) -> None:
        now = asyncio.get_running_loop().time()
        self.longest = max(self.longest, now - self.last)
        self.last = now


class _Member(Page):
    """A client that stays, in rooms of both kinds."""

    def __init__(self, talk: FailingOver, name: str, node: int) -> None:
        super().__init__(talk.ledger, name, None, resumes=False)
        talk.ledger.pages.append(self)
        self.node = node
        self.ears: dict[str, Ear] = {}
        self.silences: dict[tuple[str, int], _Silence] = {}
        self._talk = talk

    async def stays(self, rooms: Sequence[str]) -> None:
        """Be in rooms until all is over.

        Raises:
            AssertionError: the connection was lost.
        """
        await self.open(self._talk.nodes[self.node])
        for room in rooms:
            if room in self._talk.plain:
                self.ears[room] = Ear(self.name, self.node)
                await until_available(partial(self.ask, "join", {"room": room}))
                self._talk.plain[room].ears.append(self.ears[room])
            else:
                await until_available(partial(self.join, room))
        await self.gone()
        assert self._talk.is_over, f"{self.name} on node {self.node} has lost its connection: {self.closed}"

    def _take(self, message: dict[str, Any]) -> None:
        event = message["event"]
        data: Any = message.get("data")
        room: Any = data["room"] if event == "gap" else message.get("room")
        ear = self.ears.get(room)
        if ear is None:
            super()._take(message)
        elif event == "gap":
            ear.gaps.append(data["missed"])
        else:
            assert event == EVENT, message
            ear.heard(*data)
        if event == EVENT and self.silences:
            node = self._talk.speaker(room, data)
            if node is not None:
                self.silences[room, node].ends()


class FailingOver(Talking):
    """All of it.

    Attributes:
        plain: the rooms without history.
        outcomes: what became of what was said there, how often.
        failovers: what each disturbance cost.
        probes: in probed rooms with history, the node of each number.
        listeners: one client of each node, in the probed rooms alone.
    """

    def __init__(self, nodes: Sequence[Process], probed: Sequence[str], seed: int, *, keeps_all: bool) -> None:
        chats = [f"chat:{number}" for number in range(ROOMS // 2)]
        self.probed = probed
        super().__init__(nodes, [*chats, *[room for room in probed if room.startswith("chat:")]], seed)
        plain = [f"plain:{number}" for number in range(ROOMS - ROOMS // 2)]
        self.talked = [*chats, *plain]
        self.plain = {room: PlainRoom(room) for room in [*plain, *probed] if room.startswith("plain:")}
        self.outcomes: Counter[str] = Counter()
        self.failovers: list[Failover] = []
        self.probes: dict[str, list[int]] = {room: [] for room in probed}
        self.listeners: list[_Member] = []
        self._keeps_all = keeps_all
        for room in self.rooms:
            self.ledger.log(room).is_straight = keeps_all
        self._chats, self._plain = chats, plain

    # --- who is there

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Let everyone come, and speak."""
        for number in range(CLIENTS):
            rooms = [self._chats[number % len(self._chats)], self._plain[number % len(self._plain)]]
            self._comes(group, _Member(self, f"page {number}", number % NODES), rooms)
        for node in range(NODES):
            self.listeners.append(_Member(self, f"listener {node}", node))
            self._comes(group, self.listeners[-1], self.probed)
        await eventually(lambda: all(self.is_in(page, rooms) for page, rooms in self.members), within=60)
        await eventually(
            lambda: all(ear in self.plain[room].ears for page in self._pages for room, ear in page.ears.items())
        )
        for listener in self.listeners:
            listener.silences = {(room, node): _Silence() for room in self.probed for node in range(NODES)}
        for node, process in enumerate(self.nodes):
            for room in self.talked:
                rate = RATE / len(self.talked) / NODES
                speak = self.speak(room, rate, process) if room in self._chats else self._talk(room, rate, node)
                self.voices.append(group.create_task(speak))
            for room in self.probed:
                self.voices.append(group.create_task(self._probe(room, node)))

    def _comes(self, group: asyncio.TaskGroup, page: _Member, rooms: Sequence[str]) -> None:
        self.members.append((page, [room for room in rooms if room not in self.plain]))
        group.create_task(page.stays(rooms))

    def speaker(self, room: str, data: Any) -> int | None:
        """The node of what was said in a probed room; ``None`` for what is said to end all."""
        if room in self.plain:
            return self.plain[room].nodes[data[0]]
        nodes = self.probes[room]
        return nodes[data] if data < len(nodes) else None

    @property
    def _pages(self) -> list[_Member]:
        return [page for page, _ in self.members if isinstance(page, _Member)]

    async def _talk(self, room: str, rate: float, node: int) -> None:
        """Say numbers to a room without history at a pace, whatever becomes of them."""
        voice = Ledger().page(f"voice {node} of {room}")
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.is_quiet:
            due = max(due + self._chance.expovariate(rate), loop.time() - 1)
            await asyncio.sleep(due - loop.time())
            await self._say(voice, room, node)
        voice.cut()

    async def _say(self, voice: Page, room: str, node: int) -> None:
        if not voice.is_open:
            await voice.open(self.nodes[node])
        books = self.plain[room]
        number = books.begin(voice.name, node)
        outcome = str(await self.ask(voice, "say", [room, [voice.name, number]]))
        books.became(voice.name, number, outcome)
        self.outcomes[outcome] += 1

    async def _probe(self, room: str, node: int) -> None:
        """Say numbers in a probed room all the time."""
        voice = Ledger().page(f"probe {node} of {room}")
        while not self.is_quiet:
            await asyncio.sleep(PACE)
            if room in self.plain:
                await self._say(voice, room, node)
            else:
                self.probes[room].append(node)
                await self.insist(voice, room, self.ledger.log(room).begin(), self.nodes[node])
        voice.cut()

    # --- what happens

    async def fails_over(self, disturbances: Sequence[Disturbance], count: int = FAILOVERS) -> None:
        """Have so many disturbances, each of these equally often, and close the books after each."""
        waiting: list[Disturbance] = []
        await self._is_settled()
        for _ in range(count):
            waiting = waiting or self._chance.sample(disturbances, len(disturbances))
            disturbance = waiting.pop()
            for silence in self._silences():
                silence.longest = 0.0
            mend = await disturbance()
            await self._all_hear()
            await asyncio.sleep(CALM)
            if mend is not None:
                await mend()
            await asyncio.sleep(CALM)
            await self._all_hear()
            lost, unknown = await self._is_settled()
            name = getattr(disturbance, "__name__", "") or str(disturbance)
            self.failovers.append(Failover(name, self._longest("plain:"), self._longest("chat:"), lost, unknown))

    def _silences(self) -> list[_Silence]:
        return [silence for listener in self.listeners for silence in listener.silences.values()]

    def _longest(self, kind: str) -> float:
        found = [
            silence.longest
            for listener in self.listeners
            for (room, _), silence in listener.silences.items()
            if room.startswith(kind)
        ]
        return max(found, default=0.0)

    async def _all_hear(self) -> None:
        """Wait until every listener hears every node in all probed rooms."""
        now = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: all(silence.last > now for silence in self._silences()), within=AGAIN)
        deaf = [
            f"the listener on node {listener.node} has not heard node {node} in {room} for {AGAIN:.0f} s"
            for listener in self.listeners
            for (room, node), silence in listener.silences.items()
            if silence.last <= now
        ]
        assert not deaf, self._report(deaf)

    async def _is_settled(self) -> tuple[int, int]:
        """Wait until all who are in rooms without history hear everyone there, and prove that the books add up."""
        marks = {room: books.marks() for room, books in self.plain.items()}
        try:
            await eventually(lambda: all(books.hears(marks[room]) for room, books in self.plain.items()), within=AGAIN)
            await eventually(lambda: not any(books.wrong() for books in self.plain.values()), within=AGAIN)
        except TimeoutError:
            wrong = [fault for books in self.plain.values() for fault in books.wrong()]
            deaf = [
                f"{ear.name} in {room} heard {ear.last(voice)} of {voice}, and {mark} was said"
                for room, books in self.plain.items()
                for ear in books.ears
                for voice, mark in marks[room].items()
                if ear.last(voice) < mark
            ]
            raise AssertionError(self._report([*deaf, *wrong])) from None
        self.is_clean()
        sums = [books.balance() for books in self.plain.values()]
        return sum(lost for lost, _ in sums), sum(unknown for _, unknown in sums)

    def is_clean(self) -> None:
        """Check that nothing came twice, out of order, or though it was refused."""
        faults = [fault for books in self.plain.values() for fault in books.faults()]
        assert not faults, self._report(faults)
        for trail in self.ledger.trails():
            trail.is_clean()

    def _report(self, faults: Sequence[str]) -> str:
        return "\n".join([self.ledger.note, *map(str, self.failovers), f"{len(faults)} faults:", *faults[:10]])

    async def ends(self) -> tuple[int, int]:
        """Close the last books, and prove what became of all messages of rooms with history; see `Talking.settles`."""
        await self._is_settled()
        found = await self.settles(keeps_all=self._keeps_all)
        self.is_clean()
        assert self.waited < LONGEST, f"an answer took {self.waited:.1f} s"
        return found

    def __str__(self) -> str:
        said = sum(self.ledger.log(room).begun for room in self.rooms)
        lines = [f"  {number + 1}. {failover}" for number, failover in enumerate(self.failovers)]
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        for name, kind in groupby(sorted(self.failovers), key=lambda each: each.name):
            plain, chat = zip(*[(each.plain, each.chat) for each in kind], strict=True)
            lines.append(
                f"  {name}, {len(plain)} times: silent {median(plain):.2f} s (median), {max(plain):.2f} s (most); "
                f"with history {median(chat):.2f} s, {max(chat):.2f} s"
            )
        lines.append(
            f"  {said} said in rooms with history; in those without: {outcomes}; slowest answer {self.waited:.2f} s"
        )
        return "\n".join(lines)


@asynccontextmanager
async def failing_over(
    urls: Sequence[str],
    *,
    probed: Sequence[str] = ("plain:probe", "chat:probe"),
    keeps_all: bool = True,
    seed: int = SEED,
) -> AsyncIterator[FailingOver]:
    """Nodes on an engine, and clients and voices that are there until the end of the block.

    Args:
        urls: what each of the nodes is given as ``WS_BACKPLANE_URL``.
        probed: rooms in which silence is measured, of both kinds.
        keeps_all: whether the engine loses nothing that it has confirmed, whatever happens to it.
        seed: of all that is left to chance.
    """
    assert len(urls) == NODES
    async with AsyncExitStack() as stack:
        nodes = [Process(url) for url in urls]
        for node in nodes:
            stack.callback(node.signal, signal.SIGKILL)
        await asyncio.gather(*[node.start() for node in nodes])
        found = FailingOver(nodes, probed, seed, keeps_all=keeps_all)
        async with asyncio.TaskGroup() as group:
            try:
                await found.begin(group)
                yield found
            finally:
                found.stop()
        for node in nodes:
            node.signal(signal.SIGKILL)
            await node.ended()
