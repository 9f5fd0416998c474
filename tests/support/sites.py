"""A server for pages that writes down what it hears, and can be stopped and started again at its port."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.support import Address, eventually, settings
from tests.support.command import kept_port
from velocity_ws import Broker, Client, Close, Message, Server

__all__ = ["Entry", "Site", "site_of"]

LIVE = """<!doctype html><title>live</title><link rel=icon href='data:,'>
<a id=file href=/file>file</a> <a id=nothing href=/nothing>nothing</a>
<script type=module>
    import { connect } from "/ws/velocity.js";
    globalThis.ws = connect();
    globalThis.seen = { shown: performance.now(), joined: [], statuses: [] };
    ws.on("status", (status, detail) => seen.statuses.push([status, detail]));
    ws.on("joined", (room) => seen.joined.push([room, performance.now() - seen.shown]));
    addEventListener("pageshow", ({ persisted }) => {
        if (persisted) seen.shown = performance.now();
        seen.persisted = persisted;
    });
    ws.join("room:1");
</script>"""
"""A page that connects and joins when it is loaded, and counts the ms from when it is shown until it is joined."""

What = Literal["connect", "disconnect", "join", "joined", "leave", "note"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of what a server heard: when, by the loop's clock, of which client, and what."""

    at: float
    what: What
    client: str
    data: Any = None


class Site:
    """Some pages, and a server whose rooms are `room:{name}`.

    The pages are `/` and `/elsewhere`, with nothing on them, and `/live`; `/file` is downloaded, `/nothing` is no page.

    Attributes:
        client: the text of the client at `/client.js`.
        address: where it is, also while it is not.
        broker: the one that runs, or ran last.
        diary: what all of them heard.
        authorize: asked whether a client may be in a room.
        closes: how many connections ended with each code.
    """

    def __init__(self, prepare: Callable[[Site], None], client: str, **values: Any) -> None:
        self.client = client
        self.address = Address(kept_port())
        self.diary: list[Entry] = []
        self.authorize: Callable[[str], Awaitable[bool]] = self._let_in
        self._prepare = prepare
        self._values = {"drain_timeout": 0.2, **values}
        self._server: Server | None = None
        self.broker = self._make()

    async def _let_in(self, room: str) -> bool:
        return True

    def write(self, what: What, client: Client, data: Any = None) -> None:
        """Write a line."""
        self.diary.append(Entry(asyncio.get_running_loop().time(), what, client.id, data))

    def _make(self) -> Broker:
        self.broker = broker = Broker(settings(**self._values))

        @broker.on_connect
        async def came(client: Client) -> None:
            self.write("connect", client)

        @broker.on_disconnect
        async def gone(client: Client, close: Close) -> None:
            self.write("disconnect", client, close)

        @broker.on("note")
        async def note(client: Client, data: Any) -> None:
            self.write("note", client, data)

        @broker.on("echo")
        async def echo(client: Client, data: Any) -> Any:
            return data

        self._prepare(self)
        return broker

    async def start(self) -> None:
        """Start, with another broker than before, as another process would have."""
        if self._server is not None:
            self._make()
        page = HTMLResponse("<!doctype html><title>page</title><link rel=icon href='data:,'>")
        client = Response(self.client, media_type="text/javascript")
        file = Response("a file", headers={"content-disposition": "attachment; filename=file.txt"})
        routes = [Route("/", page), Route("/elsewhere", page), Route("/live", HTMLResponse(LIVE))]
        routes += [Route("/client.js", client), Route("/file", file), Route("/nothing", Response(status_code=204))]
        self._server = Server(self.broker, Starlette(routes=routes), port=self.address.port)
        await self._server.start()

    async def stop(self) -> None:
        """Stop, as for a restart."""
        assert self._server is not None
        await self._server.stop()

    # --- what it heard

    def heard(self, what: What) -> list[Entry]:
        """The lines of one sort."""
        return [entry for entry in self.diary if entry.what == what]

    @property
    def notes(self) -> list[Any]:
        """What was said with `note`, in the order in which it came."""
        return [entry.data for entry in self.heard("note")]

    @property
    def closes(self) -> Counter[int]:
        """How many connections ended with each code."""
        return Counter(entry.data.code for entry in self.heard("disconnect"))

    async def hears(self, what: What, count: int, *, within: float) -> Entry:
        """Wait until there are so many lines of one sort; the last of them."""
        await eventually(lambda: len(self.heard(what)) >= count, within=within)
        return self.heard(what)[count - 1]


def with_own_kind(site: Site) -> None:
    """Rooms are joined by the built-in events."""
    kind = site.broker.rooms("room:{name:path}")

    @kind.authorize
    async def may_enter(client: Client, name: str) -> bool:
        site.write("join", client, name)
        return await site.authorize(name)

    @kind.on_join
    async def came(client: Client, name: str) -> None:
        site.write("joined", client, name)

    @kind.on_leave
    async def left(client: Client, name: str) -> None:
        site.write("leave", client, name)


def with_own_handlers(site: Site) -> None:
    """Rooms are joined by the application's own handlers, as in the README's first pages."""

    @site.broker.on("join")
    async def join(client: Client, data: dict[str, str], message: Message) -> dict[str, str]:
        site.write("join", client, data["room"].removeprefix("room:"))
        await site.authorize(data["room"])
        await site.broker.join_room(client.id, data["room"])
        site.write("joined", client, data["room"].removeprefix("room:"))
        return {"room": data["room"]}

    @site.broker.on("leave")
    async def leave(client: Client, data: dict[str, str]) -> None:
        await site.broker.leave_room(client.id, data["room"])
        site.write("leave", client, data["room"].removeprefix("room:"))


@asynccontextmanager
async def site_of(
    prepare: Callable[[Site], None] = with_own_kind, *, client: str = "", **values: Any
) -> AsyncIterator[Site]:
    """Such a server, running, until the end of the block.

    Args:
        prepare: registers what clients may ask for.
        client: the text of another client, which pages may load as `/client.js`.
        values: settings.
    """
    site = Site(prepare, client, **values)
    await site.start()
    try:
        yield site
    finally:
        await site.stop()
