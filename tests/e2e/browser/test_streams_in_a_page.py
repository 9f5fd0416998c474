"""`velocity.js` and streams: what a page reads of them, over cuts, repeats and holes, and what it asks for."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.support import eventually
from tests.support.node import NodePage, node_page
from tests.support.streaming_server import Streaming, streaming

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

BEGIN = """
    globalThis.gate = null;  // or a promise, before which it does not connect
    globalThis.statuses = [];
    globalThis.pieces = [];
    globalThis.ws = connect(async () => (await gate, argument), { baseDelay: 1, maxDelay: 20 });
    ws.on("status", (status) => statuses.push(status));
    ws.on("stream", (piece) => pieces.push(piece));
    // Reads a stream in the background: `parts` as they come, and how that has ended.
    globalThis.read = (stream) => {
        const seen = { parts: [], stream, outcome: null };
        const all = async () => {
            for await (const part of stream) seen.parts.push(part);
            return stream.end;
        };
        outcome(all()).then((found) => (seen.outcome = found.code ?? found.value));
        return seen;
    };
"""
ENDED = "await until(() => seen.outcome); return [seen.parts, seen.outcome]"
ECHO = "await ws.request('echo')"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodePage]:
    async with node_page(tmp_path_factory.mktemp("node")) as page:
        yield page


class Visit:
    """A page of a server of streams."""

    def __init__(self, server: Streaming, node: NodePage) -> None:
        self.server = server
        self.run = node.run

    async def cut(self) -> None:
        """Cut its connection, and keep it from coming back."""
        await self.run(ECHO)  # behind which is nothing that may be on its way
        await self.run("gate = new Promise((resolve) => (globalThis.open = resolve)); statuses.length = 0")
        await self.server.cut()
        await self.run("await until(() => statuses.includes('connecting'))")

    async def back(self) -> None:
        """Let it come back, and wait until it has, and has joined its rooms."""
        await self.run("gate = null; open(); await until(() => ws.status === 'open' && !ws.rooms.some(out)); " + ECHO)

    async def hears(self, event: str, count: int) -> list[Any]:
        """Wait until the server has heard so many of an event; their data."""
        await eventually(lambda: len(self.server.sent(event)) >= count)
        return self.server.sent(event)


@asynccontextmanager
async def visit(node: NodePage) -> AsyncIterator[Visit]:
    async with streaming() as server:
        page = Visit(server, node)
        await page.run(BEGIN + "globalThis.out = (room) => !ws.joined.includes(room)", server.url)
        try:
            yield page
        finally:
            await page.run("ws.close()")
    assert node.errors == []


async def test_a_loop_has_what_comes_until_the_end(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")  # which has not begun
        await page.server.say("a", "one ")
        await page.run("await until(() => seen.parts.length === 1)")
        assert await page.run("const { text, end, room, id } = seen.stream; return [text, end, room, id]") == [
            "one ", None, "tea", "a",
        ]  # fmt: skip
        await page.server.say("a", "two", "done")
        assert await page.run(ENDED) == [["one ", "two"], "done"]
        assert await page.run("return seen.stream.text") == "one two"
        assert page.server.sent("stream_read") == []


@pytest.mark.parametrize("end", ["done", "cancelled", "error", "lost"])
async def test_every_end_ends_a_loop(node: NodePage, end: str) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a', { room: 'tea' }))")
        await page.server.say("a", "text")
        await page.server.say("a", "", end)
        assert await page.run(ENDED) == [["text"], end]
        assert await page.run("globalThis.seen = read(ws.stream('a')); " + ENDED) == [["text"], end]


async def test_items_come_one_by_one(node: NodePage) -> None:
    async with visit(node) as page:
        await page.server.say("a", [1, {"two": 2}])
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a')); globalThis.other = null")
        await page.run("await until(() => seen.parts.length === 2); other = read(ws.stream('a'))")
        await page.server.say("a", [None, 4], "done")
        expected = [1, {"two": 2}, None, 4]
        assert await page.run(ENDED) == [expected, "done"]
        assert await page.run("await until(() => other.outcome); return [other.parts, other.stream.items]") == [
            expected, expected,
        ]  # fmt: skip


async def test_each_loop_has_all_of_it_from_the_beginning(node: NodePage) -> None:
    async with visit(node) as page:
        await page.server.say("a", "so far ")
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "and ")
        await page.server.say("a", "on ")
        script = """
            await until(() => seen.parts.length === 3);
            globalThis.again = read(seen.stream);
            globalThis.slow = ws.stream("a")[Symbol.asyncIterator]();
            return (await slow.next()).value;
        """
        assert await page.run(script) == "so far and on "
        await page.server.say("a", "to ")
        await page.server.say("a", "the end", "done")
        assert await page.run(ENDED) == [["so far ", "and ", "on ", "to ", "the end"], "done"]
        assert await page.run("await until(() => again.outcome); return again.parts.join('')") == (
            "so far and on to the end"
        )
        rest = (
            "return [await slow.next(), await slow.next(), await slow.next()].map(({ value, done }) => value ?? done)"
        )
        assert await page.run(rest) == ["to ", "the end", True]


async def test_a_loop_that_is_left_leaves_nothing_behind(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        await page.server.say("a", "one")
        await page.server.say("a", "two")
        await page.run("await until(() => pieces.length === 2); for await (const part of ws.stream('a')) break")
        await page.server.say("a", "three", "done")
        await page.run(ECHO)
        assert await page.run("globalThis.seen = read(ws.stream('a')); " + ENDED) == [["onetwothree"], "done"]


# --- over cuts


async def test_a_cut_loses_and_repeats_nothing_and_only_the_rest_is_asked_for(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "before 🙂 ")  # 9 characters, 10 units of UTF-16
        await page.server.say("old", "ended", "done")
        await page.cut()
        await page.server.say("a", "meanwhile ")
        await page.back()
        await page.server.say("a", "after", "done")
        assert await page.run(ENDED) == [["before 🙂 ", "meanwhile ", "after"], "done"]
        assert page.server.sent("join") == [{"room": "tea"}, {"room": "tea", "streams": {"a": 9, "old": 5}}]
        assert await page.run("return pieces") == [
            {"id": "a", "from": 0, "text": "before 🙂 "},
            {"id": "old", "from": 0, "text": "ended", "end": "done"},
            {"id": "a", "from": 9, "text": "meanwhile "},
            {"id": "a", "from": 19, "text": "after", "end": "done"},
        ]


async def test_the_end_may_be_all_that_was_missed(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "all")
        await page.cut()
        await page.server.say("a", "", "lost")
        await page.back()
        assert await page.run(ENDED) == [["all"], "lost"]


async def test_in_rooms_of_the_server_it_says_first_what_it_has(node: NodePage) -> None:
    async with visit(node) as page:
        page.server.given = ["tea"]
        await page.server.say("a", "one ")
        await page.run("globalThis.seen = read(ws.stream('a')); " + ECHO)
        assert page.server.sent("resume") == []
        await page.cut()
        await page.server.say("a", "two")
        await page.back()
        await page.server.say("a", "", "done")
        assert await page.run(ENDED) == [["one ", "two"], "done"]
        assert page.server.sent("resume") == [{"rooms": {}, "streams": {"a": 4}}]


async def test_what_comes_again_or_overlaps_is_cut_by_characters(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        for start, text in [(0, "🙂🙃"), (0, "🙂🙃"), (1, "🙃🙂é"), (0, "🙂"), (4, ""), (3, "é!")]:
            await page.server.tell({"id": "a", "from": start, "text": text})
        await page.server.tell({"id": "a", "from": 5, "text": "", "end": "done"})
        for start, text in [(5, ""), (0, "🙂🙃"), (5, "more")]:
            await page.server.tell({"id": "a", "from": start, "text": text, "end": "error"})
        assert await page.run(ENDED) == [["🙂🙃", "🙂é", "!"], "done"]
        assert [piece["from"] for piece in await page.run(f"{ECHO}; return pieces")] == [0, 2, 4, 5]
        assert page.server.sent("stream_read") == []


async def test_items_that_come_again_are_cut_too(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.tell({"id": "a", "from": 0, "items": [1, 2]})
        await page.server.tell({"id": "a", "from": 1, "items": [2, 3], "end": "done"})
        assert await page.run(ENDED) == [[1, 2, 3], "done"]


async def test_a_hole_is_read_from_where_it_begins_and_once(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "🙂one ")
        page.server.deaf = True
        await page.server.say("a", "two ")
        page.server.deaf = False
        await page.server.say("a", "three ")
        await page.server.say("a", "four", "done")
        parts, end = await page.run(ENDED)
        assert ("".join(parts), end) == ("🙂one two three four", "done")
        assert page.server.sent("stream_read") == [{"id": "a", "from": 5}]
        assert next(each for each in page.server.received if each["event"] == "stream_read")["room"] == "tea"


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", "UNAVAILABLE", "RATE_LIMITED"])
async def test_a_hole_that_cannot_be_read_now_is_read_again(node: NodePage, code: str) -> None:
    async with visit(node) as page:
        page.server.failures = {"stream_read": [code, code]}
        page.server.streams = {}
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        page.server.deaf = True
        await page.server.say("a", "one ")
        page.server.deaf = False
        await page.server.say("a", "two", "done")
        parts, end = await page.run(ENDED)
        assert ("".join(parts), end) == ("one two", "done")
        assert page.server.sent("stream_read") == [{"id": "a", "from": 0}] * 3


async def test_cuts_anywhere_leave_the_text_of_the_writer(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        draw = random.Random(11)
        said = ""
        for _ in range(30):
            for _ in range(draw.randrange(5)):
                text = "".join(draw.choice("ab é🙂\u2028\n") for _ in range(draw.randrange(1, 6)))
                said += text
                await page.server.say("a", text)
            page.server.most = draw.randrange(1, 20)
            page.server.deaf = draw.random() < 0.2
            await page.server.cut()
        await page.run("await until(() => ws.joined.length)")
        page.server.deaf = False
        await page.server.say("a", "", "done")
        parts, end = await page.run(ENDED)
        assert ("".join(parts), end) == (said, "done")
        told = await page.run("return pieces")
        assert "".join(piece["text"] for piece in told) == said


# --- streams that do not come by themselves


async def test_an_old_one_is_read_when_its_room_is_joined(node: NodePage) -> None:
    async with visit(node) as page:
        await page.server.say("a", "old text", "done")
        page.server.brings = False
        page.server.most = 3
        page.server.mute = True
        await page.run("globalThis.seen = read(ws.stream('a', { room: 'tea' })); ws.join('tea')")
        await page.hears("join", 1)
        page.server.mute = False
        await page.cut()
        await page.back()
        assert await page.run(ENDED) == [["old", " te", "xt"], "done"]
        assert page.server.sent("stream_read") == [{"id": "a", "from": 0}]
        assert await page.run("globalThis.seen = read(ws.stream('a')); " + ENDED) == [["old text"], "done"]
        assert len(page.server.sent("stream_read")) == 1


async def test_what_a_join_brings_is_not_read_once_more(node: NodePage) -> None:
    async with visit(node) as page:
        await page.server.say("a", "text")
        await page.run("ws.join('tea'); globalThis.seen = read(ws.stream('a', { room: 'tea' }))")
        await page.run("read(ws.stream('b', { room: 'tea' }))")  # which is not there
        assert await page.hears("stream_read", 1) == [{"id": "b", "from": 0}]
        await page.run(ECHO)
        await page.server.say("a", "", "done")
        assert await page.run(ENDED) == [["text"], "done"]
        assert len(page.server.sent("stream_read")) == 1


async def test_without_being_in_its_room_it_is_read_all_the_same(node: NodePage) -> None:
    async with visit(node) as page:
        await page.server.say("a", "text", "done")
        assert await page.run("globalThis.seen = read(ws.stream('a', { room: 'tea' })); " + ENDED) == [["text"], "done"]


@pytest.mark.parametrize("code", ["GONE", "FORBIDDEN", "UNKNOWN_EVENT"])
async def test_what_cannot_be_read_fails_the_loop_and_the_next_one_tries_again(node: NodePage, code: str) -> None:
    async with visit(node) as page:
        page.server.failures = {"stream_read": [code]}
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a', { room: 'tea' }))")
        assert await page.run(ENDED) == [[], code]
        await page.run("globalThis.seen = read(seen.stream)")
        await page.hears("stream_read", 2)
        await page.server.say("a", "there", "done")
        assert await page.run(ENDED) == [["there"], "done"]


async def test_one_that_is_not_there_is_waited_for_in_its_room_and_nowhere_else(node: NodePage) -> None:
    async with visit(node) as page:
        assert await page.run("globalThis.seen = read(ws.stream('a', { room: 'tea' })); " + ENDED) == [[], "NOT_FOUND"]
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a', { room: 'tea' }))")
        await page.hears("stream_read", 2)
        await page.server.say("a", "now", "done")
        assert await page.run(ENDED) == [["now"], "done"]


async def test_one_that_the_server_has_forgotten_meanwhile_is_waited_for_by_nobody(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "half ")
        await page.cut()
        page.server.streams.clear()
        await page.back()
        assert await page.run(ENDED) == [["half "], "NOT_FOUND"]
        assert page.server.sent("stream_read") == [{"id": "a", "from": 5}]


async def test_a_quiet_one_is_asked_for_once_after_a_cut(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run(
            "await ws.join('tea'); globalThis.seen = read(ws.stream('a')); globalThis.other = ws.stream('b')"
        )
        await page.server.say("a", "half ")
        await page.server.say("b", "nobody reads it")
        await page.cut()
        await page.back()
        assert await page.hears("stream_read", 1) == [{"id": "a", "from": 5}]
        await page.run(f"{ECHO}; for (const each of [1, 2]) await seen.stream[Symbol.asyncIterator]().next()")
        await page.server.say("a", "and half", "done")
        assert await page.run(ENDED) == [["half ", "and half"], "done"]
        assert len(page.server.sent("stream_read")) == 1


# --- nobody waits for ever


async def test_who_leaves_the_room_does_not_wait(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("ws.join('tea'); await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "half ")
        await page.run("await until(() => seen.parts.length); await ws.leave('tea')")
        await page.server.say("a", "and ")
        await page.run("await until(() => seen.parts.length === 2); ws.leave('tea')")
        assert await page.run(ENDED) == [["half ", "and "], "ABORTED"]
        assert await page.run("return [seen.stream.error.code, seen.stream.text]") == ["ABORTED", "half and "]
        await page.server.say("a", "the rest", "done")
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        parts, end = await page.run(ENDED)
        assert ("".join(parts), end) == ("half and the rest", "done")


async def test_what_was_sent_before_the_server_heard_of_that_is_not_told(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.left = ws.leave('tea'); globalThis.before = pieces.length")
        await page.server.say("a", "text")
        assert await page.run("await left; await ws.request('echo'); return pieces.length - before") == 0


@pytest.mark.parametrize("reason", ["FORBIDDEN", "BANNED"])
async def test_who_is_put_out_does_not_wait(node: NodePage, reason: str) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "half")
        await page.run("await until(() => seen.parts.length)")
        await page.server.put_out("tea", reason)
        assert await page.run(ENDED) == [["half"], reason]


async def test_who_is_put_out_for_a_failure_goes_on_when_it_is_back(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "half ")
        await page.server.put_out("tea", "INTERNAL_ERROR")
        await page.server.say("a", "and half", "done")
        assert await page.run(ENDED) == [["half ", "and half"], "done"]


async def test_who_is_refused_when_it_comes_back_does_not_wait(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("ws.on('left', () => {}); await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "half")
        page.server.failures = {"join": ["FORBIDDEN"]}
        await page.run("await until(() => seen.parts.length)")
        await page.server.cut()
        assert await page.run(ENDED) == [["half"], "FORBIDDEN"]


async def test_who_closes_does_not_wait_and_may_come_back(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a')); globalThis.changes = []")
        await page.run(
            "const { stream } = seen; stream.onChange(() => changes.push(stream.error?.code ?? stream.text))"
        )
        await page.server.say("a", "half ")
        await page.run("await until(() => seen.parts.length); ws.close()")
        assert await page.run(ENDED) == [["half "], "CLOSED"]
        assert await page.run("globalThis.seen = read(ws.stream('a')); " + ENDED) == [["half "], "CLOSED"]
        assert await page.run("globalThis.seen = read(ws.stream('other')); " + ENDED) == [[], "CLOSED"]
        await page.run("ws.reconnect(); globalThis.seen = read(ws.stream('a')); await until(() => ws.joined.length)")
        await page.server.say("a", "and half", "done")
        assert await page.run(ENDED) == [["half ", "and half"], "done"]
        assert await page.run("return changes") == ["half ", "CLOSED", "half ", "half and half"]


async def test_a_close_of_the_server_that_is_final_ends_the_waiting(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.close(4401)
        assert await page.run(ENDED) == [[], "CLOSED"]


# --- cancelling, listing, and what is kept


async def test_cancel_asks_the_server_and_the_end_comes_as_any(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.seen = read(ws.stream('a'))")
        await page.server.say("a", "half")
        await page.run("await until(() => seen.parts.length); await seen.stream.cancel()")
        assert await page.run(ENDED) == [["half"], "cancelled"]
        await page.run("await seen.stream.cancel()")  # it has ended
        (asked,) = [each for each in page.server.received if each["event"] == "stream_cancel"]
        assert (asked["room"], asked["data"]) == ("tea", {"id": "a"})


async def test_who_may_not_cancel_is_told_so(node: NodePage) -> None:
    async with visit(node) as page:
        page.server.failures = {"stream_cancel": ["FORBIDDEN"]}
        await page.run("await ws.join('tea')")
        assert (await page.run("return outcome(ws.stream('a', { room: 'tea' }).cancel())"))["code"] == "FORBIDDEN"
        nowhere = await page.run("return outcome(ws.stream('a').cancel())")
        assert nowhere["code"] == "NOT_FOUND"
        assert "{ room }" in nowhere["message"]
        await page.run("ws.close()")
        assert (await page.run("return outcome(ws.stream('a', { room: 'tea' }).cancel())"))["code"] == "CLOSED"


async def test_one_that_has_not_begun_can_be_cancelled_while_its_room_is_joined(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("ws.join('tea'); await ws.stream('a', { room: 'tea' }).cancel()")
        assert [each["event"] for each in page.server.received] == ["join", "stream_cancel"]


async def test_it_lists_what_has_come_of_a_room(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); await ws.join('milk'); ws.stream('never'); read(ws.stream('waits'))")
        await page.server.say("a", "text")
        await page.server.say("b", "other", room="milk")
        await page.server.say("c", "", "error")
        script = f"{ECHO}; return ws.streams(argument).map(({{ id, room, text, end }}) => [id, room, text, end])"
        tea = [["a", "tea", "text", None], ["c", "tea", "", "error"]]
        assert await page.run(script, "tea") == tea
        assert await page.run(script) == [tea[0], ["b", "milk", "other", None], tea[1]]
        assert await page.run(script, "coffee") == []


async def test_what_has_ended_and_nobody_reads_is_let_go_and_read_again_where_it_is_needed(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea'); globalThis.held = ws.stream('a')")
        await page.server.say("a", "first", "done")
        await page.run(f"{ECHO}; held.text")
        await page.server.say("b", "x" * 2**20, "done")
        assert await page.run(f"{ECHO}; return ws.streams().map(({{ id }}) => id)") == []
        assert await page.run("globalThis.seen = read(held); " + ENDED) == [["first"], "done"]
        assert page.server.sent("stream_read") == []
        await page.cut()
        await page.back()  # and they do not come again
        assert page.server.sent("join")[-1] == {"room": "tea", "streams": {"a": 5, "b": 2**20}}
        assert await page.run("globalThis.seen = read(ws.stream('a')); " + ENDED) == [["first"], "done"]
        assert page.server.sent("stream_read") == [{"id": "a", "from": 0}]


async def test_of_too_many_the_oldest_are_forgotten(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        for number in range(1_100):
            await page.server.say(str(number), "x" * 2_000, "done")
        await page.cut()
        await page.back()
        known = page.server.sent("join")[-1]["streams"]
        assert len(known) < 1_100 + 525
        assert "1099" in known
        assert "0" in known  # it was told of once more, and nothing is lost by that


async def test_positions_that_are_told_are_bounded(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        for number in range(250):
            await page.server.say(f"{number:1000}", "x", "done")
        await page.cut()
        page.server.brings = False
        await page.back()
        told = page.server.sent("join")[-1]["streams"]
        assert sorted(int(id_) for id_ in told) == list(range(151, 250))


# --- beside what else there is


async def test_streams_wait_for_no_state_and_are_none_of_the_messages_that_were_missed(node: NodePage) -> None:
    async with visit(node) as page:
        script = """
            const state = () => new Promise((resolve) => (globalThis.loaded = resolve));
            globalThis.said = [];
            ws.on("said", (data) => said.push(data));
            ws.join("tea", { state });
            await until(() => globalThis.loaded);
            globalThis.seen = read(ws.stream("a"));
        """
        await page.run(script)
        await page.server.tell_event("said", "held back")
        await page.server.say("a", "text", "done")
        assert await page.run(ENDED) == [["text"], "done"]
        assert await page.run("return said") == []
        await page.run("loaded(); await until(() => said.length)")
        await page.server.tell_event("said", 1, at="tea-1")
        await page.server.tell_event(
            "gap", {"room": "tea", "reason": "dropped", "missed": 1, "from": "tea-1", "at": "3"}
        )
        joins = await page.hears("join", 2)
        assert joins[-1] == {"room": "tea", "since": "tea-1", "streams": {"a": 4}}


async def test_an_event_of_the_application_that_has_the_name_is_told_as_any_other(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        for data in ("text", {"id": 7, "from": 0}, {"id": "a"}, None):
            await page.server.tell_event("stream", data)
        await page.server.tell_event("stream", {"id": "a", "from": 0, "text": ""}, room="tea")
        assert await page.run(f"{ECHO}; return pieces") == [
            "text", {"id": 7, "from": 0}, {"id": "a"}, None, {"id": "a", "from": 0, "text": ""},
        ]  # fmt: skip
        assert await page.run("return ws.streams().length") == 1


async def test_a_handler_is_told_of_changes_until_it_is_undone(node: NodePage) -> None:
    async with visit(node) as page:
        script = """
            await ws.join("tea");
            globalThis.reported = [];
            globalThis.reportError = ({ message }) => reported.push(message);
            globalThis.texts = [];
            const stream = ws.stream("a");
            stream.onChange(() => { throw new Error("mine") });
            globalThis.undo = stream.onChange(() => texts.push(stream.text));
        """
        await page.run(script)
        await page.server.say("a", "one ")
        await page.server.say("a", "two")
        await page.run("await until(() => texts.length === 2); undo(); undo()")
        await page.server.say("a", "", "done")
        script = f"{ECHO}; delete globalThis.reportError; return [texts, reported]"
        assert await page.run(script) == [["one ", "one two"], ["mine"] * 3]
