"""Who is logged in: one dependency, for routes and for the WebSocket."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from examples.collab.database import Session, User
from examples.collab.security import read_token

COOKIE = "collab_session"


@dataclass(frozen=True)
class Person:
    """A user as the rest of the application knows one: it outlives the database session."""

    id: int
    name: str
    color: str
    is_admin: bool


@dataclass(frozen=True)
class Login:
    person: Person
    expires_at: datetime


async def login_by(token: str, db: AsyncSession, *, is_ticket: bool = False) -> Login | None:
    claims = read_token(token, "ticket" if is_ticket else "session")
    user = None if claims is None else await db.get(User, claims.sub)
    if claims is None or user is None or not user.is_active:
        return None
    return Login(Person(user.id, user.name, user.color, user.is_admin), claims.exp)


async def find_login(request: HTTPConnection, db: Session) -> Login | None:
    return await login_by(request.cookies.get(COOKIE, ""), db)


async def current_person(login: Annotated[Login | None, Depends(find_login)]) -> Person:
    if login is None:
        raise HTTPException(401, "log in first")
    return login.person


CurrentPerson = Annotated[Person, Depends(current_person)]


async def current_admin(person: CurrentPerson) -> Person:
    if not person.is_admin:
        raise HTTPException(403, "only for administrators")
    return person
