"""OpenAI: what the SDK of OpenAI streams, as text, as items, or as chunks of UI messages. Knows it by its attributes.

Of Chat Completions (``await client.chat.completions.create(…, stream=True)``), which many others speak too, and of
Responses (``await client.responses.create(…, stream=True)``). Tested with openai 3.57.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from velocity_ws.adapters.message import Chunk, Message
from velocity_ws.adapters.openai_messages import SAID, ChatReader, ResponseReader, first_choice, text_of
from velocity_ws.adapters.upstream import Upstream, opened
from velocity_ws.errors import UpstreamError

__all__ = ["items", "text", "ui_message_chunks"]

ENDS: Final = ("response.completed", "response.incomplete")
FAILED: Final = "the model's answer has failed"
OF_RESPONSE: Final = ("id", "status", "model", "incomplete_details", "usage")
"""What is kept of a response in its events: the rest repeats what was asked, or what was said."""


async def text(stream: Upstream) -> AsyncGenerator[str, None]:
    """The text that a model says: ``source=lambda: openai.text(client.responses.create(…, stream=True))``.

    A refusal is text, too. Of several choices it is that of the first; what is thought, and calls of tools, are left
    out. From any loop, in a coroutine.

    Args:
        stream: an ``AsyncStream``, or the call of ``create`` itself, which is awaited when the stream begins. It is
            closed when the text has ended, failed, or was cancelled.

    Raises:
        UpstreamError: the answer has failed, or has ended without saying that it is complete.

        And what the SDK raises, such as an ``openai.APIError``.
    """
    async with aclosing(_events(stream)) as events:
        async for event in events:
            said = _said(event)
            if said:
                yield said


async def items(stream: Upstream) -> AsyncGenerator[Any, None]:
    """What comes on the wire, event by event, as JSON. From any loop, in a coroutine.

    A response in an event has its ``id``, ``status``, ``model``, ``incomplete_details`` and ``usage`` alone, as the
    rest repeats the instructions, and all that was said. ``obfuscation``, which is padding, is left out.

    Args:
        stream: as for `text`.

    Raises:
        UpstreamError: as for `text`.
    """
    async with aclosing(_events(stream)) as events:
        async for event in events:
            yield _item(event)


async def ui_message_chunks(stream: Upstream) -> AsyncGenerator[Chunk, None]:
    """What is said as chunks of a UI message of the AI SDK: text, what was thought, calls of tools, sources.

    From any loop, in a coroutine.

    Args:
        stream: as for `text`.

    Raises:
        UpstreamError: as for `text`.
    """
    message = Message()
    yield {"type": "start"}
    for chunk in message.start_step():
        yield chunk
    reader: ChatReader | ResponseReader | None = None
    async with aclosing(_events(stream)) as events:
        async for event in events:
            reader = reader or (ChatReader(message) if hasattr(event, "choices") else ResponseReader(message))
            for chunk in reader.take(event):
                yield chunk
    for chunk in message.finish(reader.reason if reader is not None else None):
        yield chunk


async def _events(stream: Upstream) -> AsyncGenerator[Any, None]:
    """What comes, as long as it is no failure."""
    is_complete = False
    async with opened(stream) as upstream:
        async for event in upstream:
            _check(event)
            is_complete = is_complete or _is_last(event)
            yield event
    if not is_complete:
        # A connection that is closed in order in the middle is the end of an iteration, to the SDK (openai 3.57).
        raise UpstreamError("the answer of the model has ended without saying that it is complete: ask again")


def _check(event: Any) -> None:
    """Raise what an event says that has failed, of which the SDK raises nothing.

    Raises:
        UpstreamError: it has.
    """
    kind = getattr(event, "type", None)
    if kind == "error":
        raise UpstreamError(f"the model's server has failed: {event.message} ({event.code})")
    if kind == "response.failed":
        error = event.response.error
        raise UpstreamError(f"the model's answer has failed: {error.message} ({error.code})" if error else FAILED)


def _is_last(event: Any) -> bool:
    """Whether an event says that the answer is complete, or that the model has stopped for a reason."""
    if hasattr(event, "choices"):
        return any(choice.finish_reason for choice in event.choices or ())
    return event.type in ENDS


def _said(event: Any) -> str | None:
    """The text in an event; nothing where there is none."""
    if not hasattr(event, "choices"):
        return event.delta if event.type in SAID else None
    return "".join([text_of(choice.delta) for choice in first_choice(event)])


def _item(event: Any) -> Any:
    item = event.to_dict(mode="json")
    item.pop("obfuscation", None)
    response = item.get("response")
    if isinstance(response, dict):
        item["response"] = {key: response[key] for key in OF_RESPONSE if key in response}
    return item
