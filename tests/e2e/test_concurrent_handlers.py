"""Handlers that the client's next message does not wait for: `concurrent=True`."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

from tests.support import DEADLINE, Peer, ServerKind, eventually, running, settings
from velocity_ws import Broker, Client, ClientError, ClientGone, Message
from velocity_ws.sessions.concurrent import MAX_RUNNING

PROMPTNESS = 2.0
"""Seconds that an answer may take which must not wait for a handler; 3 ms on an idle machine."""
LONG = DEADLINE * 6
"""Seconds of what nobody waits for."""
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


class Chat:
    """An application with a long answer, and a button that stops it."""

    def __init__(self, **values: Any) -> None:
        self.broker = Broker(settings(**values))
        self.running: dict[str, asyncio.Task[Any]] = {}
        self.cancelled: list[str] = []
        self.broker.on("ask", concurrent=True)(self.ask)
        self.broker.on("stop")(self.stop)

    async def ask(self, client: Client, data: Any) -> str:
        task = asyncio.current_task()
        assert task is not None
        self.running[client.id] = task
        try:
            for number in range(1000):
                await client.send("token", number)
                await asyncio.sleep(0.003)
        except asyncio.CancelledError:
            self.cancelled.append(client.id)
            raise
        finally:
            del self.running[client.id]
        return "done"

    async def stop(self, client: Client) -> bool:
        task = self.running.get(client.id)
        return task is not None and task.cancel()


async def answer_to(peer: Peer, request_id: int | str) -> Any:
    """The answer of that id, whatever comes before it."""
    while (message := await peer.receive()).get("id") != request_id:
        pass
    return message


async def test_the_stop_button_of_a_chat(kind: ServerKind) -> None:
    chat = Chat()
    async with running(chat.broker, kind) as address, address.connect() as peer:
        await peer.send("ask", "why?", id="ask")
        for _ in range(3):
            await peer.expect("token")
        began = time.monotonic()
        await peer.send("stop", id="stop")
        assert await answer_to(peer, "stop") == {"event": "reply", "id": "stop", "data": True}
        stopped = await answer_to(peer, "ask")
        assert time.monotonic() - began < PROMPTNESS  # of the 3 s that it takes
        assert stopped["event"] == "error"
        assert stopped["data"]["code"] == "CANCELLED"
        assert (await peer.request("stop"))["data"] is False
    assert len(chat.cancelled) == 1
    assert chat.broker.get_stats().errors == 0


async def test_the_stop_that_comes_right_behind_finds_it_begun(kind: ServerKind) -> None:
    chat = Chat()
    async with running(chat.broker, kind) as address, address.connect() as peer:
        for number in range(20):
            await peer.send("ask", "why?", id=f"ask {number}")
            await peer.send("stop", id=f"stop {number}")
            assert (await answer_to(peer, f"stop {number}"))["data"] is True
            await eventually(lambda number=number: len(chat.cancelled) == number + 1)  # type: ignore[misc]
        assert not chat.running


@pytest.mark.parametrize("way", ["closes", "vanishes"])
async def test_a_client_that_goes_away_cancels_it_at_once(kind: ServerKind, way: str) -> None:
    chat = Chat()
    sleeping: list[str] = []
    gone = asyncio.Event()

    @chat.broker.on("sleep", concurrent=True)
    async def sleep() -> None:
        sleeping.append("began")
        try:
            await asyncio.sleep(LONG)
        finally:
            sleeping.append("ended")

    @chat.broker.on("send and wait", concurrent=True)
    async def send_and_wait(client: Client) -> None:
        sleeping.append("began")
        try:
            while True:
                await client.send("much", "x" * 200_000, wait=True, timeout=LONG)
        finally:
            sleeping.append("ended")

    @chat.broker.on_disconnect
    async def left() -> None:
        gone.set()

    async with (
        running(chat.broker, kind) as address,
        address.connect(compression=None, max_queue=1, close_timeout=0.5) as peer,
    ):
        await peer.send("ask")
        await peer.expect("token")
        await peer.send("sleep")
        await peer.send("send and wait")
        await eventually(lambda: len(sleeping) == 2)
        if way == "closes":
            closing = asyncio.create_task(peer.ws.close())
        else:
            peer.ws.transport.abort()
        async with asyncio.timeout(PROMPTNESS):
            await gone.wait()  # which comes after they have ended
        assert sleeping.count("ended") == 2
        assert len(chat.cancelled) == 1
        if way == "closes":
            await closing
    assert chat.broker.get_stats().errors == 0


async def test_messages_behind_it_are_handled_in_order_and_it_sees_what_hooks_have_set(kind: ServerKind) -> None:
    broker = Broker(settings())
    order: list[Any] = []
    go = asyncio.Event()

    @broker.on_connect
    async def came() -> None:
        variable.set("of the client")

    @broker.on_message
    async def seen(client: Client, message: Message) -> None:
        await asyncio.sleep(0)
        order.append(f"hook {message.data}")

    @broker.on("long", concurrent=True)
    async def long(data: int, message: Message) -> str:
        before = variable.get()
        variable.set(f"of {data}")
        order.append(f"long {data}")
        await go.wait()
        return f"{before}, {variable.get()}, {message.event}"

    @broker.on("short")
    async def short(data: int) -> str:
        order.append(f"short {data}")
        await asyncio.sleep(0)
        return variable.get()

    async with running(broker, kind) as address, address.connect() as peer:
        for number in range(6):
            await peer.send("short" if number % 2 else "long", number, id=number)
        for number in (1, 3, 5):
            assert await peer.receive() == {"event": "reply", "id": number, "data": "of the client"}
        go.set()
        answers = sorted([await peer.receive() for _ in range(3)], key=lambda answer: answer["id"])
        assert [answer["data"] for answer in answers] == [f"of the client, of {number}, long" for number in (0, 2, 4)]
    expected = [[f"hook {number}", f"{'short' if number % 2 else 'long'} {number}"] for number in range(6)]
    assert order == [entry for pair in expected for entry in pair]


async def test_what_it_raises_is_answered_and_reported_as_of_any_handler(kind: ServerKind) -> None:
    broker = Broker(settings())
    reported: list[BaseException] = []
    broker.on_error(lambda client, error: reported.append(error))

    @broker.on("refuses", concurrent=True)
    async def refuses() -> None:
        await asyncio.sleep(0)
        raise ClientError("NO", "not now", hint=1)

    @broker.on("fails", concurrent=True)
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("the password is hunter2")

    @broker.on("fails at once", concurrent=True)
    async def fails_at_once() -> None:
        raise SystemExit

    @broker.on("number", concurrent=True)
    async def number(data: int) -> int:
        return data

    @broker.on("unencodable", concurrent=True)
    def unencodable() -> object:
        return object()

    async with running(broker, kind) as address, address.connect() as peer:
        refused = await peer.request("refuses")
        assert refused["data"] == {"code": "NO", "message": "not now", "hint": 1}
        for event in ("fails", "fails at once", "unencodable"):
            assert (await peer.request(event))["data"]["code"] == "INTERNAL_ERROR"
        assert (await peer.request("number", "x"))["data"]["code"] == "INVALID_DATA"
        assert (await peer.request("number", 1))["data"] == 1
        await peer.send("number", 1)  # nobody asked
        assert (await peer.request("number", 2, id=2))["data"] == 2
    assert [type(error).__name__ for error in reported] == ["ValueError", "SystemExit", "EncodeError"]
    assert broker.get_stats().errors == 3


async def test_a_plain_function_runs_in_a_thread_beside_others(kind: ServerKind) -> None:
    broker = Broker(settings())
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    @broker.on("blocks", concurrent=True)
    def blocks() -> str:
        begun.set()
        release.wait(DEADLINE)
        ended.set()
        return "freed"

    broker.on("quick")(lambda: "quick")
    async with running(broker, kind) as address:
        async with address.connect() as peer:
            await peer.send("blocks", id="blocks")
            assert (await peer.request("quick", id=1))["data"] == "quick"
            release.set()
            assert (await peer.receive())["data"] == "freed"
            for each in (begun, release, ended):
                each.clear()
            await peer.send("blocks")
            assert (await peer.request("quick", id=2))["data"] == "quick"
            await eventually(begun.is_set)
        await eventually(lambda: not broker.node.lifecycle.sessions)  # the thread is not waited for
        assert not ended.is_set()
        release.set()
        await eventually(ended.is_set)


# --- bounds


async def test_the_seventeenth_waits_and_messages_of_other_kinds_do_not(kind: ServerKind) -> None:
    broker = Broker(settings())
    begun: list[int] = []
    go: dict[int, asyncio.Event] = {number: asyncio.Event() for number in range(MAX_RUNNING + 3)}

    @broker.on("long", concurrent=True)
    async def long(data: int) -> int:
        begun.append(data)
        await go[data].wait()
        return data

    broker.on("short")(lambda: "short")
    async with running(broker, kind) as address, address.connect() as peer, address.connect() as other:
        for number in go:
            await peer.send("long", number, id=number)
        assert (await peer.request("short", id="short"))["data"] == "short"
        assert begun == list(range(MAX_RUNNING))
        await other.send("long", 0, id=0)  # each client has its own
        await eventually(lambda: len(begun) == MAX_RUNNING + 1)
        for number in range(3):
            go[number].set()
            assert await peer.receive() == {"event": "reply", "id": number, "data": number}
            await eventually(lambda number=number: begun[-1] == MAX_RUNNING + number)  # type: ignore[misc]
        assert (await other.receive())["id"] == 0
        for each in go.values():
            each.set()
        assert sorted([(await peer.receive())["id"] for _ in range(MAX_RUNNING)]) == list(range(3, MAX_RUNNING + 3))


async def test_many_that_wait_and_end_at_once_take_turns_with_others(kind: ServerKind) -> None:
    broker = Broker(settings(rate_limit=0))
    go = asyncio.Event()
    handled: list[int] = []

    @broker.on("long", concurrent=True)
    async def long() -> None:
        await go.wait()

    @broker.on("quick", concurrent=True)
    async def quick(data: int) -> None:
        handled.append(data)

    async with running(broker, kind) as address, address.connect() as peer:
        for _ in range(MAX_RUNNING):
            await peer.send("long")
        for number in range(1000):
            await peer.send("quick", number)
        await peer.send("quick", 1000, id="last")
        await eventually(lambda: broker.get_stats().messages_received == MAX_RUNNING + 1001)
        assert handled == []
        go.set()
        assert (await peer.receive())["id"] == "last"
    assert handled == list(range(1001))


async def test_one_that_begins_as_the_last_of_others_end_is_cancelled_with_its_client() -> None:
    broker = Broker(settings())
    go = asyncio.Event()
    began, cancelled = asyncio.Event(), asyncio.Event()

    @broker.on("long", concurrent=True)
    async def long() -> None:
        await go.wait()

    @broker.on("quick", concurrent=True)
    async def quick(data: str | None) -> None:
        if data is not None:  # it arrives in the turn in which all others end
            (session,) = broker.node.lifecycle.sessions
            asyncio.get_running_loop().call_soon(session.inbox.feed, data)

    @broker.on("last", concurrent=True)
    async def last() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with running(broker, "ours") as address:
        async with address.connect() as peer:
            for _ in range(MAX_RUNNING):
                await peer.send("long")
            await peer.send("quick", '{"event":"last"}')
            await peer.send("quick")
            await eventually(lambda: broker.get_stats().messages_received == MAX_RUNNING + 2)
            go.set()
            async with asyncio.timeout(DEADLINE):
                await began.wait()
        async with asyncio.timeout(DEADLINE):
            await cancelled.wait()


async def test_those_that_wait_are_bounded_by_the_read_buffer(kind: ServerKind) -> None:
    broker = Broker(settings(read_buffer_size=100_000, rate_limit=0))
    go = asyncio.Event()
    handled: list[int] = []

    @broker.on("long", concurrent=True)
    async def long(data: str) -> None:
        await go.wait()
        handled.append(len(data))

    async def flood(peer: Peer) -> None:
        for _ in range(1500):
            await peer.send("long", "y" * 10_000)

    async with running(broker, kind) as address, address.connect(compression=None) as peer:
        sending = asyncio.create_task(flood(peer))
        await eventually(lambda: any(session.inbox.is_full for session in broker.node.lifecycle.sessions))
        before = broker.get_stats().bytes_received
        assert before < MAX_RUNNING * 10_100 + 100_000 + 20 * 10_100  # what runs, what waits, what the server had read
        assert not sending.done()
        go.set()
        await sending
        await eventually(lambda: len(handled) == 1500)


# --- the end


@pytest.mark.parametrize("by", ["client", "server"])
async def test_what_swallows_its_cancellation_is_left_behind(
    kind: ServerKind, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.2)
    monkeypatch.setattr("velocity_ws.sessions.ending.CANCEL_GRACE", 0.1)
    broker = Broker(settings())
    release = asyncio.Event()
    cancellations: list[int] = []
    gone: list[Client] = []

    @broker.on("stubborn", concurrent=True)
    async def stubborn(data: int) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                cancellations.append(data)

    @broker.on_disconnect
    async def left(client: Client) -> None:
        gone.append(client)

    async with running(broker, kind) as address:
        async with address.connect() as peer:
            for number in range(3):
                await peer.send("stubborn", number, id=number)
            await eventually(lambda: broker.get_stats().messages_received == 3)
            if by == "client":
                await peer.ws.close()
            else:
                await broker.get_clients()[0].disconnect(4000, "enough")
                assert await peer.closed() == (4000, "enough")
        await eventually(lambda: gone)
        assert sorted(cancellations) == [0, 0, 1, 1, 2, 2]  # at once, and when its time was over
        assert len(broker.node.lifecycle.stragglers) == 3
        release.set()
        await eventually(lambda: not broker.node.lifecycle.stragglers)


async def test_what_cleans_up_is_waited_for(kind: ServerKind) -> None:
    broker = Broker(settings())
    order: list[str] = []
    begun = asyncio.Event()

    @broker.on("long", concurrent=True)
    async def long(client: Client) -> None:
        begun.set()
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(0.05)
            order.append("cleaned up")

    @broker.on_disconnect
    async def left() -> None:
        order.append("left")

    async with running(broker, kind) as address:
        async with address.connect() as peer:
            await peer.send("long")
            await begun.wait()
        await eventually(lambda: len(order) == 2)
    assert order == ["cleaned up", "left"]


async def test_one_that_disconnects_its_client_goes_on_until_the_client_has_gone(kind: ServerKind) -> None:
    broker = Broker(settings())
    seen: list[str] = []

    @broker.on("bye", concurrent=True)
    async def bye(client: Client) -> None:
        await client.disconnect(4000, "bye")
        seen.append(f"{client.is_connected} {await client.send('too late')}")
        try:
            await client.send("too late", wait=True)
        except ClientGone:
            seen.append("gone")
        try:
            await asyncio.sleep(LONG)
        finally:
            seen.append("cancelled")

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("bye", id=1)
        assert await peer.closed() == (4000, "bye")
        await eventually(lambda: len(seen) == 3)
    assert seen == ["False False", "gone", "cancelled"]
    assert broker.get_stats().errors == 0


async def test_stopping_lets_them_finish_in_time(kind: ServerKind) -> None:
    broker = Broker(settings(drain_timeout=DEADLINE))
    go = asyncio.Event()
    begun: list[int] = []

    @broker.on("long", concurrent=True)
    async def long(data: int) -> int:
        begun.append(data)
        await go.wait()
        return data

    async with running(broker, kind) as address, address.connect() as peer:
        for number in range(MAX_RUNNING + 4):
            await peer.send("long", number, id=number)
        await eventually(lambda: broker.get_stats().messages_received == MAX_RUNNING + 4)
        stopping = asyncio.create_task(broker.stop())
        await eventually(lambda: not broker.is_running)
        go.set()
        answers = [(await peer.receive())["id"] for _ in range(MAX_RUNNING + 4)]
        assert sorted(answers) == list(range(MAX_RUNNING + 4))  # those that waited too
        assert (await peer.closed())[0] == 1001
        await stopping


async def test_stopping_cancels_what_takes_too_long(kind: ServerKind) -> None:
    broker = Broker(settings(drain_timeout=1))
    begun: list[int] = []
    cancelled: list[int] = []

    @broker.on("long", concurrent=True)
    async def long(data: int) -> None:
        begun.append(data)
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            cancelled.append(data)
            raise

    async with running(broker, kind) as address, address.connect() as peer:
        for number in range(MAX_RUNNING + 4):
            await peer.send("long", number, id=number)
        await eventually(lambda: len(begun) == MAX_RUNNING)
        async with asyncio.timeout(DEADLINE):
            await broker.stop()
        assert (await peer.closed())[0] == 1001
    assert sorted(cancelled) == begun == list(range(MAX_RUNNING))


async def test_one_may_stop_the_broker(kind: ServerKind) -> None:
    broker = Broker(settings())
    stopped = asyncio.Event()

    @broker.on("stop", concurrent=True)
    async def stop() -> None:
        await broker.stop()
        stopped.set()

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("stop")
        async with asyncio.timeout(DEADLINE):
            await stopped.wait()
        assert (await peer.closed())[0] == 1001


async def test_what_waits_behind_a_handler_when_its_client_goes_is_not_begun(kind: ServerKind) -> None:
    broker = Broker(settings())
    go = asyncio.Event()
    order: list[str] = []

    @broker.on("short")
    async def short() -> None:
        await go.wait()
        order.append("short")

    @broker.on("long", concurrent=True)
    async def long() -> None:
        order.append("long")

    async with running(broker, kind) as address:
        async with address.connect() as peer:
            await peer.send("short")
            await peer.send("long")
            await peer.send("short")
            await eventually(lambda: broker.get_stats().messages_received == 3)
        await eventually(lambda: not broker.get_clients())
        go.set()
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert order == ["short", "short"]


async def test_a_handler_of_a_room_that_waits_is_not_called_once_its_client_has_left(kind: ServerKind) -> None:
    broker = Broker(settings())
    go = asyncio.Event()
    begun: list[int] = []
    rooms = broker.rooms("chat:{name}")

    @rooms.on("long", concurrent=True)
    async def long(data: int, name: str) -> str:
        begun.append(data)
        await go.wait()
        return name

    @broker.on("leave it")
    async def leave_it(client: Client) -> None:
        await broker.leave_room(client.id, "chat:a")

    @broker.on_connect
    async def came(client: Client) -> None:
        await broker.join_room(client.id, "chat:a")

    async with running(broker, kind) as address, address.connect() as peer:
        for number in range(MAX_RUNNING + 2):
            await peer.send("long", number, id=number, room="chat:a")
        assert (await peer.request("leave it", id="left"))["event"] == "reply"
        go.set()
        answers = {answer["id"]: answer for answer in [await peer.receive() for _ in range(MAX_RUNNING + 2)]}
        assert all(answers[number]["data"] == "a" for number in range(MAX_RUNNING))
        for number in (MAX_RUNNING, MAX_RUNNING + 1):
            assert answers[number]["data"]["code"] == "FORBIDDEN"
    assert begun == list(range(MAX_RUNNING))
