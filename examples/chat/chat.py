"""The chat itself: who may come in, what may be said, and who hears of it. Knows nothing of HTTP routes.

It is the same in one process and in many: people are asked for on all nodes. Only the list of rooms that a newcomer
gets is its own node's; the others' appear as something happens in them.

A room remembers what was said in it, and nothing else: who comes, goes and types is told aside, in a room that
remembers nothing, as nobody who was away wants to be told of it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints
from starlette.requests import HTTPConnection

from examples.chat import tokens
from velocity_ws import BackplaneUnavailable, Broker, Client, ClientError, History, HistoryError, Reject, Settings

STATS = "stats"
"""The room of those who look at the statistics. Rooms to chat in have a prefix, so that none of them is this one."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=24)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class Chat(BaseModel):
    """What `chat` carries. Sent again under its id, it is the same message, and is there once."""

    text: Text
    id: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = None


class Line(BaseModel):
    """What was said in a room, and where it stands there."""

    name: str
    text: str
    at: str
    position: str


def configure() -> Settings:
    """The settings; where no rate limit is set, one that a visitor can run into. The page has the path in it."""
    settings = Settings(path="/ws")
    if settings.model_fields_set & {"rate_limit", "rate_burst"}:
        return settings
    return settings.model_copy(update={"rate_limit": 5.0, "rate_burst": 10})


broker = Broker(configure())
chats = broker.rooms("chat:{name:path}", history=History(size=200, ttl="1d"))
asides = broker.rooms("aside:{name:path}")


@broker.authenticate
def authenticate(request: HTTPConnection) -> str:
    name = tokens.check(request.query_params.get("token", ""))
    if name is None:
        raise Reject("please log in", code=4401)
    return name


@broker.on_connect
async def greet(client: Client) -> None:
    is_clustered = broker.settings.backplane_url != "memory://"
    await client.send("rooms", [await room_of(key) for key in broker.get_rooms() if key.startswith("chat:")])
    await client.send("node", {"id": broker.node_id, "is_clustered": is_clustered, "process": os.getpid()})


@chats.authorize
async def may_enter(name: Name, room: str) -> bool:
    """Everybody may be in every room that has a name; the page strips it, and here it has to be that already."""
    return room == f"chat:{name}"


@chats.on_join
async def came(client: Client, room: str) -> None:
    await broker.join_room(client.id, aside(room))
    if [member.user for member in await broker.members(room)].count(client.user) == 1:  # and no other tab
        await tell(aside(room), "came", {"name": client.user, "at": now()})
    await tell_presence(room, await people(room))


@chats.on_leave
async def went(client: Client, room: str) -> None:
    await broker.leave_room(client.id, aside(room))
    here = await people(room)
    if client.user not in names(here):
        await tell(aside(room), "went", {"name": client.user, "at": now()})
    await tell_presence(room, here)


@chats.on("chat")
async def chat(client: Client, data: Chat, room: str) -> None:
    line = {"name": client.user, "text": data.text, "at": now()}
    try:
        await broker.to_room(room).send("chat", line, dedupe=data.id and f"{client.user}:{data.id}")
    except HistoryError as error:
        if error.reason != "conflict":  # which is of the time alone: it is there since the first attempt
            raise
    except BackplaneUnavailable as error:
        why = "nobody got it" if error.outcome == "refused" else "it is not known whether the others got it"
        raise ClientError("ENGINE_AWAY", why) from error


@chats.on("earlier")
async def earlier(room: str) -> list[Line]:
    """What was said in a room, for who comes into it, and for who has missed more than comes by itself."""
    try:
        return [Line(**entry.data, position=entry.at) for entry in await broker.history(room, limit=200)]
    except BackplaneUnavailable as error:
        raise ClientError("ENGINE_AWAY", "what was said before cannot be had now") from error


@chats.on("typing")
async def typing(client: Client, room: str) -> None:
    with suppress(BackplaneUnavailable):
        await broker.to_room(aside(room)).except_(client.id).send("typing", {"name": client.user})


@broker.on("watch")
async def watch(client: Client, data: bool) -> None:
    await (broker.join_room if data else broker.leave_room)(client.id, STATS)


@broker.on("drop")
async def drop(client: Client) -> None:
    await client.disconnect(4000, "dropped, as you asked")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


async def people(key: str) -> list[dict[str, Any]]:
    """Who is in a room, and on which nodes; somebody with two tabs is there once."""
    nodes: dict[str, set[str]] = {}
    for member in await broker.members(key):
        nodes.setdefault(member.user or "", set()).add(member.node)
    return [{"name": name, "nodes": sorted(nodes[name])} for name in sorted(nodes, key=str.casefold)]


def aside(key: str) -> str:
    """The room beside a room, which has the same members and remembers nothing."""
    return "aside:" + key.removeprefix("chat:")


def names(people: list[dict[str, Any]]) -> set[str]:
    return {person["name"] for person in people}


async def room_of(key: str) -> dict[str, Any]:
    """A room as the list has it."""
    return {"room": key.removeprefix("chat:"), "people": len(await people(key))}


async def tell(key: str, event: str, data: dict[str, Any]) -> None:
    """Tell those in a room. Those here know it then, the others when the engine is there again."""
    with suppress(BackplaneUnavailable):
        await broker.to_room(key).send(event, data)


async def tell_presence(key: str, here: list[dict[str, Any]]) -> None:
    """Tell its members who is in a room, and everyone how many."""
    await tell(aside(key), "people", {"people": here})
    with suppress(BackplaneUnavailable):
        await broker.broadcast("room", {"room": key.removeprefix("chat:"), "people": len(here)})
