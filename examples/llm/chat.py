"""The chat: rooms that remember what was asked, and the answers, which are streams. Knows nothing of HTTP.

Who knows the name of a chat may be in it; `examples/auth.py` and `examples/collab` have logins.
"""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BaseModel, StringConstraints

from examples.llm.model import answer
from velocity_ws import Broker, Client, History, Settings

Name = Annotated[str, StringConstraints(pattern=r"^[\w-]+$")]
Id = Annotated[str, StringConstraints(pattern=r"^[\w-]{16,64}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class Question(BaseModel):
    """What somebody asks.

    Attributes:
        id: of the answer, which the page has drawn. A question that is sent again under it is asked once.
        text: the prompt.
        to: the question that is asked once more, by the id of its first answer.
    """

    id: Id
    text: Text
    to: Id | None = None


# Questions are remembered for as long as answers are kept: an hour, or WS_STREAM_TTL.
broker = Broker(Settings(path="/ws"))  # which the page has in it
chats = broker.rooms("chat:{name}", history=History(size=100, ttl=broker.settings.stream_ttl))


@broker.on_connect
async def greet(client: Client) -> None:
    await client.send("worker", os.getpid())  # the one to kill, to see what happens


@chats.authorize
async def may_enter(name: Name) -> bool:
    return len(name) <= 40


@chats.on("earlier")
async def earlier(room: str) -> list[Question]:
    return [Question(**entry.data) for entry in await broker.history(room, limit=100)]


# --- the answers: all that streams take on the server


@chats.on("ask", rate=1, burst=5)
async def ask(data: Question, room: str) -> None:
    # The answer begins first, so each question in the chat has one; what is asked again finds it.
    await broker.streams.start(data.id, room=room, source=answer(data.text))
    await broker.to_room(room).send("asked", data, dedupe=data.id)


@chats.on_cancel
async def may_stop() -> bool:
    return True  # everybody in a chat may stop its answers
