"""Followed: the answer first, in the form that was asked for, then what comes behind it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.followed import Followed


@pytest.mark.parametrize(("request_id", "event"), [(None, "joined"), (7, "reply"), ("a", "reply")])
def test_what_follows_comes_behind_the_answer(request_id: int | str | None, event: str) -> None:
    had: list[Any] = []

    def offer(message: PreparedMessage) -> None:
        had.append(msgspec.json.decode(message.payload))

    answer: dict[str, object] = {"room": "chat"}
    Followed(answer, "joined", offer, lambda: had.append("follows")).send(request_id)
    assert [had[0]["event"], had[0]["data"], had[1]] == [event, answer, "follows"]
    assert had[0].get("id") == request_id
