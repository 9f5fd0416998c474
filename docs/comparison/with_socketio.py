"""A chat for each document, with python-socketio: logins by JWT, roles, who is here by name, removal, a bell."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import jwt
import socketio
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import HTTPConnection

from docs.comparison.store import SECRET, roles, users

Handler = Callable[[str, Any], Awaitable[None]]

api = FastAPI()
sio = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(sio, api)

connected: dict[str, "User"] = {}
expiries: dict[str, asyncio.Task[None]] = {}
present: defaultdict[int, Counter["User"]] = defaultdict(Counter)


@dataclass(frozen=True)
class User:
    id: int
    name: str


class Room(BaseModel):
    document_id: int


class Said(Room):
    text: str = Field(min_length=1, max_length=500)


def read_login(request: HTTPConnection) -> dict[str, Any]:
    try:
        token = request.cookies.get("session", "")
        claims: dict[str, Any] = jwt.decode(token, SECRET, ["HS256"], options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        raise HTTPException(401, "log in first") from None
    return claims


Login = Annotated[dict[str, Any], Depends(read_login)]


class Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.answer = {"error": {"code": code, "message": message}}


def on(event: str, model: type[BaseModel]) -> Callable[[Handler], Handler]:
    """Register a handler whose data is validated, and whose acknowledgement says what was wrong."""

    def register(handler: Handler) -> Handler:
        async def validated(sid: str, data: Any) -> dict[str, Any]:
            try:
                await handler(sid, model.model_validate(data))
            except ValidationError as invalid:
                return Refused("INVALID_DATA", str(invalid)).answer
            except Refused as refused:
                return refused.answer
            return {"ok": True}

        sio.on(event, validated)
        return handler

    return register


def room_of(document_id: int) -> str:
    return f"document:{document_id}"


@sio.event
async def connect(sid: str, environ: dict[str, Any]) -> None:
    try:
        login = read_login(HTTPConnection(environ["asgi.scope"]))
    except HTTPException as refused:
        raise socketio.exceptions.ConnectionRefusedError(refused.detail) from None
    user_id = int(login["sub"])
    connected[sid] = User(user_id, users[user_id])
    expiries[sid] = asyncio.create_task(expire(sid, login["exp"]))
    await sio.enter_room(sid, f"user:{user_id}")


async def expire(sid: str, expires_at: float) -> None:
    await asyncio.sleep(expires_at - time.time())
    await sio.emit("session_expired", to=sid)
    del expiries[sid]  # or its disconnect handler would cancel this
    await sio.disconnect(sid)


@sio.event
async def disconnect(sid: str) -> None:
    user = connected[sid]
    if sid in expiries:
        expiries.pop(sid).cancel()
    for document_id in list(present):
        if room_of(document_id) in sio.rooms(sid):
            await went(document_id, user)
    del connected[sid]


async def came(document_id: int, user: User) -> None:
    present[document_id][user] += 1
    await tell_presence(document_id)


async def went(document_id: int, user: User) -> None:
    present[document_id][user] -= 1
    if not present[document_id][user]:
        del present[document_id][user]
    if not present[document_id]:
        del present[document_id]
        return
    await tell_presence(document_id)


async def tell_presence(document_id: int) -> None:
    here = {user.id: {"name": user.name, "connections": count} for user, count in present[document_id].items()}
    await sio.emit("presence", {"document_id": document_id, "users": here}, room=room_of(document_id))


@on("join", Room)
async def join(sid: str, data: Room) -> None:
    user = connected[sid]
    if (data.document_id, user.id) not in roles:
        raise Refused("FORBIDDEN", "you are no member of this document")
    if room_of(data.document_id) not in sio.rooms(sid):
        await sio.enter_room(sid, room_of(data.document_id))
        await came(data.document_id, user)


@on("leave", Room)
async def leave(sid: str, data: Room) -> None:
    if room_of(data.document_id) in sio.rooms(sid):
        await sio.leave_room(sid, room_of(data.document_id))
        await went(data.document_id, connected[sid])


def require_joined(sid: str, document_id: int) -> None:
    if room_of(document_id) not in sio.rooms(sid):
        raise Refused("FORBIDDEN", "join the document first")


@on("say", Said)
async def say(sid: str, data: Said) -> None:
    require_joined(sid, data.document_id)
    user = connected[sid]
    if roles[data.document_id, user.id] == "viewer":
        raise Refused("FORBIDDEN", "viewers only read")
    await sio.emit("said", {"author": user.name, "text": data.text}, room=room_of(data.document_id))


@on("typing", Room)
async def typing(sid: str, data: Room) -> None:
    require_joined(sid, data.document_id)
    await sio.emit("typing", {"name": connected[sid].name}, room=room_of(data.document_id), skip_sid=sid)


@api.post("/users/{user_id}/bell")
async def ring(user_id: int, text: str, login: Login) -> None:
    await sio.emit("bell", {"text": text, "from": users[int(login["sub"])]}, room=f"user:{user_id}")


@api.delete("/documents/{document_id}/members/{user_id}", status_code=204)
async def remove_member(document_id: int, user_id: int, login: Login) -> None:
    if roles.get((document_id, int(login["sub"]))) != "owner":
        raise HTTPException(403, "only for owners")
    roles.pop((document_id, user_id), None)
    room = room_of(document_id)
    for sid, user in list(connected.items()):
        if user.id == user_id and room in sio.rooms(sid):
            await sio.leave_room(sid, room)
            await sio.emit("left", {"document_id": document_id, "reason": "FORBIDDEN"}, to=sid)
            await went(document_id, user)
