"""Stand-ins for what the pages leave to the reader: the application, its models, its database. Knows no page.

Blocks of code that use such a name and do not define it are given the one of here.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.testclient import WebSocketDenialResponse

from velocity_ws import (
    Accept,
    BackplaneUnavailable,
    Broker,
    Client,
    ClientError,
    Emitter,
    EventRouter,
    History,
    Reject,
    Rooms,
    Server,
    Settings,
    WebSocketApp,
    WebSocketMiddleware,
)
from velocity_ws.backplane import Backplane
from velocity_ws.testing import BackplaneContract

__all__ = [
    "Accept",
    "Any",
    "AsyncIterator",
    "Backplane",
    "BackplaneContract",
    "BackplaneUnavailable",
    "BaseModel",
    "Broker",
    "Client",
    "ClientError",
    "Emitter",
    "EventRouter",
    "FastAPI",
    "HTTPConnection",
    "HTTPException",
    "History",
    "Path",
    "Reject",
    "Server",
    "Settings",
    "TestClient",
    "TrustedHostMiddleware",
    "WebSocketApp",
    "WebSocketDenialResponse",
    "WebSocketMiddleware",
    "delete",
    "fastapi",
    "graph",
    "pytest",
    "suppress",
    "templates",
    "typing",
]

# --- the application

app: Any = FastAPI()
broker: Broker[Any] = Broker(Settings(_env_file=None))
chats: Rooms = broker.rooms("chat:{chat_id}")
client: Client[Any] = typing.cast("Client[Any]", None)
client_id = id1 = id2 = "client"
data: Any = None
xy = (1, 2)
part: list[int] = []
end = 0.0


class User(SimpleNamespace):
    id: str
    name: str
    colour: str


user = User(id="ann", name="Ann", colour="red")


class ChatMessage(BaseModel):
    text: str


class Question(BaseModel):
    id: str
    text: str


class Position(BaseModel):
    x: float
    y: float


class Changed(BaseModel):
    key: str


# --- its users

templates: Any = SimpleNamespace(env=SimpleNamespace(globals={}))
USERS = {"token-of-ann": "ann"}
MEMBERS: dict[int, set[str]] = {7: {"ann"}}


def is_password(name: str, password: str) -> bool:
    return name == password


async def is_member(user: object, chat_id: int) -> bool:
    return chat_id == 7


# --- its database


class Base(DeclarativeBase):
    pass


class Membership(Base):
    __tablename__ = "memberships"

    chat_id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


engine: AsyncEngine = create_async_engine("sqlite+aiosqlite://")


async def get_db() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_db)]
UserId = Annotated[str, Query()]


async def store_name(db: AsyncSession, user_id: str, name: str) -> None: ...


# --- what else they use

graph: Any = None  # of LangGraph

RawHeaders = list[tuple[bytes, bytes]]


async def complete(prompt: str) -> AsyncIterator[str]:
    yield prompt


model = complete


def rows() -> Iterable[list[int]]:
    return [[1, 2]]
