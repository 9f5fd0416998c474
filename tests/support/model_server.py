"""A server that speaks OpenAI's wire: says what a test tells it to, event by event. Knows no client of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from openai import AsyncOpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support import Address

__all__ = ["ModelServer", "client_of", "delta", "response_event"]


class ModelServer:
    """Answers ``/chat/completions`` and ``/responses`` with one list of events.

    Attributes:
        events: what is said of each answer: objects, texts as they are, or an `asyncio.Event` to wait for.
        status: with which it answers; another one than 200 says `events` as they are.
        asked: the requests' bodies.
        closed: set when somebody who was answered has gone, or has all.
    """

    def __init__(self, *events: Any, status: int = 200) -> None:
        self.events = events
        self.status = status
        self.asked: list[Any] = []
        self.closed = asyncio.Event()
        paths = ("/chat/completions", "/responses")
        self.app = Starlette(routes=[Route(path, self._answer, methods=["POST"]) for path in paths])

    async def _answer(self, request: Request) -> Response:
        self.asked.append(await request.json())
        if self.status != 200:
            return JSONResponse(self.events[0], self.status)
        return StreamingResponse(self._say(), media_type="text/event-stream")

    async def _say(self) -> AsyncIterator[str]:
        try:
            for event in self.events:
                if isinstance(event, asyncio.Event):
                    await event.wait()
                elif isinstance(event, str):
                    yield event
                else:
                    name = f"event: {event['type']}\n" if "type" in event else ""
                    yield f"{name}data: {json.dumps(event)}\n\n"
        finally:
            self.closed.set()


def client_of(address: Address) -> AsyncOpenAI:
    """The SDK, which asks that server."""
    return AsyncOpenAI(base_url=address.http, api_key="none", max_retries=0)


def delta(finish: str | None = None, index: int = 0, **said: Any) -> dict[str, Any]:
    """A chunk of a chat completion, as OpenAI sends it, with its padding."""
    choice = {"index": index, "delta": said, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1764547200, "model": "gpt-5"}
    return {**head, "choices": [choice], "usage": None, "obfuscation": "pAdD1nG"}


def response_event(kind: str, number: int = 0, **fields: Any) -> dict[str, Any]:
    """An event of a response."""
    return {"type": f"response.{kind}", "sequence_number": number, **fields}
