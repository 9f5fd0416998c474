"""The parts of a cluster that are pure, or nearly: envelopes, numbers, leases, questions, the queue to the engine."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws import BackplaneUnavailable, VelocityError
from velocity_ws.cluster.envelopes import (
    Answer,
    Ask,
    Beat,
    Foreign,
    Post,
    _origins,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
)
from velocity_ws.cluster.peers import Peers
from velocity_ws.cluster.publisher import Publisher
from velocity_ws.cluster.routing import Arrivals
from velocity_ws.cluster.rpc import Question, Questions
from velocity_ws.cluster.sequences import Heard, Sent
from velocity_ws.messages.ids import new_node_id, node_of

NODE = "elevenchars"


class TestEnvelopes:
    @given(
        st.sampled_from(["all", "rooms", "users", "clients"]),
        st.lists(st.text(max_size=20), min_size=1).map(tuple),
        st.binary(),
        st.integers(1, 2**48),
        st.data(),
    )
    def test_what_is_encoded_is_decoded(
        self, kind: Any, names: tuple[str, ...], payload: bytes, number: int, data: st.DataObject
    ) -> None:
        names = names[:1] if kind in ("rooms", "users") else names
        names = tuple([f"{NODE}.{number}" for number in range(len(names))]) if kind == "clients" else names
        post = Post(kind, names, data.draw(st.integers(0, 2**40)), (f"{NODE}.b",), False, payload)
        raw = encode_header(NODE, number) + encode_body(post)
        assert decode_header(raw) == (NODE, number)
        assert decode_body(raw) == post

    @given(st.binary(max_size=200))
    def test_any_bytes_are_one_or_foreign(self, data: bytes) -> None:
        for raw in (data, encode_header(NODE, 1) + data):
            with contextlib.suppress(Foreign):  # and nothing else
                decode_header(raw)
                decode_body(raw)

    @pytest.mark.parametrize(
        ("shape", "why"),
        [
            (["post", "rooms", ["x" * 257], 0, [], True, b"{}"], "length <= 256"),
            (["post", "rooms", [], 0, [], True, b"{}"], "another number"),
            (["post", "users", ["a", "b"], 0, [], True, b"{}"], "another number"),
            (["post", "rooms", ["x"], -1, [], True, b"{}"], ">= 0"),
            (["post", "rooms", ["x"], 2**60, [], True, b"{}"], "<= "),
            (["post", "rooms", [b"x"], 0, [], True, b"{}"], "Expected `str`"),
            (["post", "rooms", ["x"], 0, ["x" * 257], True, b"{}"], "length <= 256"),
            (["post", "clients", ["x"], 0, [], True, b"{}"], "names what is none"),
            (["post", "all", [], 0, [], True, b"\xff"], "invalid start byte"),
            (["post", "somebody", [], 0, [], True, b""], "Invalid enum"),
            (["beat", "alive", 0.0], "gone at once"),
            (["beat", "alive", -1.0], ">= 0"),
            (["beat", "alive", float("nan")], ">= 0"),
            (["beat", "alive", float("inf")], "<= "),
            (["beat", "welcome", 1.0, ["a b c d e f"]], "regex"),
            (["beat", "welcome", 1.0, [NODE] * 10_001], "length <= 10000"),
            (["beat", "hello", 1.0, [], "yes"], "Expected `bool`"),
            (["ask", -1, "count", "x"], ">= 0"),
            (["ask", 1, "x" * 65, "x"], "length <= 64"),
            (["answer", 1, "text"], "bytes"),
            (["answer", 1, b"", "", -1], ">= 0"),
            (["note", "x" * 65, None], "length <= 64"),
            (["probe", 1.5], "Expected `int`"),
            (["new"], "Invalid value"),
        ],
    )
    def test_what_is_out_of_its_bounds_is_foreign(self, shape: list[Any], why: str) -> None:
        with pytest.raises(Foreign, match=re.escape(why)):
            decode_body(encode_header(NODE, 1) + msgspec.msgpack.encode(shape))

    @pytest.mark.parametrize("origin", ["a b c d e f", "a.b.c.d.e.f", "a>*\r\nSUB  ", "\0" * 11, "elevenchar\n"])
    def test_a_sender_has_a_name_that_can_be_part_of_a_topic(self, origin: str) -> None:
        with pytest.raises(Foreign, match="no name"):
            decode_header(encode_header(origin, 1) + b"\xc0")

    def test_what_is_remembered_of_senders_is_bounded(self) -> None:
        for number in range(3000):
            origin = f"{number:011}"
            for _ in range(2):
                assert decode_header(encode_header(origin, 1) + b"\xc0").origin == origin
        assert len(_origins) <= 1000

    @pytest.mark.parametrize("number", [0, 2**48 + 1, 2**64 - 1])
    def test_a_number_is_one_that_a_sender_comes_to(self, number: int) -> None:
        with pytest.raises(Foreign, match="number"):
            decode_header(encode_header(NODE, number) + b"\xc0")

    def test_a_later_version_may_add_to_the_end_of_a_shape(self) -> None:
        raw = msgspec.msgpack.encode(["beat", "alive", 10.0, [], True, "new", {"more": 1}])
        assert decode_body(encode_header(NODE, 1) + raw) == Beat("alive", 10.0)

    def test_a_client_id_tells_its_node(self) -> None:
        node_id = new_node_id()
        assert node_of(f"{node_id}.token") == node_id
        others = ("a b c d e f.x", "a 0\r\n\r\nSUB .x", f"{node_id}.x y", f"{node_id}.x.y", f"{node_id}.x\n")
        for other in ("", "token", ".", f"{node_id}.", ".token", f"{node_id[1:]}.token", *others):
            assert node_of(other) is None


class TestNumbers:
    @given(st.lists(st.booleans(), max_size=50), st.lists(st.booleans(), max_size=20))
    def test_every_loss_between_two_that_arrive_shows(self, arrives: list[bool], after: list[bool]) -> None:
        sent, heard = Sent(), Heard()
        missed = lost = 0
        is_known = False
        for comes in arrives:
            number = sent.next("t")
            if comes:
                missed += heard.note("t", NODE, number)
                lost_here, lost = lost, 0
                if not is_known:  # before the first there is nothing to compare with
                    missed += lost_here
                    is_known = True
                else:
                    assert missed >= lost_here
            else:
                lost += 1
        settled = heard.settle("t", NODE, sent.count("t"))
        if is_known:
            assert settled == lost
            assert missed + lost == arrives.count(False)
            assert heard.settle("t", NODE, sent.count("t")) == 0
        else:
            assert settled == (None if arrives else 0)
        for _ in after:
            assert heard.note("t", NODE, sent.next("t")) in (0, lost)

    def test_a_sender_that_has_forgotten_shows_no_loss(self) -> None:
        heard = Heard()
        assert [heard.note("t", NODE, number) for number in (5, 6, 1, 2, 4)] == [0, 0, 0, 0, 1]

    def test_what_is_kept_is_bounded(self) -> None:
        heard, sent = Heard(), Sent()
        for number in range(3000):
            heard.note("t", f"script {number}", 1)
        assert heard.note("t", "script 0", 5) == 0  # forgotten
        assert heard.note("t", "script 2999", 3) == 1
        for number in range(99_999):
            sent.next(f"topic {number}")
        sent.next("topic 0")  # is used, and so kept
        for number in range(2):
            sent.next(f"another {number}")
        assert (sent.count("topic 0"), sent.count("topic 1"), sent.count("another 1")) == (2, 0, 1)

    def test_who_is_heard_is_not_forgotten_for_those_who_are_not(self) -> None:
        heard = Heard()
        heard.note("t", NODE, 1)
        for number in range(3000):
            heard.note("t", f"script {number}", 1)
            heard.note("t", NODE, number + 2)
        assert heard.note("t", NODE, 3003) == 1
        assert heard.settle("t", "script 0", 1) is None

    def test_a_sender_that_has_forgotten_cannot_say_what_was_missed(self) -> None:
        heard = Heard()
        heard.note("t", NODE, 5)
        assert heard.settle("t", NODE, 2) is None

    def test_a_topic_that_is_left_is_forgotten(self) -> None:
        heard = Heard()
        heard.note("t", NODE, 1)
        heard.forget("t")
        assert heard.note("t", NODE, 9) == 0


class TestArrivals:
    def test_who_had_it_is_remembered_for_a_while_and_not_more_than_so_many(self) -> None:
        now = [0.0]
        clients = {f"r{number}": [f"{number}.{one}" for one in range(30_000)] for number in range(10)}
        arrivals = Arrivals(lambda address: set(clients[next(iter(address.names))]) - address.excluded, lambda: now[0])

        def arrives(number: int, room: str) -> frozenset[str]:
            return arrivals.address_of(NODE, Post("rooms", (room,), number, (), True, b"{}")).excluded

        assert arrives(1, "r0") == frozenset()
        assert len(arrives(1, "r0")) == 30_000
        assert arrives(0, "r0") == frozenset()  # for one room alone nothing is remembered
        for number in range(2, 10):
            arrives(number, f"r{number}")
        assert sum(len(had) for _, had in arrivals._had.values()) <= 130_000
        assert arrives(1, "r1") == frozenset()
        assert len(arrives(9, "r1")) == 30_000
        now[0] = 6.0
        arrives(11, "r1")
        assert len(arrivals._had) == 1


class TestPeers:
    def test_a_node_lives_as_long_as_it_is_heard(self) -> None:
        now, told = [0.0], []
        peers = Peers(lambda: now[0], lambda node: told.append(f"+{node}"), lambda node: told.append(f"-{node}"))
        peers.heard("a", Beat("hello", 10.0))
        peers.heard("b", Beat("alive", 2.0))
        peers.heard("script", Beat("hello", 10.0, (), False))
        now[0] = 1.9
        peers.expire()
        assert told == ["+a", "+b", "-b"]
        peers.heard("b", Beat("alive", 2.0))
        now[0] = 9.9
        peers.renew()  # this node was deaf
        peers.expire()
        assert peers.ids() == {"a", "b"}
        peers.heard("a", Beat("bye", 0.0))
        peers.heard("a", Beat("bye", 0.0))
        now[0] = 12.0
        peers.expire()
        assert told == ["+a", "+b", "-b", "+b", "-a", "-b"]
        assert len(peers) == 0

    def test_a_node_that_went_without_a_word_may_live_for_a_while(self) -> None:
        now = [0.0]
        peers = Peers(lambda: now[0], lambda _: None, lambda _: None)
        for name in ("held up", "said goodbye", "back again", "late goodbye"):
            peers.heard(name, Beat("alive", 2.0))
        peers.heard("said goodbye", Beat("bye", 0.0))
        now[0] = 2.0
        peers.expire()
        peers.heard("back again", Beat("alive", 1000.0))
        peers.heard("late goodbye", Beat("bye", 0.0))
        assert len(peers) == 1
        found = [name for name in ("held up", "said goodbye", "back again", "late goodbye") if peers.may_live(name)]
        assert found == ["held up", "back again"]
        now[0] = 62.0
        peers.expire()
        assert not peers.may_live("held up")
        for number in range(1500):
            peers.heard(f"node {number}", Beat("alive", 1.0))
        now[0] = 64.0
        peers.expire()
        assert sum(peers.may_live(f"node {number}") for number in range(1500)) == 1000


def no_answer(where: str, error: Foreign) -> None:
    """Something that is no answer, or no question, came."""


ECHO: Question[str, str] = Question("echo", str, str)


class TestQuestions:
    async def test_who_does_not_answer_is_named(self) -> None:
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

    async def test_nobody_is_waited_for_who_is_gone(self) -> None:
        questions = Questions(60, no_answer)

        async def send(ask: Ask) -> None:
            questions.gone("b")
            questions.answered("a", Answer(ask.id, encode("one")))

        async with asyncio.timeout(5):
            replies = await questions.ask(ECHO, "?", ["a", "b"], send)
        assert replies.by_node == {"a": "one"}
        assert replies.missing == {"b"}

    async def test_a_long_answer_comes_in_parts(self) -> None:
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

    async def test_what_is_not_known_or_fails_is_answered(self) -> None:
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


encode = msgspec.msgpack.encode


class Engine:
    """Takes what is published when it is let, or fails."""

    max_payload = 1000

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.taken.extend(messages)

    async def connect(self, receive: Any, lost: Any) -> None:
        raise NotImplementedError

    async def subscribe(self, topics: Collection[str]) -> None:
        raise NotImplementedError

    async def unsubscribe(self, topics: Collection[str]) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError


class TestPublisher:
    async def test_messages_leave_in_order_and_numbered(self) -> None:
        engine = Engine()
        engine.open.set()
        publisher = Publisher(engine, NODE, 5, 10_000)
        publisher.open()
        task = asyncio.create_task(publisher.run())
        entries = [publisher.put(f"t{number % 2}", b"%d" % number) for number in range(10)]
        for entry in entries:
            await publisher.outcome(entry)
        assert [data[-1:] for _, data in engine.taken] == [b"%d" % number for number in range(10)]
        assert [decode_header(data).sequence for topic, data in engine.taken if topic == "t1"] == [1, 2, 3, 4, 5]
        task.cancel()
        await asyncio.wait([task])

    async def test_every_message_has_an_outcome_in_time(self) -> None:
        engine = Engine()
        publisher = Publisher(engine, NODE, 0.1, 200)
        with pytest.raises(BackplaneUnavailable, match="not answered yet"):
            publisher.put("t", b"x")
        publisher.open()
        task, watching = asyncio.create_task(publisher.run()), asyncio.create_task(publisher.watch())
        handed_over = publisher.put("t", b"x")
        await asyncio.sleep(0)
        waits = publisher.put("t", b"x" * 100)
        with pytest.raises(BackplaneUnavailable, match="too slow"):
            publisher.put("t", b"x" * 100)
        publisher.put("t", b"x" * 100, is_vital=True)
        with pytest.raises(BackplaneUnavailable, match="takes 1000"):
            publisher.put("t", b"x" * 1000, is_vital=True)
        outcomes = await asyncio.gather(
            *[publisher.outcome(entry) for entry in (handed_over, waits)], return_exceptions=True
        )
        assert [error.outcome for error in outcomes if isinstance(error, BackplaneUnavailable)] == [
            "unknown",
            "refused",
        ]
        async with asyncio.timeout(5):
            await asyncio.wait([watching])
        with pytest.raises(TimeoutError, match="did not confirm"):
            await watching
        task.cancel()
        await asyncio.wait([task])
        publisher.close("it is gone")
        with pytest.raises(BackplaneUnavailable, match="it is gone"):
            publisher.put("t", b"x")

    async def test_cancelling_the_wait_takes_nothing_back(self) -> None:
        engine = Engine()
        publisher = Publisher(engine, NODE, 5, 1000)
        publisher.open()
        task = asyncio.create_task(publisher.run())
        entry = publisher.put("t", b"x")
        waiting = asyncio.create_task(publisher.outcome(entry))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        engine.open.set()
        await publisher.outcome(entry)
        assert len(engine.taken) == 1
        task.cancel()
        await asyncio.wait([task])
