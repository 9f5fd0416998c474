"""A chat for each document, with velocity-ws: logins by JWT, roles, who is here by name, removal, a bell."""

from dataclasses import dataclass
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

from docs.comparison.store import SECRET, roles, users
from velocity_ws import Accept, Broker, Client, ClientError


@dataclass(frozen=True)
class User:
    id: int
    name: str


app = FastAPI()
broker = Broker[User]()
broker.attach(app)
documents = broker.rooms("document:{document_id}", presence=True)


class Said(BaseModel):
    text: str = Field(min_length=1, max_length=500)


def read_login(request: HTTPConnection) -> dict[str, Any]:
    try:
        token = request.cookies.get("session", "")
        claims: dict[str, Any] = jwt.decode(token, SECRET, ["HS256"], options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        raise HTTPException(401, "log in first") from None
    return claims


Login = Annotated[dict[str, Any], Depends(read_login)]


@broker.authenticate
async def authenticate(login: Login) -> Accept:
    user_id = int(login["sub"])
    return Accept(User(user_id, users[user_id]), expires_at=login["exp"])


@documents.authorize
async def may_enter(client: Client[User], document_id: int) -> bool:
    return (document_id, client.user.id) in roles


@documents.presence_info
def shown_as(user: User) -> dict[str, str]:
    return {"name": user.name}


@documents.on("say")
async def say(client: Client[User], data: Said, document_id: int, room: str) -> None:
    if roles[document_id, client.user.id] == "viewer":
        raise ClientError("FORBIDDEN", "viewers only read")
    await broker.to_room(room).send("said", {"author": client.user.name, "text": data.text})


@documents.on("typing")
async def typing(client: Client[User], room: str) -> None:
    await broker.to_room(room).except_(client.id).send("typing", {"name": client.user.name})


@app.post("/users/{user_id}/bell")
async def ring(user_id: int, text: str, login: Login) -> None:
    await broker.to_user(user_id).send("bell", {"text": text, "from": users[int(login["sub"])]})


@app.delete("/documents/{document_id}/members/{user_id}", status_code=204)
async def remove_member(document_id: int, user_id: int, login: Login) -> None:
    if roles.get((document_id, int(login["sub"]))) != "owner":
        raise HTTPException(403, "only for owners")
    roles.pop((document_id, user_id), None)
    await broker.reauthorize(f"document:{document_id}", user_id)
