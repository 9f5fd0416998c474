"""Resume: a connection's first message, looked at once, and never one that is too large."""

from __future__ import annotations

import pytest

from velocity_ws.sessions.resume import First, Resume


class Inbox:
    """Has its first message looked at."""

    def __init__(self, *, answer: bool) -> None:
        self.seen: list[str | bytes] = []
        self.answer = answer
        self.first: First | None = First(self.look, 20)

    def look(self, payload: str | bytes) -> bool:
        self.seen.append(payload)
        return self.answer


@pytest.mark.parametrize(("payload", "answer", "found"), [
    ("where it stopped", True, Resume(b"where it stopped")), ("something else", False, None), (b"bytes", False, None),
])  # fmt: skip
def test_the_first_message_alone_is_looked_at(payload: str | bytes, answer: bool, found: Resume | None) -> None:
    inbox = Inbox(answer=answer)
    first = inbox.first
    assert first is not None
    assert first.take(payload, len(payload), inbox) == found
    assert inbox.seen == [payload]
    assert inbox.first is None


def test_one_that_is_too_large_is_no_resume() -> None:
    inbox = Inbox(answer=True)
    first = inbox.first
    assert first is not None
    assert first.take("x" * 21, 21, inbox) is None
    assert inbox.seen == []
    assert inbox.first is None
