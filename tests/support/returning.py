"""Clients that lose their connections and come back: bare WebSockets that keep the last position they were told.

They do what the README tells a page without ``velocity.js`` to do, and have a ledger of what is said to their rooms.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support import DEADLINE, eventually
from tests.support.trails import Log, Trail
from velocity_ws import BackplaneUnavailable, Broker, Emitter, Sent

__all__ = ["Denied", "Ledger", "Page", "Served", "until_available"]

EVENT = "n"
"""The event of what is said; its data is a number, or a number and what makes it long."""
PATIENCE = 3 * DEADLINE
"""Seconds that anything may take here, where hundreds do the same at once on a machine that does other things."""
AGAIN = ("UNAVAILABLE", "INTERNAL_ERROR")
"""What a server answers that cannot do something now; the second where a hook took too long, as of a frozen one."""
_UNSET: Any = object()
T = TypeVar("T")
Speaker = Broker[Any] | Emitter


class Served(Protocol):
    """Where a server listens."""

    port: int


class Denied(Exception):
    """A request was answered by an error.

    Attributes:
        code: of the error.
        data: all that it says.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(json.dumps(data))
        self.code: str = data["code"]
        self.data = data


async def until_available(act: Callable[[], Awaitable[T]], chance: random.Random | None = None) -> T:
    """Do something that the server may not be able to do now, as often as it says so.

    Raises:
        Denied: for another reason.
    """
    while True:
        try:
            return await act()
        except Denied as denied:
            if denied.code not in AGAIN:
                raise
            pause: float = denied.data.get("retry_after", 0.1)
        await asyncio.sleep(pause if chance is None else chance.uniform(pause / 2, pause))


class Ledger:
    """What was said to which room, and all who listen.

    Attributes:
        note: what is needed to run the same again, such as a seed; it begins each report.
        pages: all clients that ever were.
    """

    def __init__(self, note: str = "") -> None:
        self.note = note
        self.pages: list[Page] = []
        self._logs: dict[str, Log] = {}

    def log(self, room: str) -> Log:
        """The log of a room."""
        if room not in self._logs:
            self._logs[room] = Log(room, is_latest=room.startswith("latest:"))
        return self._logs[room]

    def page(self, name: str, user: str | None = None, *, resumes: bool = False) -> Page:
        """One more client, not connected yet."""
        found = Page(self, name, user, resumes=resumes)
        self.pages.append(found)
        return found

    async def say(self, broker: Speaker, room: str, *, size: int = 0, but: Page | None = None, **options: Any) -> Sent:
        """Send the next number to a room, or to all there but one.

        Raises:
            BackplaneUnavailable: as for `Target.send`; what became of it is kept.
        """
        log = self.log(room)
        number = log.begin()
        if but is not None:
            log.not_for[number] = {but.name}
        return await self.say_again(broker, room, number, size=size, but=but, **options)

    async def say_again(
        self,
        broker: Speaker,
        room: str,
        number: int,
        *,
        size: int = 0,
        but: Page | None = None,
        **options: Any,
    ) -> Sent:
        """Send a number to a room, be it one that was sent before."""
        log = self.log(room)
        log.refused.discard(number)
        try:
            target = broker.to_room(room) if but is None else broker.to_room(room).except_(but.id)
            sent = await target.send(EVENT, [number, "x" * size] if size else number, **options)
        except BackplaneUnavailable as error:
            log.failed(number, error.outcome)
            raise
        log.taken(number, sent.at)
        return sent

    async def insist(self, broker: Speaker, room: str, number: int | None = None, *, pause: float = 0.02) -> Sent:
        """Send a number, by default the next, again and again under one key, until it is certain that it is taken."""
        if number is None:
            number = self.log(room).begin()
        while True:
            try:
                return await self.say_again(broker, room, number, dedupe=f"{room} {number}")
            except BackplaneUnavailable:
                await asyncio.sleep(pause)  # as an application would, with its own patience

    async def say_all(self, broker: Speaker, room: str, count: int, **options: Any) -> list[Sent]:
        """Send so many numbers, one after the other."""
        return [await self.say(broker, room, **options) for _ in range(count)]

    async def settles(self, broker: Broker, *rooms: str, within: float = PATIENCE) -> tuple[int, int]:
        """Say a last number to rooms, wait until everyone there has it, and prove what became of all the others.

        Returns:
            How many messages all clients have, and how many they were told are lost.
        """
        for room in rooms:
            last = (await self.insist(broker, room)).at
            assert last is not None
            await self.reaches(room, self.log(room).begun - 1, within=within)
        return self.proves(*rooms)

    async def reaches(self, room: str, number: int, *, within: float = PATIENCE) -> None:
        """Wait until all that are in a room have a number, or have seen what must not be."""
        trails = [trail for trail in self.trails(room) if trail.is_in]
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: all(number in each.got or each.faults for each in trails), within=within)
        late = [trail for trail in trails if number not in trail.got and not trail.faults]
        explained = "\n".join(trail.explain() for trail in late[:3])
        assert not late, f"{self.note}: {number} did not come to {len(late)} of {len(trails)}\n{explained}"

    def proves(self, *rooms: str) -> tuple[int, int]:
        """Check that everyone who was in these rooms has everything, or was told, and nothing twice or out of order."""
        delivered = told = 0
        for trail in self.trails(*rooms):
            try:
                one, two = trail.proves()
            except AssertionError as error:
                raise AssertionError(f"{self.note}: {error}") from None
            delivered, told = delivered + one, told + two
        return delivered, told

    def trails(self, *rooms: str) -> list[Trail]:
        """What everyone was told of these rooms; of all where none is named."""
        return [
            trail for page in self.pages for room, trail in page.trails.items() if not rooms or room in rooms
        ]  # fmt: skip


class Page:
    """A client. What it does is done by calls; what it is told is kept as it comes.

    Attributes:
        name: for reports.
        user: as whom it connects; ``None`` for nobody in particular.
        id: the client's, of its last connection.
        trails: what it was told of each room.
        others: what came that is of no room with history.
        sessions: the data of the ``session`` events.
        cut_after: a number of messages from now on after which the connection breaks; ``None`` for never.
    """

    def __init__(self, ledger: Ledger, name: str, user: str | None, *, resumes: bool) -> None:
        self.name = name
        self.id = ""
        self.trails: dict[str, Trail] = {}
        self.others: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []
        self.cut_after: int | None = None
        self._ledger = ledger
        self.user = user
        self._own = ["resume=1"] if resumes else []
        self._is_connected = False
        self._ws: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._joins: dict[int, tuple[str, object]] = {}
        self._resumed: dict[str, str] = {}

    # --- connections

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as it knows."""
        return self._is_connected

    @property
    def closed(self) -> tuple[int, str]:
        """How the last connection was closed."""
        assert self._ws is not None
        return self._ws.close_code or 1006, self._ws.close_reason or ""

    async def open(self, where: Served, *, query: str = "", within: float = PATIENCE) -> Page:
        """Connect.

        Args:
            where: to what.
            query: more for the URL, as ``in=room``.
        """
        assert not self.is_open
        user = [f"user={self.user}"] if self.user else []
        together = "&".join([*user, *self._own, *([query] if query else [])])
        url = f"ws://127.0.0.1:{where.port}/ws" + (f"?{together}" if together else "")
        self._ws = await connect(url, proxy=None, open_timeout=within, max_queue=None, max_size=None, compression=None)
        self._is_connected = True
        self._reading = asyncio.create_task(self._read(self._ws))
        return self

    def cut(self) -> None:
        """Lose the connection, at once; what has come and was not looked at is lost with it."""
        self.cut_after = None
        if self._ws is not None and self.is_open:
            assert self._reading is not None
            self._ws.transport.abort()
            self._reading.cancel()
            self._end("cut")

    async def close(self) -> None:
        """End the connection orderly."""
        if self._ws is not None:
            await self._ws.close()
            assert self._reading is not None
            await asyncio.wait([self._reading])

    async def gone(self) -> None:
        """Wait until the connection is over, however long that takes."""
        assert self._reading is not None
        await asyncio.wait([self._reading])

    async def comes_back(self, where: Served, rooms: Iterable[str] = ()) -> None:
        """Connect, and join the rooms where it was, or these, from where it stands in each."""
        await self.open(where)
        for room in list(rooms or self.trails):
            await self.join(room)

    # --- requests

    async def ask(self, event: str, data: Any = None, *, room: str | None = None) -> Any:
        """Send a request, and wait for its answer.

        Raises:
            Denied: it is an error.
            ConnectionClosed: the connection ended before.
        """
        return await self._ask(next(self._ids), event, data, room)

    async def join(self, room: str, since: Any = _UNSET) -> dict[str, Any]:
        """Join a room from where it stands there, or from another position, ``None`` for none; the answer's data.

        Raises:
            Denied: it was refused.
            ConnectionClosed: the connection ended before.
        """
        trail = self._trail(room)
        if since is _UNSET:
            since = trail.at
        number = next(self._ids)
        self._joins[number] = room, since
        data = {"room": room} if since is None else {"room": room, "since": since}
        answer: dict[str, Any] = await self._ask(number, "join", data, None)
        return answer

    async def leave(self, room: str) -> None:
        """Leave a room by itself; it may come back to where it stands."""
        await self.ask("leave", {"room": room})
        self.trails[room].away("left by itself")

    async def resume(self, token: str | None = None, **rooms: str) -> None:
        """Say where it stands in the rooms that the server joins, before anything else."""
        assert self._ws is not None
        known = rooms or {room: trail.at for room, trail in self.trails.items() if trail.at is not None}
        self._resumed = dict(known)
        data: dict[str, Any] = {"rooms": known}
        if token is not None:
            data["session"] = token
        await self._ws.send(json.dumps({"event": "resume", "data": data}))

    async def _ask(self, number: int, event: str, data: Any, room: str | None) -> Any:
        assert self._ws is not None
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        message = {"event": event, "data": data, "id": number}
        try:
            await self._ws.send(json.dumps(message if room is None else {**message, "room": room}))
            answer = await asyncio.wait_for(future, PATIENCE)
        finally:
            self._asked.pop(number, None)
            self._joins.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()  # which nobody else may look at
        if answer["event"] == "error":
            raise Denied(answer["data"])
        return answer["data"]

    # --- what it is told

    async def _read(self, ws: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in ws:
                self._take(json.loads(text))
                if self.cut_after is not None:
                    self.cut_after -= 1
                    if self.cut_after <= 0:
                        self.cut_after = None
                        ws.transport.abort()
                        break
        self._end(f"over: {ws.close_code} {ws.close_reason}")

    def _take(self, message: dict[str, Any]) -> None:
        event: str = message["event"]
        data: Any = message.get("data")
        room: Any = message.get("room")
        if "id" in message:
            self._answered(message)
        elif event == EVENT and "at" in message:
            number = data[0] if isinstance(data, list) else data
            self._trail(room).message(number, message["at"])
        elif event == "joined":
            trail = self._trail(data["room"])
            trail.joined(data, self._resumed.pop(data["room"], None) if "recovered" in data else None)
        elif event == "gap" and isinstance(data.get("room"), str) and data["room"] in self.trails:
            self.trails[data["room"]].gap(data)
        elif event == "left":
            self._trail(data["room"]).put_out(data["reason"])
        elif event == "session":
            self.sessions.append(data)
        else:
            self.others.append(message)

    def _answered(self, message: dict[str, Any]) -> None:
        number = message["id"]
        if number in self._joins and message["event"] == "reply":
            room, since = self._joins[number]
            self._trail(room).joined(message["data"], since)
        future = self._asked.get(number)
        if future is not None and not future.done():
            future.set_result(message)

    def _trail(self, room: str) -> Trail:
        if room not in self.trails:
            self.trails[room] = Trail(self._ledger.log(room), self.name)
        return self.trails[room]

    def _end(self, how: str) -> None:
        self._is_connected = False
        for trail in self.trails.values():
            trail.away(how)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ConnectionResetError(how))
