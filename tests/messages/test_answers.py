"""Answers: found by their ids, however they are spelled, and read as data or as an error."""

from __future__ import annotations

import json

import pytest

from velocity_ws.errors import ClientError
from velocity_ws.messages.answers import data_of, id_answered, new_question_id
from velocity_ws.messages.inbound import Malformed, Message


def test_an_answer_is_found_by_the_id_of_its_question() -> None:
    first, second = new_question_id(), new_question_id()
    assert first != second
    for event in ("reply", "error"):
        assert id_answered(json.dumps({"event": event, "id": first}), {first, second}) == first
        assert id_answered(json.dumps({"event": event, "id": first}), {second}) is None
    escaped = "".join(f"\\u{ord(letter):04X}" for letter in second)
    assert id_answered(f'{{"id": "{escaped}", "event": "reply"}}', {first, second}) == second


def test_a_text_that_is_no_message_may_be_an_answer_that_cannot_be_read() -> None:
    question_id = new_question_id()
    half = json.dumps({"event": "reply", "data": "\ud83d", "id": question_id})
    assert id_answered(half, {question_id}) == question_id
    assert id_answered(half, {new_question_id()}) is None


@pytest.mark.parametrize("event", ["said", "replY", "rate_limit_exceeded", "$pong", ""])
def test_other_events_answer_nothing(event: str) -> None:
    question_id = new_question_id()
    assert id_answered(json.dumps({"event": event, "id": question_id}), {question_id}) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"event": "reply"}', '{"event": "reply", "id": 1}', "\\u0024"])
def test_what_has_no_id_answers_nothing(text: str) -> None:
    assert id_answered(text, {new_question_id()}) is None


def test_a_reply_is_its_data() -> None:
    assert data_of(Message("reply", {"a": 1}, "$1")) == {"a": 1}
    assert data_of(Message("reply")) is None


@pytest.mark.parametrize(
    ("answer", "code", "message", "details"),
    [
        (Message("error", {"code": "NO", "message": "no", "why": 1}), "NO", "no", {"why": 1}),
        (Message("error", {"code": "NO"}), "NO", "", {}),
        (
            Message("error", None),
            "INVALID_ANSWER",
            "the client answered with an error that has no code",
            {"answer": None},
        ),
        (Malformed("INVALID_JSON", "deep"), "INVALID_ANSWER", "the client's answer cannot be read: deep", {}),
    ],
)
def test_an_error_is_raised(answer: Message | Malformed, code: str, message: str, details: dict[str, object]) -> None:
    with pytest.raises(ClientError) as caught:
        data_of(answer)
    assert (caught.value.code, caught.value.message, caught.value.details) == (code, message, details)
