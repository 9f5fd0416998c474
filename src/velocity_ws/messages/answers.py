"""Answers: what a client says to a question of the server, ``{"event", "data", "id"}``. Pure: knows no client.

A question's id is of the server's choice, and unlike any that a client thinks of for its own requests; the answer
repeats it: ``{"event": "reply", "id", "data"}``, or ``{"event": "error", "id", "data": {"code", "message", …}}``.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Container
from typing import Any, Final

from velocity_ws.errors import ClientError
from velocity_ws.messages.events import ERROR, REPLY
from velocity_ws.messages.inbound import Malformed, Message, head_of
from velocity_ws.messages.scan import find_id

__all__ = ["data_of", "id_answered", "new_question_id"]

_MARK: Final = "$" + secrets.token_urlsafe(9)
"""Begins the id of every question of this process."""
_numbers = itertools.count(1)


def new_question_id() -> str:
    """Make an id for a question. From any thread."""
    return f"{_MARK}.{next(_numbers)}"


def id_answered(text: str, questions: Container[str]) -> str | None:
    """Find out which of some questions a message answers.

    Args:
        text: the message.
        questions: the ids of the questions.

    Returns:
        The question's id; ``None`` if it is no answer to any of these. A text that is no message is one where it has
        the id of a question.
    """
    if _MARK not in text and "\\u" not in text:  # an escape may spell any of its characters
        return None
    head = head_of(text)
    if head is not None and head.event not in (REPLY, ERROR):
        return None
    found = find_id(text) if head is None else head.id  # half an emoji in its data does not let anybody wait
    return found if isinstance(found, str) and found in questions else None


def data_of(answer: Message | Malformed) -> Any:
    """Read an answer.

    Returns:
        The data of a reply.

    Raises:
        ClientError: it is an error, with the code, the message and the details that the client gave; the code is
            ``INVALID_ANSWER`` if it gave none, or if the answer cannot be decoded.
    """
    if isinstance(answer, Malformed):
        raise ClientError("INVALID_ANSWER", f"the client's answer cannot be read: {answer.message}")
    data = answer.data
    if answer.event == REPLY:
        return data
    if not isinstance(data, dict) or not isinstance(data.get("code"), str) or not data["code"]:
        raise ClientError("INVALID_ANSWER", "the client answered with an error that has no code", answer=data)
    details = {key: value for key, value in data.items() if key not in ("code", "message")}
    message = data.get("message")
    raise ClientError(data["code"], message if isinstance(message, str) else "", **details)
