"""What answers messages to NATS comes whether anybody waits or not, and of what was sent twice the first counts."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.support import DEADLINE
from velocity_ws.history.nats_answers import Answers, Parts, Question

A, B, C = (b"", b"a"), (b"", b"b"), (b"", b"c")


async def test_they_are_there_in_the_order_of_the_messages_once_all_have_come() -> None:
    answers = Answers(2)
    waiting = asyncio.create_task(answers.wait())
    answers.take(1, B)
    await asyncio.sleep(0)
    assert not answers.are_there
    answers.take(0, A)
    async with asyncio.timeout(DEADLINE):
        await waiting
    assert (answers.are_there, answers.parts) == (True, [A, B])


async def test_the_first_answer_to_a_message_that_was_sent_twice_is_taken() -> None:
    answers = Answers(1)
    assert answers.take(0, A)
    assert answers.take(0, C)
    assert answers.parts == [A]


async def test_who_waits_no_more_takes_nothing_back() -> None:
    answers = Answers(1)
    waiting, other = asyncio.create_task(answers.wait()), asyncio.create_task(answers.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    answers.take(0, A)
    async with asyncio.timeout(DEADLINE):
        await other
    assert answers.parts == [A]


async def test_they_are_waited_for_as_long_as_is_said() -> None:
    answers = Answers(1)
    async with asyncio.timeout(DEADLINE):
        await answers.wait(0.01)
    assert not answers.are_there


async def test_where_none_comes_any_more_that_is_an_error() -> None:
    answers = Answers(2)
    waiting = asyncio.create_task(answers.wait())
    answers.take(0, A)
    answers.fail("it is gone")
    async with asyncio.timeout(DEADLINE):
        await waiting
    assert answers.are_there
    with pytest.raises(ConnectionError, match="it is gone"):
        _ = answers.parts


async def test_what_is_all_there_does_not_fail() -> None:
    answers = Answers(1)
    answers.take(0, A)
    answers.fail("it is gone")
    assert answers.parts == [A]
    nothing = Answers(0)
    assert (nothing.are_there, nothing.parts) == (True, [])


async def test_a_question_of_many_parts_is_answered_with_the_last() -> None:
    future: asyncio.Future[Parts] = asyncio.get_running_loop().create_future()
    question, end = Question(future, is_many=True), (b"NATS/1.0 204\r\n\r\n", b"")
    assert [question.take(0, part) for part in (A, B, end)] == [False, False, True]
    assert await future == [A, B, end]
