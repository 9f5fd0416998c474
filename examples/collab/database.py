"""The tables, and the session that routes and handlers get."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from fastapi import Depends
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from examples.collab.config import config

engine = create_async_engine(config.database)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    color: Mapped[str]
    password_hash: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)


class Document(Base):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Role(StrEnum):
    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"


class Membership(Base):
    __tablename__ = "memberships"

    document_id: Mapped[int] = mapped_column(ForeignKey(Document.id), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    role: Mapped[Role]
    user: Mapped[User] = relationship(lazy="joined")
    document: Mapped[Document] = relationship(lazy="joined")


class Comment(Base):
    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[int] = mapped_column(ForeignKey(Document.id), index=True)
    author_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    text: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    author: Mapped[User] = relationship(lazy="joined")


class Notice(Base):
    """What rings a user's bell, kept until it is read: who is not connected finds it later."""

    __tablename__ = "notices"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), index=True)
    document_id: Mapped[int] = mapped_column(ForeignKey(Document.id))
    text: Mapped[str]


async def get_session() -> AsyncIterator[AsyncSession]:
    """A session for one request, or one message; what was not committed is rolled back."""
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]
