"""Stopping: responses that stay open end when the server or the broker stops, or their clients go."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.support import DEADLINE, eventually
from velocity_ws.asgi import stopping
from velocity_ws.asgi.stopping import OpenResponse, OpenResponses, is_asked_to_stop

LONG = 600.0


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


async def says_nothing() -> dict[str, str]:
    """A client that stays and says nothing."""
    return await asyncio.Future()


async def answering(responses: OpenResponses, opened: asyncio.Queue[OpenResponse]) -> str:
    """A response that stays open until it is ended; why it was."""
    response = responses.open(says_nothing, LONG)
    try:
        opened.put_nowait(response)
        assert await response.wait(), "its client is there"
        return response.why
    finally:
        responses.close(response)


async def test_responses_end_once_the_server_is_asked_to_stop(asked: Asked) -> None:
    responses = OpenResponses(lambda: True, 1.0)
    opened: asyncio.Queue[OpenResponse] = asyncio.Queue()
    tasks = [asyncio.create_task(answering(responses, opened)) for _ in range(3)]
    for _ in tasks:
        await opened.get()
    assert len(responses) == 3
    assert not is_asked_to_stop()
    asked.handle_exit(0, None)
    assert is_asked_to_stop()
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(*tasks) == ["stopping"] * 3
    assert len(responses) == 0


async def test_responses_end_once_the_broker_stops_and_those_that_come_later_do_too() -> None:
    is_running = True
    responses = OpenResponses(lambda: is_running, 1.0)
    opened: asyncio.Queue[OpenResponse] = asyncio.Queue()
    task = asyncio.create_task(answering(responses, opened))
    await opened.get()
    is_running = False
    async with asyncio.timeout(DEADLINE):
        assert await task == "stopping"
        assert await answering(responses, opened) == "stopping"


async def test_one_that_is_over_ends_alone() -> None:
    responses = OpenResponses(lambda: True, 1.0)
    opened: asyncio.Queue[OpenResponse] = asyncio.Queue()
    tasks = [asyncio.create_task(answering(responses, opened)) for _ in range(2)]
    first, _ = await opened.get(), await opened.get()
    first.end("over")
    first.end("stopping")  # what came first is the reason
    assert await tasks[0] == "over"
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

    responses = OpenResponses(is_running, 1.0)
    for _ in range(2):  # the look ends, and begins again
        response = responses.open(says_nothing, LONG)
        before = looks
        await eventually(lambda before=before: looks > before + 2)  # type: ignore[misc]
        responses.close(response)
        await eventually(lambda: all(task.get_name() != "velocity-ws stopping" for task in asyncio.all_tasks()))


def test_a_response_is_answered_in_a_task() -> None:
    with pytest.raises(RuntimeError):
        OpenResponses(lambda: True, 1.0).open(says_nothing, LONG)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, lambda *_: None])
def test_what_handles_signals_otherwise_says_nothing(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert not is_asked_to_stop()
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_client_that_goes_and_one_whose_time_is_over() -> None:
    responses = OpenResponses(lambda: True, 1.0)
    is_gone: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def goes() -> dict[str, str]:
        return await is_gone

    async def waits() -> bool:
        response = responses.open(goes, LONG)
        try:
            return await response.wait()
        finally:
            responses.close(response)

    async def ends() -> tuple[bool, str]:
        response = responses.open(says_nothing, 0.01)
        try:
            return await response.wait(), response.why
        finally:
            responses.close(response)

    waiting = asyncio.create_task(waits())
    async with asyncio.timeout(5):
        assert await ends() == (True, "over")
        assert not waiting.done()
        is_gone.set_result({"type": "http.disconnect"})
        assert not await waiting
    assert len(responses) == 0


# --- peers that do not read


class Deaf:
    """A peer that does not read, as what uvicorn has of it.

    Attributes:
        transport: itself.
        is_cut: set once its connection was.
    """

    def __init__(self) -> None:
        self.transport = self
        self.is_cut = asyncio.Event()

    def abort(self) -> None:
        """Cut the connection."""
        self.is_cut.set()

    async def receive(self) -> dict[str, str]:
        """What it says: nothing."""
        return await asyncio.Future()

    async def send(self) -> None:
        """Wait until it reads, which it does not, or is cut."""
        await self.is_cut.wait()


async def test_a_peer_that_does_not_read_the_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", 0.01)
    responses, deaf = OpenResponses(lambda: True, 1.0), Deaf()
    response = responses.open(deaf.receive, LONG)
    async with asyncio.timeout(5):
        await response.finish(deaf.send())
    assert deaf.is_cut.is_set()
    responses.close(response)


async def test_one_whose_connection_cannot_be_cut_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", 0.01)
    responses, deaf = OpenResponses(lambda: True, 1.0), Deaf()
    response = responses.open(says_nothing, LONG)
    async with asyncio.timeout(5):
        await response.finish(deaf.send())
    assert not deaf.is_cut.is_set()
    responses.close(response)


async def test_one_that_reads_the_end_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", 0.3)  # in which the first has to be closed
    responses, reads, deaf = OpenResponses(lambda: True, 1.0), Deaf(), Deaf()
    one, other = responses.open(reads.receive, 0.01), responses.open(deaf.receive, 0.02)
    async with asyncio.timeout(5):
        assert await one.wait()
        await one.finish(asyncio.sleep(0))
        responses.close(one)
        await deaf.send()  # in which its time is over, and then its patience
    assert not reads.is_cut.is_set()
    assert other.why == "over"
    responses.close(other)
