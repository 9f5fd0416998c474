"""An application for several processes that gives answers as streams, and keeps on disk which of them it has begun.

``STREAM_BOOK`` names the file, and ``STREAM_PACE`` is the seconds between two parts of an answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from tests.support.answers import parts, raises
from velocity_ws import BackplaneUnavailable, Broker, ClientError

broker: Broker[str] = Broker()
app = Starlette()
broker.attach(app)
chats = broker.rooms("chat:{name}")
BOOK = Path(os.environ["STREAM_BOOK"])
PACE = float(os.environ.get("STREAM_PACE", "0.25"))


@chats.authorize
async def may_enter() -> bool:
    return True


@broker.on_error
async def failed(error: Exception) -> None:
    """Nothing: that an answer fails is among what is tested."""


def write(word: str, id_: str) -> None:
    """Write a line into the book, at once."""
    with BOOK.open("a") as book:
        book.write(f"{word} {id_} {os.getpid()}\n")


async def answer(id_: str) -> AsyncIterator[str | bytes]:
    """Say an answer."""
    write("began", id_)
    last = raises(id_)
    for number, part in enumerate(parts(id_)):
        if number == last:
            write("failed", id_)
            raise ZeroDivisionError(id_)
        yield part
        await asyncio.sleep(PACE)
    write("finished", id_)


@broker.on("begin", concurrent=True)
async def begin(data: list[str]) -> bool:
    """Start an answer in a room; whether this has started it."""
    id_, room = data
    try:
        stream = await broker.streams.start(id_, room=room, source=lambda: answer(id_))
    except BackplaneUnavailable as error:
        raise ClientError("UNAVAILABLE", str(error)) from None
    return stream.is_new


@broker.on("cancel", concurrent=True)
async def cancel(data: str) -> bool:
    """Cancel an answer; whether it is cancelled."""
    try:
        return await broker.streams.cancel(data)
    except BackplaneUnavailable as error:
        raise ClientError("UNAVAILABLE", str(error)) from None


@broker.on("state", concurrent=True)
async def state(data: str) -> list[Any]:
    """What an answer has said, and how it has ended."""
    try:
        found = await broker.streams.read(data)
    except BackplaneUnavailable as error:
        raise ClientError("UNAVAILABLE", str(error)) from None
    return [found.text, found.end]


@broker.on("known", concurrent=True)
async def known(data: list[str]) -> Any:
    """What this node knows of an answer in a room, for reports."""
    id_, room = data
    streams = broker.node.streams
    followed = None if streams is None else streams._following.rooms.get(room)
    if followed is None:
        return "the room has no members here, as far as is known"
    copy = followed.copies.get(id_)
    if copy is None:
        return f"it is not known; known: {followed.is_known}, waiting: {followed.waiting}"
    return f"pieces {copy.number}, length {copy.length}, end {copy.end}, behind {list(copy.behind)}"
