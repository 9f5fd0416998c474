"""`velocity.js` and what it missed: what it says when it comes back, and what it makes of all that may be answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.support import DEADLINE, eventually
from tests.support.node import NodePage, node_page
from tests.support.rooms_with_history import History, history

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

BEGIN = """
    globalThis.told = [];
    globalThis.statuses = [];
    globalThis.gate = null;  // or a promise, before which it does not connect
    globalThis.ws = connect(async () => (await gate, argument), { baseDelay: 1, maxDelay: 20 });
    ws.on("status", (status) => statuses.push(status));
    ws.on("said", (data) => told.push(data));
    ws.on("gap", ({ reason }) => told.push(`gap ${reason}`));
    ws.on("joined", (room, { recovered, missed }) => {
        told.push(["joined", room, recovered, missed].filter((each) => each !== undefined).join(" "));
    });
    ws.on("resync", (...args) => told.push(`resync ${args}`));
    ws.on("error", ({ code }) => told.push(`error ${code}`));
    ws.on("left", ({ room, reason }) => told.push(`left ${room} ${reason}`));
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodePage]:
    async with node_page(tmp_path_factory.mktemp("node")) as page:
        yield page


class Visit:
    """A page of a server of rooms with history."""

    def __init__(self, server: History, node: NodePage) -> None:
        self.server = server
        self.run = node.run

    async def told(self, count: int) -> list[Any]:
        """What the page was told since this was last asked, when it is so much."""
        script = """
            const due = performance.now() + argument.within;
            await until(() => told.length >= argument.count || performance.now() > due);
            return told.splice(0);
        """
        told: list[Any] = await self.run(script, {"count": count, "within": 1000 * DEADLINE})
        assert len(told) == count, told
        return told

    async def back(self) -> None:
        """Wait until the server has heard from it again."""
        await self.run(
            "await until(() => ws.status === 'open' && ws.joined.length === ws.rooms.length); await ws.request('echo')"
        )

    async def cut(self, *words: Any, room: str = "tea") -> None:
        """Cut its connection, and say something before it connects again."""
        await self.run("await ws.request('echo')")  # behind which is nothing that may be on its way
        await self.run("gate = new Promise((resolve) => (globalThis.open = resolve)); statuses.length = 0")
        await self.server.cut()
        await self.run("await until(() => statuses.includes('connecting'))")
        for word in words:
            await self.server.say(room, word)
        await self.run("gate = null; open()")


@asynccontextmanager
async def visit(node: NodePage, *, given: list[str] | None = None, tokens: bool = True) -> AsyncIterator[Visit]:
    async with history() as server:
        server.given = given or []
        server.tokens = tokens
        page = Visit(server, node)
        await page.run(BEGIN, server.url)
        try:
            yield page
        finally:
            await page.run("ws.close()")
    assert node.errors == []


async def test_it_comes_back_to_where_it_stopped(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        assert await page.told(1) == ["joined tea"]
        await page.cut("one")  # a first message is missed
        assert await page.told(2) == ["joined tea true 1", "one"]
        await page.cut()
        assert await page.told(1) == ["joined tea true 0"]
        await page.server.say("tea", "two")
        await page.cut("three", "four")
        assert await page.told(4) == ["two", "joined tea true 2", "three", "four"]
        assert page.server.sent("join") == [
            {"room": "tea"}, {"room": "tea", "since": "tea-0"},
            {"room": "tea", "since": "tea-1"}, {"room": "tea", "since": "tea-2"},
        ]  # fmt: skip
        await page.run("await ws.leave('tea'); await ws.join('tea')")
        assert page.server.sent("join")[-1] == {"room": "tea"}  # which has forgotten it


async def test_it_says_first_where_it_stood_in_rooms_of_the_server(node: NodePage) -> None:
    async with visit(node, given=["all", "mine"]) as page:
        assert await page.told(2) == ["joined all", "joined mine"]  # at once, as it says that it has nothing to say
        await page.run("await ws.join('tea')")
        await page.server.say("all", "one")
        assert await page.told(2) == ["joined tea", "one"]
        await page.cut("two", room="all")
        assert await page.told(4) == ["joined all true 1", "two", "joined mine true 0", "joined tea true 0"]
        before, after = page.server.received
        assert before[0] == {"event": "resume", "data": {"rooms": {}}, "id": 1}
        assert after[0]["event"] == "resume"
        assert after[0]["data"] == {
            "rooms": {"tea": "tea-0", "mine": "mine-0", "all": "all-1"},
            "session": "token-0",
        }
        await page.cut()
        await page.back()
        assert page.server.received[2][0]["data"]["session"] == "token-0+1"


async def test_a_cut_before_the_answer_to_that_loses_neither_positions_nor_sessions(node: NodePage) -> None:
    async with visit(node, given=["all"]) as page:
        await page.told(1)
        await page.server.say("all", "one")
        assert await page.told(1) == ["one"]
        page.server.mute = True
        for _ in range(3):
            await page.cut()
        await page.run("await ws.request('echo')")
        await page.server.say("all", "two")
        page.server.mute = False
        await page.server.cut()
        assert await page.told(2) == ["joined all true 1", "two"]
        said = [{"rooms": {"all": "all-1"}, "session": "token-0"}] * 4
        assert [first["data"] for first, *_ in page.server.received[1:]] == said


async def test_a_cut_before_the_token_loses_no_position(node: NodePage) -> None:
    async with visit(node, given=["all"], tokens=False) as page:
        await page.run("await ws.request('echo')")
        await page.told(1)
        await page.server.say("all", "one")
        await page.told(1)
        page.server.tokens = True
        await page.cut("two", room="all")
        assert await page.told(2) == ["joined all true 1", "two"]


async def test_a_server_that_gives_no_token_is_sent_nothing_of_that(node: NodePage) -> None:
    async with visit(node, tokens=False) as page:
        await page.run("await ws.join('tea')")
        await page.cut()
        await page.back()
        assert page.server.sent("resume") == []
        assert await page.run("await ws.request('echo'); return told.length") == 2


async def test_its_own_query_stays_as_it_is(node: NodePage) -> None:
    async with visit(node) as page:
        for query in ("?a=b%20c&d", "?resume=own", ""):
            await page.run(
                "const ws = connect(argument); await ws.request('echo'); ws.close()", page.server.url + query
            )
        expected = ["resume=1&a=b%20c&d", "resume=1&resume=own", "resume=1"]
        assert page.server.queries[1:] == expected


@pytest.mark.parametrize("reason", ["evicted", "expired", "epoch", "rewound", "too_many", "forbidden"])
async def test_what_cannot_be_recovered_is_told(node: NodePage, reason: str) -> None:
    async with visit(node, given=["all"]) as page:
        await page.run("await ws.join('tea')")
        await page.told(2)
        page.server.lost = [reason, reason]
        await page.cut("lost")
        assert await page.told(4) == [
            "joined all false 0", f"resync all,{reason}", "joined tea false 0", f"resync tea,{reason}",
        ]  # fmt: skip
        await page.server.say("tea", "new")
        await page.cut("newer")
        assert await page.told(4) == ["new", "joined all true 0", "joined tea true 1", "newer"]


async def test_a_room_of_the_server_that_did_not_hear_in_time_where_it_stood_is_told_as_lost(node: NodePage) -> None:
    async with visit(node, given=["all"]) as page:
        await page.told(1)
        await page.server.say("all", "one")
        await page.told(1)
        page.server.waits = False
        await page.cut()
        assert await page.told(1) == ["joined all"]  # where nothing was said
        await page.cut("lost", room="all")
        assert await page.told(2) == ["joined all", "resync all,expired"]


@pytest.mark.parametrize("reason", ["evicted", "expired", "epoch"])
async def test_a_gap_of_what_nobody_has_any_more_is_told_as_lost(node: NodePage, reason: str) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        page.server.dropping = True
        await page.server.say("tea", "lost")
        await page.server.gap("tea", reason)
        await page.server.say("tea", "new")
        assert await page.told(4) == ["joined tea", f"gap {reason}", f"resync tea,{reason}", "new"]
        await page.cut("newer")
        assert await page.told(2) == ["joined tea true 1", "newer"]


@pytest.mark.parametrize("given", [False, True])
async def test_what_was_dropped_for_it_is_asked_for_and_told_in_its_place(node: NodePage, given: bool) -> None:
    async with visit(node, given=["tea"] if given else []) as page:
        await page.run("if (!argument) await ws.join('tea')", given)
        assert await page.told(1) == ["joined tea"]
        await page.server.say("tea", 1)
        page.server.dropping = True
        await page.server.say("tea", 2)
        await page.server.say("tea", 3)
        await page.server.gap("tea", "dropped")
        await page.server.say("tea", 4)
        assert await page.told(6) == [1, "gap dropped", "joined tea true 2", 2, 3, 4]
        assert page.server.sent("join")[-1] == {"room": "tea", "since": "tea-1"}
        await page.cut(5)
        assert await page.told(2) == ["joined tea true 1", 5]


async def test_what_was_dropped_and_cannot_be_had_is_told_as_lost_before_what_came_since(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        await page.server.say("tea", 1)
        page.server.dropping = True
        await page.server.say("tea", 2)
        page.server.failures = [{"code": "UNAVAILABLE", "message": "no engine", "retry_after": 1}]
        await page.server.gap("tea", "dropped")
        await page.server.say("tea", 3)
        assert await page.told(5) == ["joined tea", 1, "gap dropped", "resync tea,dropped", 3]
        await page.cut(4)
        assert await page.told(2) == ["joined tea true 1", 4]


async def test_a_cut_while_that_is_asked_for_loses_nothing(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        await page.server.say("tea", 1)
        await page.told(2)
        page.server.dropping = True
        await page.server.say("tea", 2)
        page.server.mute = True
        await page.server.gap("tea", "dropped")
        await page.server.say("tea", 3)
        assert await page.told(1) == ["gap dropped"]
        page.server.mute = False
        await page.cut(4)
        assert await page.told(4) == ["joined tea true 3", 2, 3, 4]


async def test_while_the_engine_is_away_it_asks_again_with_the_same_position(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        await page.server.say("tea", 1)
        await page.told(2)
        page.server.failures = [{"code": "UNAVAILABLE", "message": "no engine", "retry_after": 0.01}] * 3
        await page.cut(2)
        assert await page.told(2) == ["joined tea true 1", 2]
        assert page.server.sent("join")[1:] == [{"room": "tea", "since": "tea-1"}] * 4


async def test_a_position_that_is_refused_costs_no_room(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        await page.told(1)
        page.server.failures = [{"code": "INVALID_DATA", "message": "what is `since`?"}]
        await page.cut(1)
        assert await page.told(2) == ["joined tea", "resync tea,expired"]
        await page.server.say("tea", 2)
        await page.cut(3)
        assert await page.told(3) == [2, "joined tea true 1", 3]


async def test_a_message_that_comes_again_is_told_once(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("await ws.join('tea')")
        await page.server.say("tea", 1)
        await page.server.tell(page.server.logs["tea"][-1], "tea")
        await page.server.say("tea", 2)
        assert await page.told(3) == ["joined tea", 1, 2]


# --- the state of a room

WITH_STATE = """
    globalThis.loads = [];
    globalThis.join = (room) => outcome(ws.join(room, { state: () => new Promise((resolve, reject) => {
        told.push("loading");
        loads.push({ resolve: () => (told.push("loaded"), resolve()), reject: (why) => reject(new Error(why)) });
    }) }));
    globalThis.joined = join("tea").then(({ code, message }) => told.push(`done ${message ?? ""}`.trim()));
"""
LOADED = "await until(() => loads.length); loads.shift().resolve()"
FAILED = "await until(() => loads.length); loads.shift().reject('no database')"


async def test_a_state_is_loaded_behind_the_position_and_what_comes_meanwhile_follows(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run(WITH_STATE)
        assert await page.told(2) == ["joined tea", "loading"]
        await page.server.say("tea", 1)
        await page.server.say("other", 0)
        await page.run("await ws.request('echo')")
        await page.run(LOADED)
        assert await page.told(3) == ["loaded", "done", 1]
        await page.server.say("tea", 2)
        await page.cut(3)
        assert await page.told(3) == [2, "joined tea true 1", 3]


async def test_what_is_held_back_goes_on_over_a_cut(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run(WITH_STATE)
        await page.told(2)
        await page.server.say("tea", 1)
        await page.run("await ws.request('echo')")
        await page.cut(2)
        assert await page.told(1) == ["joined tea true 1"]
        await page.run("await ws.request('echo')")
        await page.run(LOADED)
        assert await page.told(4) == ["loaded", "done", 1, 2]


async def test_what_is_lost_is_loaded_again_and_nothing_older_is_told_behind_it(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run(WITH_STATE)
        await page.told(2)
        await page.server.say("tea", 1)
        await page.run("await ws.request('echo')")
        page.server.lost = ["evicted"]
        await page.cut(2)
        assert await page.told(2) == ["joined tea false 0", "resync tea,evicted"]
        await page.server.say("tea", 3)
        await page.run("await ws.request('echo')")
        await page.run(LOADED)  # that which began before
        assert await page.told(2) == ["loaded", "loading"]
        await page.run(LOADED)
        assert await page.told(3) == ["loaded", "done", 3]


async def test_a_state_that_fails_at_first_fails_the_join_and_later_is_tried_again(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run("globalThis.reportError = (error) => told.push(`reported ${error.message}`);" + WITH_STATE)
        await page.told(2)
        await page.run(FAILED)
        assert await page.told(1) == ["done no database"]
        assert await page.run("return ws.rooms") == []
        await eventually(lambda: page.server.sent("leave") == [{"room": "tea"}])
        await page.run(WITH_STATE)
        await page.run(LOADED)
        assert await page.told(4) == ["joined tea", "loading", "loaded", "done"]
        page.server.lost = ["epoch"]
        await page.cut(1)
        assert await page.told(3) == ["joined tea false 0", "resync tea,epoch", "loading"]
        await page.server.say("tea", 2)
        for _ in range(2):
            await page.run(FAILED)
        await page.run(LOADED)
        assert await page.told(6) == [
            "reported no database", "loading", "reported no database", "loading", "loaded", 2,
        ]  # fmt: skip
        await page.run("delete globalThis.reportError")


async def test_a_room_without_history_has_its_state_loaded_at_each_return(node: NodePage) -> None:
    async with visit(node, tokens=False) as page:
        page.server.remembers = False
        await page.run(WITH_STATE)
        await page.run(LOADED)
        assert await page.told(4) == ["joined tea", "loading", "loaded", "done"]
        await page.cut()
        assert await page.told(2) == ["joined tea", "loading"]
        await page.server.tell({"event": "said", "data": 1, "room": "tea"}, "tea")
        await page.run("await ws.request('echo')")
        await page.cut()  # and what was held back is in the state that is loaded then
        assert await page.told(1) == ["joined tea"]
        await page.run(LOADED)
        assert await page.told(2) == ["loaded", "loading"]
        await page.run(LOADED)
        assert await page.told(1) == ["loaded"]


async def test_a_second_use_has_a_state_of_its_own(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run(WITH_STATE)
        await page.run(LOADED)
        await page.told(4)
        await page.run("globalThis.second = async () => { told.push('second') }; ws.join('tea', { state: second })")
        assert await page.told(1) == ["second"]
        await page.server.say("tea", 1)
        page.server.lost = ["evicted"]
        await page.cut()
        await page.run(LOADED)
        assert await page.told(6) == [1, "joined tea false 0", "resync tea,evicted", "loading", "second", "loaded"]
        await page.run("await ws.leave('tea', { state: second })")
        page.server.lost = ["evicted"]
        await page.cut()
        await page.run(LOADED)
        assert await page.told(4) == ["joined tea false 0", "resync tea,evicted", "loading", "loaded"]
        assert await page.run("await ws.leave('tea'); return ws.rooms") == []


async def test_who_leaves_while_a_state_is_loaded_is_told_nothing_more(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run(WITH_STATE)
        await page.told(2)
        await page.server.say("tea", 1)
        await page.run("await ws.request('echo'); await ws.leave('tea')")
        await page.run(LOADED)
        assert await page.told(2) == ["done left before its state was loaded", "loaded"]
        assert await page.run("await ws.request('echo'); return told") == []


async def test_more_than_may_be_held_back_is_in_a_state_that_is_loaded_again(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run(WITH_STATE)
        await page.told(2)
        for number in range(1001):
            await page.server.say("tea", number)
        assert await page.told(1) == ["resync tea,too_many"]
        await page.server.say("tea", "new")
        await page.run("await ws.request('echo')")
        await page.run(LOADED)
        await page.run(LOADED)
        assert await page.told(5) == ["loaded", "loading", "loaded", "done", "new"]
        await page.run(WITH_STATE)
        await page.told(1)
        await page.server.say("tea", "long" * 2**18)
        assert await page.told(1) == ["resync tea,too_many"]
        await page.run(LOADED)
        await page.run(LOADED)
        await page.told(4)


async def test_no_promise_is_rejected_that_nobody_could_catch(node: NodePage) -> None:
    async with visit(node) as page:
        await page.run(
            "ws.join('tea', { state: () => new Promise(() => {}) }); await ws.request('echo'); ws.leave('tea')"
        )
        await page.run("ws.join('tea', { state: () => {} }); ws.leave('tea')")
        await page.run("ws.join('tea', { state: () => {} }); ws.close()")
        assert await page.run("return 1") == 1
