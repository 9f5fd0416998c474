"""The WebSocket: who may connect, who may be in a document's room, and what its members tell each other."""

from contextlib import suppress
from typing import Annotated

from fastapi import Depends, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.collab.database import Comment, Membership, Notice, Role, Session
from examples.collab.logins import Login, Person, find_login, login_by
from examples.collab.schemas import CommentOut, NewComment, NoticeOut, Ticket
from velocity_ws import Accept, BackplaneUnavailable, Broker, Client, ClientError, Reject

# Pages of other sites are refused (WS_ALLOWED_ORIGINS), whatever their browser thinks of the cookie's SameSite.
broker = Broker[Person]()
documents = broker.rooms("document:{document_id}", presence=True)


def room_of(document_id: int) -> str:
    return f"document:{document_id}"


@broker.authenticate
async def authenticate(login: Annotated[Login | None, Depends(find_login)]) -> Accept:
    if login is None:
        raise Reject("log in first", code=4401)  # a page can read this; it cannot read the status of a handshake
    return Accept(login.person, expires_at=login.expires_at)


@broker.refresh
async def refresh(data: Ticket, db: Session) -> Accept:
    login = await login_by(data.token, db, is_ticket=True)
    if login is None:
        raise ClientError("UNAUTHORIZED", "the ticket is not valid")
    return Accept(login.person, expires_at=login.expires_at)


async def role_in(document_id: int, person: Person, db: AsyncSession) -> Role | None:
    membership = await db.get(Membership, (document_id, person.id))
    return None if membership is None else membership.role


@documents.authorize
async def may_enter(client: Client[Person], document_id: int, db: Session) -> bool:
    return await role_in(document_id, client.user, db) is not None


@documents.presence_info
def shown_as(user: Person) -> dict[str, str]:
    return {"name": user.name, "color": user.color}


@documents.on("typing", rate=5, burst=10)
async def typing(client: Client[Person], room: str) -> None:
    # For who reads slowly the newest of the same key is enough.
    others = broker.to_room(room).except_(client.id)
    await others.send("typing", {"name": client.user.name}, key=f"typing:{client.user_id}")


@documents.on("comment")
async def comment(client: Client[Person], data: NewComment, document_id: int, room: str, db: Session) -> CommentOut:
    author = client.user
    if await role_in(document_id, author, db) not in (Role.EDITOR, Role.OWNER):
        raise HTTPException(403, "viewers do not comment")
    written = Comment(document_id=document_id, author_id=author.id, text=data.text)
    db.add(written)
    members = await db.scalars(select(Membership).filter_by(document_id=document_id))
    notices = [
        Notice(user_id=member.user_id, document_id=document_id, text=f"{author.name} wrote in {member.document.title}")
        for member in members
        if member.user_id != author.id
    ]
    db.add_all(notices)
    await db.commit()  # first of all: nobody is told of what may not be there in the end
    await db.refresh(written)
    shown = CommentOut.model_validate(written)
    with suppress(BackplaneUnavailable):  # it is written; who is not told now reads it when their gap comes
        await broker.to_room(room).send("comment", shown)
    await ring(notices)
    return shown


async def ring(notices: list[Notice]) -> None:
    """Ring the bells of users, on every page that they have open. Call it after the commit: who is not reached now
    finds the notice later."""
    for notice in notices:
        with suppress(BackplaneUnavailable):
            await broker.to_user(notice.user_id).send("bell", NoticeOut.model_validate(notice))
