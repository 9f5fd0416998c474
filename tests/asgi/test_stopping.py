"""Stopping: responses that stay open end when the server or the broker stops, or their clients go."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.support import eventually
from velocity_ws.asgi import stopping
from velocity_ws.asgi.stopping import OpenResponse, OpenResponses, is_asked_to_stop


class Asked:
    """What keeps that it was asked to stop, as uvicorn's server does."""

    def __init__(self) -> None:
        self.should_exit = False

    def handle_exit(self, _number: int, _frame: FrameType | None) -> None:
        """Be asked."""
        self.should_exit = True


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def asked(request: pytest.FixtureRequest) -> Iterator[Asked]:
    """What handles one of the signals."""
    server = Asked()
    before = signal.signal(request.param, server.handle_exit)
    yield server
    signal.signal(request.param, before)


async def answering(responses: OpenResponses, opened: asyncio.Queue[OpenResponse]) -> str:
    """A response that stays open until it is ended; why it was."""
    async with responses.opened() as response:
        opened.put_nowait(response)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not response.take_back():
                raise
        return response.why


async def test_responses_end_once_the_server_is_asked_to_stop(asked: Asked) -> None:
    responses = OpenResponses(lambda: True)
    opened: asyncio.Queue[OpenResponse] = asyncio.Queue()
    tasks = [asyncio.create_task(answering(responses, opened)) for _ in range(3)]
    for _ in tasks:
        await opened.get()
    assert len(responses) == 3
    assert not is_asked_to_stop()
    asked.handle_exit(0, None)
    assert is_asked_to_stop()
    async with asyncio.timeout(1):
        assert await asyncio.gather(*tasks) == ["stopping"] * 3
    assert len(responses) == 0


async def test_responses_end_once_the_broker_stops_and_those_that_come_later_do_too() -> None:
    is_running = True
    responses = OpenResponses(lambda: is_running)
    opened: asyncio.Queue[OpenResponse] = asyncio.Queue()
    task = asyncio.create_task(answering(responses, opened))
    await opened.get()
    is_running = False
    async with asyncio.timeout(1):
        assert await task == "stopping"
        assert await answering(responses, opened) == "stopping"


async def test_a_client_that_goes_ends_its_own_response_alone() -> None:
    responses = OpenResponses(lambda: True)
    opened: asyncio.Queue[OpenResponse] = asyncio.Queue()
    tasks = [asyncio.create_task(answering(responses, opened)) for _ in range(2)]
    first, _ = await opened.get(), await opened.get()
    first.end("gone")
    first.end("stopping")  # what came first is the reason
    assert await tasks[0] == "gone"
    assert tasks[0].cancelling() == 0
    assert not tasks[1].done()
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):  # it was not one of ours
        await tasks[1]


async def test_nothing_is_looked_at_while_no_response_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "INTERVAL", 0.001)
    looks = 0

    def is_running() -> bool:
        nonlocal looks
        looks += 1
        return True

    responses = OpenResponses(is_running)
    for _ in range(2):  # the look ends, and begins again
        async with responses.opened():
            before = looks
            await eventually(lambda before=before: looks > before + 2)  # type: ignore[misc]
        await eventually(lambda: all(task.get_name() != "velocity-ws stopping" for task in asyncio.all_tasks()))


def test_a_response_is_answered_in_a_task() -> None:
    opened = OpenResponses(lambda: True).opened()
    entering = opened.__aenter__()
    with pytest.raises(RuntimeError):
        entering.send(None)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, lambda *_: None])
def test_what_handles_signals_otherwise_says_nothing(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert not is_asked_to_stop()
    finally:
        signal.signal(signal.SIGTERM, before)
