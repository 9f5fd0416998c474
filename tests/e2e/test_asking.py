"""`client.ask`: the server asks, and the client answers."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from tests.support import DEADLINE, Peer, ServerKind, eventually, running, settings
from velocity_ws import Broker, BrokerError, Client, ClientError, ClientGone, ClientTimeout, Message
from velocity_ws.errors import EncodeError, InvalidNameError, WouldDeadlockError
from velocity_ws.sessions.asks import MAX_OPEN

PROMPTNESS = 2.0
"""Seconds that something may take which happens at once."""


async def the_client(broker: Broker) -> Client:
    """The one that is connected."""
    await eventually(broker.get_clients)
    (client,) = broker.get_clients()
    return client


async def answer(peer: Peer, data: Any, event: str = "reply") -> Any:
    """Answer the next question; which it was."""
    question = await peer.receive()
    await peer.send(event, data, id=question["id"])
    return question


def session_of(broker: Broker) -> Any:
    (session,) = broker.node.lifecycle.sessions
    return session


async def test_it_answers_in_a_handler_of_its_own(kind: ServerKind) -> None:
    broker = Broker(settings())
    seen: list[str] = []

    @broker.on_message
    async def message(client: Client, message: Message) -> None:
        seen.append(message.event)

    @broker.on("delete")
    async def delete(client: Client, data: str) -> str:
        sure = await client.ask("confirm", {"what": data})
        return "deleted" if sure else "kept"

    broker.on("later")(lambda: "later")
    async with running(broker, kind) as address, address.connect() as peer:
        for number, (sure, outcome) in enumerate([(True, "deleted"), (None, "kept")]):
            await peer.send("delete", "all", id=number)
            await peer.send("later", id="later")  # waits for the handler, and the answer does not
            question = await answer(peer, sure)
            assert question == {"event": "confirm", "data": {"what": "all"}, "id": question["id"]}
            assert await peer.receive() == {"event": "reply", "id": number, "data": outcome}
            assert (await peer.receive())["id"] == "later"
        assert broker.get_stats().messages_received == 6
        assert session_of(broker).inbox.asks is None
    assert seen == ["delete", "later"] * 2


async def test_it_answers_while_on_connect_runs(kind: ServerKind) -> None:
    broker = Broker(settings())
    told: list[Any] = []

    @broker.on_connect
    async def came(client: Client) -> None:
        told.append(await client.ask("who"))

    async with running(broker, kind) as address, address.connect() as peer:
        await answer(peer, {"name": "ann"})
        await eventually(lambda: told)
    assert told == [{"name": "ann"}]


async def test_its_errors_are_raised(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, address.connect() as peer:
        client = await the_client(broker)

        async def error(data: Any) -> ClientError:
            asking = asyncio.create_task(client.ask("x"))
            await answer(peer, data, "error")
            with pytest.raises(ClientError) as caught:
                await asking
            return caught.value

        said = await error({"code": "BUSY", "message": "not now", "retry": 5, "self": 1})
        assert (said.code, said.message, said.details) == ("BUSY", "not now", {"retry": 5, "self": 1})
        said = await error({"code": "BUSY", "message": [1]})
        assert (said.code, said.message, said.details) == ("BUSY", "", {})
        wrongs: list[Any] = [None, "text", [], {}, {"code": ""}, {"code": 5}, {"message": "no code"}]
        for wrong in wrongs:
            said = await error(wrong)
            assert (said.code, said.details) == ("INVALID_ANSWER", {"answer": wrong})
        asking = asyncio.create_task(client.ask("x"))
        question = await peer.receive()
        await peer.ws.send(json.dumps({"event": "reply", "id": question["id"], "data": 1})[:-2] + '"\\ud83d"}')
        with pytest.raises(ClientError, match="INVALID_ANSWER"):
            await asking
        await peer.send("x")
        assert (await peer.expect("error"))["code"] == "UNKNOWN_EVENT"
    assert broker.get_stats().errors == 0


async def test_an_error_that_a_handler_does_not_catch_is_its_answer(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.on("x")
    async def x(client: Client) -> None:
        await client.ask("y")

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("x", id=1)
        await answer(peer, {"code": "NO", "message": "no"}, "error")
        assert await peer.receive() == {"event": "error", "id": 1, "data": {"code": "NO", "message": "no"}}
    assert broker.get_stats().errors == 0


async def test_one_that_does_not_answer_is_waited_for_so_long(kind: ServerKind) -> None:
    broker = Broker(settings())
    replies: list[Any] = []

    @broker.on("reply")
    async def reply(data: str) -> None:
        replies.append(data)

    async with running(broker, kind) as address, address.connect() as peer:
        client = await the_client(broker)
        long = asyncio.create_task(client.ask("long", timeout=DEADLINE * 10))
        with pytest.raises(ClientTimeout) as caught:
            await client.ask("short", timeout=0.05)
        assert "did not answer 'short' within 0.05 s" in str(caught.value)
        assert (caught.value.client_id, caught.value.seconds, caught.value.event) == (client.id, 0.05, "short")
        questions = {question["event"]: question["id"] for question in [await peer.receive(), await peer.receive()]}
        assert not long.done()
        await peer.send("reply", "too late", id=questions["short"])
        await peer.send("reply", "in time", id=questions["long"])
        assert await long == "in time"
        await peer.send("reply", "twice", id=questions["long"])
        for forged in (1, "1", "", "$", questions["long"] + "0", None):
            await peer.send("reply", "forged", id=forged)
        await eventually(lambda: len(replies) == 8)
        assert replies == ["too late", "twice", *["forged"] * 6]
        for timeout in (0, -1, float("nan")):
            with pytest.raises(ValueError, match="more than 0"):
                await client.ask("x", timeout=timeout)
        endless = asyncio.create_task(client.ask("x", timeout=float("inf")))
        while (question := await peer.receive())["event"] != "x":
            pass
        await peer.send("reply", 1, id=question["id"])
        assert await endless == 1


async def test_what_answers_nothing_passes_limits_as_anything(kind: ServerKind) -> None:
    broker = Broker(settings(rate_limit=1, rate_burst=2), clock=lambda: 1000.0)
    async with running(broker, kind) as address, address.connect() as peer:
        client = await the_client(broker)
        asking = [asyncio.create_task(client.ask("x", number)) for number in range(5)]
        questions = [await peer.receive() for _ in asking]
        for number in range(2):
            await peer.send("reply", number, id="of nothing")
            assert (await peer.expect("error"))["code"] == "UNKNOWN_EVENT"
        await peer.send("reply", 0, id="of nothing")
        await peer.expect("rate_limit_exceeded")
        for number, question in enumerate(questions):  # these do not
            await peer.send("reply", number, id=question["id"])
        assert await asyncio.gather(*asking) == list(range(5))
        await peer.send("reply", 0, id=questions[0]["id"])
        await peer.expect("rate_limit_exceeded")
    assert broker.get_stats().rate_limited == 2


async def test_any_spelling_of_an_answer_is_one(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, address.connect() as peer:
        client = await the_client(broker)
        for form in (
            ' {{"id": "{id}", "data": 1, "event": "reply", "more": [{{"id": 2}}]}} ',
            '{{"event": "x", "data": 2, "event": "\\u0072eply", "data": 1, "id": "{id}"}}',
            '{{"event": "reply", "data": 1, "id": "{escaped}"}}',
        ):
            asking = asyncio.create_task(client.ask("x"))
            question_id = (await peer.receive())["id"]
            escaped = "".join(f"\\u{ord(letter):04x}" for letter in question_id)
            await peer.ws.send(form.format(id=question_id, escaped=escaped))
            assert await asking == 1
        asking = asyncio.create_task(client.ask("x"))
        question_id = (await peer.receive())["id"]
        for no_answer in (
            json.dumps({"event": "said", "id": question_id}),
            json.dumps({"event": "reply", "data": {"id": question_id}}),
            json.dumps({"event": "reply", "id": [question_id]}),
            json.dumps({"event": "reply", "id": question_id + "0"})[:-1],
        ):
            await peer.ws.send(no_answer)
            await peer.expect("error")
            assert not asking.done()
        await peer.send("reply", 2, id=question_id)
        assert await asking == 2


# --- the end


@pytest.mark.parametrize("way", ["closes", "vanishes", "is closed", "broker stops"])
async def test_one_that_goes_away_is_not_waited_for(kind: ServerKind, way: str) -> None:
    broker = Broker(settings(drain_timeout=2))
    async with running(broker, kind) as address, address.connect() as peer:
        client = await the_client(broker)
        asking = [asyncio.create_task(client.ask("x", timeout=DEADLINE * 10)) for _ in range(10)]
        for _ in asking:
            await peer.receive()
        if way == "closes":
            await peer.ws.close()
        elif way == "vanishes":
            peer.ws.transport.abort()
        elif way == "is closed":
            await client.disconnect()
        else:
            stopping = asyncio.create_task(broker.stop())
        async with asyncio.timeout(PROMPTNESS):
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ClientGone] * 10
        before = broker.get_stats().dropped
        with pytest.raises(ClientGone):
            await client.ask("x")
        assert broker.get_stats().dropped == before + 1
        if way == "broker stops":
            await stopping


async def test_a_handler_may_still_ask_while_its_client_is_closed_after_it(kind: ServerKind) -> None:
    broker = Broker(settings(drain_timeout=DEADLINE))
    go = asyncio.Event()

    @broker.on("x")
    async def x(client: Client) -> Any:
        await go.wait()
        return await client.ask("sure?")

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("x", id=1)
        await eventually(lambda: broker.get_stats().messages_received == 1)
        stopping = asyncio.create_task(broker.stop())
        await eventually(lambda: not broker.is_running)
        go.set()
        await answer(peer, "yes")
        assert await peer.receive() == {"event": "reply", "id": 1, "data": "yes"}
        await stopping


async def test_a_cancelled_question_is_open_no_more(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, address.connect() as peer:
        client = await the_client(broker)
        asking = asyncio.create_task(client.ask("x"))
        question = await peer.receive()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert session_of(broker).inbox.asks is None
        await peer.send("reply", 1, id=question["id"])
        assert (await peer.expect("error"))["code"] == "UNKNOWN_EVENT"


# --- many, and large


async def test_a_hundred_tasks_get_their_own_answers(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address, address.connect() as peer, address.connect() as other:
        await eventually(lambda: len(broker.get_clients()) == 2)
        clients = broker.get_clients()
        asking = [asyncio.create_task(client.ask("double", n)) for n in range(100) for client in clients]

        async def answers(peer: Peer) -> None:
            questions = [await peer.receive() for _ in range(100)]
            assert len({question["id"] for question in questions}) == 100
            for question in reversed(questions):
                await peer.send("reply", 2 * question["data"], id=question["id"])

        await asyncio.gather(answers(peer), answers(other))
        assert await asyncio.gather(*asking) == [2 * n for n in range(100) for _ in clients]
        assert all(session.inbox.asks is None for session in broker.node.lifecycle.sessions)


async def test_only_so_many_are_open(kind: ServerKind) -> None:
    broker = Broker(settings(rate_limit=0))
    async with running(broker, kind) as address, address.connect() as peer:
        client = await the_client(broker)
        asking = [asyncio.create_task(client.ask("x")) for _ in range(MAX_OPEN)]
        question = await peer.receive()
        with pytest.raises(BrokerError, match="await the answers"):
            await client.ask("x")
        await peer.send("reply", 1, id=question["id"])
        await asking[0]
        asking.append(asyncio.create_task(client.ask("x")))
        for _ in range(MAX_OPEN):
            await answer(peer, 2)
        assert await asyncio.gather(*asking[1:]) == [2] * MAX_OPEN


async def test_the_longest_answer(kind: ServerKind) -> None:
    broker = Broker(settings())
    limit = broker.settings.max_message_size
    async with running(broker, kind) as address, address.connect(compression=None) as peer:
        client = await the_client(broker)
        for _ in range(3):
            asking = asyncio.create_task(client.ask("much"))
            question = await peer.receive()
            empty = json.dumps({"event": "reply", "data": "", "id": question["id"]})
            await peer.send("reply", "x" * (limit - len(empty)), id=question["id"])
            assert len(await asking) == limit - len(empty)
        asking = asyncio.create_task(client.ask("too much"))
        question = await peer.receive()
        await peer.send("reply", "x" * limit, id=question["id"])
        with pytest.raises(ClientGone):
            await asking
        assert (await peer.closed())[0] == 1009


async def test_an_answer_is_read_behind_what_waits_for_its_handler(kind: ServerKind) -> None:
    broker = Broker(settings(read_buffer_size=1000, rate_limit=0))
    handled: list[int] = []

    @broker.on("upload")
    async def upload(client: Client, data: str) -> None:
        handled.append(len(data))
        if len(handled) == 1:
            assert await client.ask("overwrite?", timeout=DEADLINE) == "yes"

    async with running(broker, kind) as address, address.connect(compression=None) as peer:
        await peer.send("upload", "x")
        question = await peer.receive()
        await peer.send("upload", "y" * 400_000)  # of which much less may wait for another handler
        await peer.send("reply", "yes", id=question["id"])
        await eventually(lambda: len(handled) == 2)
        assert not session_of(broker).inbox.is_full
    assert broker.get_stats().errors == 0


async def test_a_client_that_reads_too_slowly_is_not_asked(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=100_000, slow_client="drop"))
    async with running(broker, kind) as address, address.connect(compression=None, max_queue=1) as peer:
        client = await the_client(broker)
        while await client.send("much", "x" * 90_000):
            await asyncio.sleep(0)
        with pytest.raises(ClientTimeout):
            await client.ask("x", "y" * 90_000, timeout=DEADLINE * 10)
        assert session_of(broker).inbox.asks is None
        peer.ws.transport.abort()


# --- from elsewhere


async def test_it_may_be_asked_from_a_thread_and_from_another_loop(kind: ServerKind) -> None:
    broker = Broker(settings())
    outcomes: list[Any] = []

    @broker.on("plain")
    def plain(client: Client) -> Any:
        return client.sync.ask("x", 1)

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("plain", id=1)
        await answer(peer, "from a thread")
        assert (await peer.receive())["data"] == "from a thread"
        client = await the_client(broker)

        def elsewhere() -> None:
            outcomes.append(asyncio.run(client.ask("x", 2)))
            try:
                asyncio.run(client.ask("x", 3, timeout=0.01))
            except ClientTimeout as error:
                outcomes.append(error.event)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await answer(peer, "from a loop")
        await eventually(lambda: not thread.is_alive())
        assert outcomes == ["from a loop", "x"]
        with pytest.raises(WouldDeadlockError):
            client.sync.ask("x")
        with pytest.raises(InvalidNameError):
            await client.ask("")
        with pytest.raises(EncodeError):
            await client.ask("x", object())
