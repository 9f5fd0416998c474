"""What goes over the wire, in both directions."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from examples.collab.database import Role

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class Credentials(BaseModel):
    name: str
    password: str


class Ticket(BaseModel):
    """A short-lived token for an open WebSocket, which does not see a new cookie."""

    token: str


class OfTable(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PersonOut(OfTable):
    id: int
    name: str
    color: str


class NewDocument(BaseModel):
    title: Name


class DocumentOut(OfTable):
    id: int
    title: str


class NewComment(BaseModel):
    text: Text


class CommentOut(OfTable):
    id: int
    author: PersonOut
    text: str
    written_at: datetime


class NewMember(BaseModel):
    name: str
    role: Role


class MemberOut(OfTable):
    user: PersonOut
    role: Role


class OpenDocument(DocumentOut):
    role: Role
    members: list[MemberOut]
    comments: list[CommentOut]


class NoticeOut(OfTable):
    id: int
    document_id: int
    text: str
