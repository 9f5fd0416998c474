"""The routes: logging in, documents and their members, the bell, administration."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import delete, select

from examples.collab.config import config
from examples.collab.database import Comment, Document, Membership, Notice, Role, Session, User
from examples.collab.logins import COOKIE, CurrentPerson, current_admin
from examples.collab.realtime import broker, ring, role_in, room_of
from examples.collab.schemas import (
    Credentials,
    DocumentOut,
    MemberOut,
    NewDocument,
    NewMember,
    NoticeOut,
    OpenDocument,
    PersonOut,
    Ticket,
)
from examples.collab.security import hash_password, is_password, issue_token

api = APIRouter(prefix="/api")
NOBODY = hash_password("nobody has this password")

# --- logging in


@api.post("/login")
async def log_in(credentials: Credentials, request: Request, response: Response, db: Session) -> PersonOut:
    user = await db.scalar(select(User).filter_by(name=credentials.name, is_active=True))
    stored = NOBODY if user is None else user.password_hash  # takes as long for a name that there is not
    if not await run_in_threadpool(is_password, credentials.password, stored) or user is None:
        raise HTTPException(401, "wrong name or password")
    set_cookie(user.id, request, response)
    return PersonOut.model_validate(user)


@api.post("/login/renew")
async def renew(person: CurrentPerson, request: Request, response: Response) -> Ticket:
    """Prolong the login: a new cookie, and a ticket for the WebSocket that is open."""
    set_cookie(person.id, request, response)
    return Ticket(token=issue_token(person.id, "ticket", timedelta(minutes=config.session_minutes)))


@api.post("/logout", status_code=204)
async def log_out(request: Request, response: Response) -> None:
    response.delete_cookie(COOKIE, path=cookie_path(request))


@api.get("/me")
async def me(person: CurrentPerson) -> PersonOut:
    return PersonOut.model_validate(person)


def cookie_path(request: Request) -> str:
    """Where the application is: behind a proxy that serves it below a path, others beside it do not get the cookie."""
    root_path: str = request.scope["root_path"]
    return f"{root_path}/"


def set_cookie(user_id: int, request: Request, response: Response) -> None:
    lifetime = timedelta(minutes=config.session_minutes)
    response.set_cookie(
        COOKIE,
        issue_token(user_id, "session", lifetime),
        max_age=int(lifetime.total_seconds()),
        path=cookie_path(request),
        httponly=True,
        secure=request.url.scheme == "https",
        samesite="strict",
    )


# --- documents


@api.get("/documents")
async def list_documents(person: CurrentPerson, db: Session) -> list[DocumentOut]:
    mine = await db.scalars(select(Membership).filter_by(user_id=person.id))
    return [DocumentOut.model_validate(membership.document) for membership in mine]


@api.post("/documents", status_code=201)
async def create_document(new: NewDocument, person: CurrentPerson, db: Session) -> DocumentOut:
    document = Document(title=new.title)
    db.add(document)
    await db.flush()
    db.add(Membership(document_id=document.id, user_id=person.id, role=Role.OWNER))
    await db.commit()
    return DocumentOut.model_validate(document)


@api.get("/documents/{document_id}")
async def open_document(document_id: int, person: CurrentPerson, db: Session) -> OpenDocument:
    role = await role_in(document_id, person, db)
    document = await db.get(Document, document_id)
    if role is None or document is None:
        raise HTTPException(404, "there is no such document for you")
    members = await db.scalars(select(Membership).filter_by(document_id=document_id))
    comments = await db.scalars(select(Comment).filter_by(document_id=document_id).order_by(Comment.id))
    return OpenDocument.model_validate(
        {"id": document.id, "title": document.title, "role": role, "members": members.all(), "comments": comments.all()}
    )


async def require_owner(document_id: int, person: CurrentPerson, db: Session) -> None:
    if await role_in(document_id, person, db) is not Role.OWNER:
        raise HTTPException(403, "only for owners of the document")


@api.put("/documents/{document_id}/members", dependencies=[Depends(require_owner)])
async def set_member(document_id: int, new: NewMember, db: Session) -> MemberOut:
    user = await db.scalar(select(User).filter_by(name=new.name, is_active=True))
    document = await db.get(Document, document_id)
    if user is None or document is None:
        raise HTTPException(404, "there is nobody of that name")
    membership = await db.merge(Membership(document_id=document_id, user_id=user.id, role=new.role))
    notice = Notice(user_id=user.id, document_id=document_id, text=f"You are {new.role} of {document.title}")
    db.add(notice)
    await db.commit()
    await db.refresh(membership)
    await ring([notice])
    return MemberOut.model_validate(membership)


@api.delete("/documents/{document_id}/members/{user_id}", status_code=204, dependencies=[Depends(require_owner)])
async def remove_member(document_id: int, user_id: int, db: Session) -> None:
    await db.execute(delete(Membership).filter_by(document_id=document_id, user_id=user_id))
    await db.commit()
    # When this has returned, nothing more of the document reaches them, on any node. It raises where a node cannot
    # say so, and the answer is 500: the member is removed, and whoever did it hears that it may not have been seen yet.
    await broker.reauthorize(room_of(document_id), user_id)


# --- the bell


@api.get("/notices")
async def unread_notices(person: CurrentPerson, db: Session) -> list[NoticeOut]:
    notices = await db.scalars(select(Notice).filter_by(user_id=person.id).order_by(Notice.id))
    return [NoticeOut.model_validate(notice) for notice in notices]


@api.delete("/notices", status_code=204)
async def read_notices(person: CurrentPerson, db: Session) -> None:
    await db.execute(delete(Notice).filter_by(user_id=person.id))
    await db.commit()


# --- administration


@api.delete("/users/{user_id}", status_code=204, dependencies=[Depends(current_admin)])
async def deactivate(user_id: int, db: Session) -> None:
    user = await db.get(User, user_id)
    if user is None:
        raise HTTPException(404, "there is no such user")
    user.is_active = False
    await db.commit()
    await broker.disconnect_user(user_id, 4401, "your account is closed")


@api.get("/users/{user_id}/connections")
async def count_connections(user_id: int, _: Annotated[object, Depends(current_admin)]) -> int:
    return len(await broker.connections(user_id))
