"""The chat itself: who may come in, what may be said, and who hears of it. Knows nothing of HTTP routes.

It is the same in one process and in many: people are asked for on all nodes. Only the list of rooms that a newcomer
gets is its own node's; the others' appear as something happens in them.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints
from starlette.requests import HTTPConnection

from examples.chat import tokens
from velocity_ws import BackplaneUnavailable, Broker, Client, ClientError, Reject, Settings

MAX_ROOMS = 20
STATS = "stats"
"""The room of those who look at the statistics. Rooms to chat in have a prefix, so that none of them is this one."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=24)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class Room(BaseModel):
    """What `join`, `leave` and `typing` carry."""

    room: Name

    @property
    def key(self) -> str:
        """The room's name in the broker."""
        return f"chat:{self.room}"


class Chat(Room):
    """What `chat` carries."""

    text: Text


def configure() -> Settings:
    """The settings; where no rate limit is set, one that a visitor can run into. The page has the path in it."""
    settings = Settings(path="/ws")
    if settings.model_fields_set & {"rate_limit", "rate_burst"}:
        return settings
    return settings.model_copy(update={"rate_limit": 5.0, "rate_burst": 10})


broker = Broker(configure())


@broker.authenticate
def authenticate(request: HTTPConnection) -> str:
    name = tokens.check(request.query_params.get("token", ""))
    if name is None:
        raise Reject("please log in", code=4401)
    return name


@broker.on_connect
async def greet(client: Client) -> None:
    is_clustered = broker.settings.backplane_url != "memory://"
    await client.send("rooms", [await room_of(key) for key in broker.get_rooms() if key != STATS])
    await client.send("node", {"id": broker.node_id, "is_clustered": is_clustered})


@broker.on_disconnect
async def say_goodbye(client: Client) -> None:
    for key in client.rooms - {STATS}:
        await tell_left(key, client.user)


@broker.on("join")
async def join(client: Client, data: Room) -> dict[str, Any]:
    if len(client.rooms) >= MAX_ROOMS and data.key not in client.rooms:
        raise ClientError("TOO_MANY_ROOMS", f"you can be in {MAX_ROOMS} rooms at once")
    is_new = client.user not in names(await people(data.key))
    await broker.join_room(client.id, data.key)
    if is_new:
        await broker.to_room(data.key).send("joined", {"room": data.room, "name": client.user, "at": now()})
    return {"room": data.room, "people": await tell_presence(data.key)}


@broker.on("leave")
async def leave(client: Client, data: Room) -> None:
    if data.key in client.rooms:
        await broker.leave_room(client.id, data.key)
        await tell_left(data.key, client.user)


@broker.on("chat")
async def chat(client: Client, data: Chat) -> None:
    if data.key not in client.rooms:
        raise ClientError("NOT_IN_ROOM", "join the room before you talk in it", room=data.room)
    message = {"room": data.room, "name": client.user, "text": data.text, "at": now()}
    try:
        await broker.to_room(data.key).send("chat", message)
    except BackplaneUnavailable as error:
        why = "people on other nodes did not get it, or perhaps not"
        raise ClientError("OTHERS_UNREACHABLE", why, outcome=error.outcome) from error


@broker.on("typing")
async def typing(client: Client, data: Room) -> None:
    if data.key in client.rooms:
        await broker.to_room(data.key).except_(client.id).send("typing", {"room": data.room, "name": client.user})


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


def names(people: list[dict[str, Any]]) -> set[str]:
    return {person["name"] for person in people}


async def room_of(key: str) -> dict[str, Any]:
    """A room as the list has it."""
    return {"room": key.removeprefix("chat:"), "people": len(await people(key))}


async def tell_presence(key: str) -> list[dict[str, Any]]:
    """Tell its members who is in a room, and everyone how many."""
    room, found = key.removeprefix("chat:"), await people(key)
    with suppress(BackplaneUnavailable):  # those here know it now, the others when it is there again
        await broker.to_room(key).send("people", {"room": room, "people": found})
        await broker.broadcast("room", {"room": room, "people": len(found)})
    return found


async def tell_left(key: str, name: str) -> None:
    if name not in names(await people(key)):
        await broker.to_room(key).send("left", {"room": key.removeprefix("chat:"), "name": name, "at": now()})
    await tell_presence(key)
