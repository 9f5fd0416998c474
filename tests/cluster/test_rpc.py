"""Questions to other nodes: answered, answered in parts, or named as missing."""

from __future__ import annotations

import asyncio

import msgspec

from velocity_ws import VelocityError
from velocity_ws.cluster.envelopes import Answer, Ask, Foreign
from velocity_ws.cluster.rpc import Question, Questions

encode = msgspec.msgpack.encode
ECHO: Question[str, str] = Question("echo", str, str)


def no_answer(where: str, error: Foreign) -> None:
    """Something that is no answer, or no question, came."""


async def test_who_does_not_answer_is_named() -> None:
    questions = Questions(0.05, no_answer)

    async def send(ask: Ask) -> None:
        questions.answered("a", Answer(ask.id, encode("one")))
        questions.answered("stranger", Answer(ask.id, encode("two")))
        questions.answered("c", Answer(ask.id, b"", "no"))
        questions.answered("d", Answer(ask.id, encode(4)))

    replies = await questions.ask(ECHO, "?", ["a", "b", "c", "d"], send)
    assert replies.by_node == {"a": "one"}
    assert replies.missing == {"b", "d"}
    assert replies.errors == {"c": "no"}


async def test_nobody_is_waited_for_who_is_gone() -> None:
    questions = Questions(60, no_answer)

    async def send(ask: Ask) -> None:
        questions.gone("b")
        questions.answered("a", Answer(ask.id, encode("one")))

    async with asyncio.timeout(5):
        replies = await questions.ask(ECHO, "?", ["a", "b"], send)
    assert replies.by_node == {"a": "one"}
    assert replies.missing == {"b"}


async def test_a_long_answer_comes_in_parts() -> None:
    asker, answerer = Questions(5, no_answer), Questions(5, no_answer)
    text = "ä" * 1_000_000
    sizes: list[int] = []

    async def handler(_: str) -> str:
        return text

    async def reply(answer: Answer) -> None:
        sizes.append(len(answer.result))
        asker.answered("a", answer)

    async def send(ask: Ask) -> None:
        answerer.asked(ask, reply)

    answerer.on(ECHO, handler)
    assert (await asker.ask(ECHO, "?", ["a"], send)).by_node == {"a": text}
    assert max(sizes) <= 256 * 1024
    await answerer.close()


async def test_what_is_not_known_or_fails_is_answered() -> None:
    questions = Questions(5, no_answer)
    answers: list[Answer] = []

    async def handler(text: str) -> str:
        if text == "own":
            raise VelocityError("that is told")
        if text == "other":
            raise LookupError("a secret")
        return text

    async def reply(answer: Answer) -> None:
        answers.append(answer)

    questions.on(ECHO, handler)
    for what, args in (("echo", "hi"), ("echo", 5), ("echo", "own"), ("echo", "other"), ("what", "hi")):
        questions.asked(Ask(1, what, msgspec.Raw(encode(args))), reply)
    async with asyncio.timeout(5):
        while len(answers) < 5:
            await asyncio.sleep(0)
    assert not answers[0].error
    assert "that is told" in answers[2].error
    assert all(answer.error and "secret" not in answer.error for answer in answers[1:])
    await questions.close()
