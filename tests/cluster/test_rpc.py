"""Calls of other nodes: answered, answered in parts, or named as missing; and notifications."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.support import eventually
from velocity_ws import ClientNotFound, VelocityError
from velocity_ws.cluster.envelopes import InvalidEnvelope, Notification, Request, Response
from velocity_ws.cluster.rpc import Procedure, Rpc

encode = msgspec.msgpack.encode
ECHO: Procedure[str, str] = Procedure("echo", str, str)


def refuse(where: str, error: InvalidEnvelope) -> None:
    """Something that is no response, or no request, came."""


async def test_who_does_not_answer_is_named() -> None:
    rpc = Rpc(0.05, refuse)

    async def send(request: Request) -> None:
        rpc.response_received("a", Response(request.id, encode("one")))
        rpc.response_received("stranger", Response(request.id, encode("two")))
        rpc.response_received("c", Response(request.id, b"", "no"))
        rpc.response_received("d", Response(request.id, encode(4)))

    replies = await rpc.call(ECHO, "?", ["a", "b", "c", "d"], send)
    assert replies.by_node == {"a": "one"}
    assert replies.missing == {"b", "d"}
    assert replies.errors == {"c": "no"}


async def test_nobody_is_waited_for_who_is_gone() -> None:
    rpc = Rpc(60, refuse)

    async def send(request: Request) -> None:
        rpc.node_down("b")
        rpc.response_received("a", Response(request.id, encode("one")))

    async with asyncio.timeout(5):
        replies = await rpc.call(ECHO, "?", ["a", "b"], send)
    assert replies.by_node == {"a": "one"}
    assert replies.missing == {"b"}


async def test_a_long_answer_comes_in_parts() -> None:
    caller, called = Rpc(5, refuse), Rpc(5, refuse)
    text = "ä" * 1_000_000
    sizes: list[int] = []

    async def handler(_: str) -> str:
        return text

    async def reply(response: Response) -> None:
        sizes.append(len(response.result))
        caller.response_received("a", response)

    async def send(request: Request) -> None:
        called.request_received(request, reply)

    called.register(ECHO, handler)
    assert (await caller.call(ECHO, "?", ["a"], send)).by_node == {"a": text}
    assert max(sizes) <= 256 * 1024
    await called.stop()


async def test_what_is_not_known_or_fails_is_answered() -> None:
    rpc = Rpc(5, refuse)
    answers: list[Response] = []

    async def handler(text: str) -> str:
        if text == "own":
            raise VelocityError("that is told")
        if text == "other":
            raise LookupError("a secret")
        return text

    async def reply(response: Response) -> None:
        answers.append(response)

    rpc.register(ECHO, handler)
    for what, args in (("echo", "hi"), ("echo", 5), ("echo", "own"), ("echo", "other"), ("what", "hi")):
        rpc.request_received(Request(1, what, msgspec.Raw(encode(args))), reply)
    async with asyncio.timeout(5):
        while len(answers) < 5:
            await asyncio.sleep(0)
    assert not answers[0].error
    assert "that is told" in answers[2].error
    assert all(answer.error and "secret" not in answer.error for answer in answers[1:])
    await rpc.stop()


async def test_no_more_requests_run_at_once_than_so_many() -> None:
    rpc, ran = Rpc(5, refuse), list[str]()

    async def handler(text: str) -> str:
        ran.append(text)
        await asyncio.Event().wait()
        return text

    async def reply(response: Response) -> None:
        raise NotImplementedError

    rpc.register(ECHO, handler)
    for number in range(1500):
        rpc.request_received(Request(number, "echo", msgspec.Raw(encode("x"))), reply)
    await asyncio.sleep(0)
    assert len(ran) == 1000
    await rpc.stop()


async def test_what_is_to_be_done_at_once_is_done_before_anything_else_and_however_much_runs() -> None:
    rpc, answered = Rpc(5, refuse), list[Response]()

    async def never(text: str) -> str:
        await asyncio.Event().wait()
        return text

    async def reply(response: Response) -> None:
        answered.append(response)

    def count(text: str) -> str:
        done.append(text)
        if text == "x":
            raise ClientNotFound(text)
        return text

    done: list[str] = []
    rpc.register(ECHO, never)
    rpc.register_at_once(Procedure("now", str, str), count)
    for number, text in enumerate("ax"):
        rpc.request_received(Request(number, "now", msgspec.Raw(encode(text))), reply)
    rpc.request_received(Request(2, "now", msgspec.Raw(encode(5))), reply)
    assert done == ["a", "x"]
    await eventually(lambda: len(answered) == 3)
    assert [response.result for response in answered] == [encode("a"), b"", b""]
    assert [response.error[:14] for response in answered] == ["", "ClientNotFound", "Expected `str`"]
    for number in range(1500):
        rpc.request_received(Request(number, "echo", msgspec.Raw(encode("x"))), reply)
    rpc.request_received(Request(3, "now", msgspec.Raw(encode("b"))), reply)
    assert done == ["a", "x", "b"]
    await rpc.stop()


async def test_a_notification_is_given_to_the_function_for_its_name() -> None:
    rpc, told = Rpc(5, refuse), list[tuple[str, int]]()
    rpc.on_notification("count", int, lambda origin, count: told.append((origin, count)))
    rpc.notification_received("a", Notification("count", msgspec.Raw(encode(3))))
    rpc.notification_received("a", Notification("unknown", msgspec.Raw(encode(3))))
    with pytest.raises(InvalidEnvelope, match="Expected `int`"):
        rpc.notification_received("a", Notification("count", msgspec.Raw(encode("three"))))
    assert told == [("a", 3)]
