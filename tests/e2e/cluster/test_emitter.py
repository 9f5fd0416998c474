"""Emitter: from a process without clients, awaited and blocking, and by the command."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support import DEADLINE, eventually, settings
from tests.support.engines import engine, free_port
from tests.support.nodes import Node, nodes, person, run_command
from velocity_ws import BackplaneUnavailable, Broker, BrokerError, ClientNotFound, Emitter, SettingsError
from velocity_ws.cli import main


@pytest.fixture
def all_are_known(pair: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes now waits until all nodes have answered it, however busy the machine is."""
    monkeypatch.setattr("velocity_ws.cluster.membership.DISCOVERY_TIME", DEADLINE)


@pytest.mark.usefixtures("all_are_known")
async def test_it_reaches_clients_on_all_nodes(url: str, pair: list[Node]) -> None:
    a, b = pair
    async with (
        person(a, "ann", "x") as (ann, ann_id),
        person(b, "bob", "x") as (bob, bob_id),
        Emitter(url, timeout=DEADLINE) as emitter,
    ):
        assert await emitter.broadcast("n", 1) == 0
        await emitter.to_room("x").send("n", 2)
        await emitter.to_rooms(["y", "x"]).except_(ann_id).send("n", 3)
        await emitter.to_user("bob").send("n", 4)
        await emitter.to_clients([ann_id, bob_id]).send("n", 5)
        await emitter.to_client(ann_id).send_bytes(b"6")
        assert [await ann.expect("n") for _ in range(3)] == [1, 2, 5]
        assert await ann.receive() == b"6"
        assert [await bob.expect("n") for _ in range(5)] == [1, 2, 3, 4, 5]
        assert [member.client_id for member in await emitter.members("x")] == [ann_id, bob_id]
        assert await emitter.count("x") == 2
        assert set((await emitter.cluster_stats()).nodes) == {a.broker.node_id, b.broker.node_id}
        await emitter.join_room(bob_id, "y")
        await emitter.leave_room(bob_id, "x")
        assert await emitter.count("y") == await emitter.count("x") == 1
        with pytest.raises(ClientNotFound):
            await emitter.join_room("nobody", "y")
        await emitter.leave_room("nobody", "y")  # harmless, as leaving twice is
        assert await emitter.disconnect(ann_id, 4001)
        assert await emitter.disconnect_user("bob", 4002) == 1
        assert [await ann.closed(), await bob.closed()] == [(4001, ""), (4002, "")]
        assert await a.peers() == 1  # it is no node itself


async def test_many_in_order(url: str, pair: list[Node]) -> None:
    async with person(pair[1], room="x") as (peer, _), Emitter(url, timeout=30) as emitter:
        target = emitter.to_room("x")
        await asyncio.gather(*[target.send("n", number) for number in range(2000)])
        assert [await peer.expect("n") for _ in range(2000)] == list(range(2000))


@pytest.mark.usefixtures("all_are_known")
async def test_it_blocks_in_a_plain_thread(url: str, pair: list[Node]) -> None:
    async with person(pair[1], "ann", "x") as (peer, _):

        def work() -> list[int]:
            with Emitter(url, timeout=DEADLINE) as emitter:
                for number in range(10):
                    emitter.to_room("x").send("n", number)
                emitter.to_user("ann").send("n", 10)
                emitter.broadcast("n", 11)
                return [emitter.count("x"), len(emitter.members("x")), len(emitter.cluster_stats().nodes)]

        assert await asyncio.to_thread(work) == [1, 1, 2]
        assert [await peer.expect("n") for _ in range(12)] == list(range(12))


async def test_it_is_used_again_on_another_loop(url: str, pair: list[Node]) -> None:
    async with person(pair[1], room="x") as (peer, _):
        emitter = Emitter(url, timeout=DEADLINE)

        async def once(number: int) -> None:
            async with emitter:
                await emitter.to_room("x").send("n", number)

        for number in range(3):
            await asyncio.to_thread(asyncio.run, once(number))
            assert await peer.expect("n") == number


async def test_without_an_engine_it_says_so() -> None:
    async with engine("nats") as server:
        await server.kill()
        async with Emitter(server.url, timeout=0.5) as emitter:
            with pytest.raises(BackplaneUnavailable) as caught:
                await emitter.broadcast("n")
            assert caught.value.outcome == "refused"
            with pytest.raises(BackplaneUnavailable):
                await emitter.members("x")


@asynccontextmanager
async def nobody_answers(how: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The URL of an engine that is gone, or stands still."""
    kind, _, state = how.partition(" ")
    if kind == "embedded":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
        monkeypatch.setattr("tempfile.tempdir", str(directory))
        yield "embedded://nobody"
        return
    async with engine(kind) as server:
        await server.kill() if state == "gone" else server.freeze()
        yield server.url


@pytest.mark.parametrize("how", ["nats gone", "nats frozen", "valkey gone", "valkey frozen", "embedded"])
async def test_its_timeout_holds_from_the_first_message_on(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nobody_answers(how, tmp_path, monkeypatch) as url:

        def block() -> float:
            with Emitter(url, timeout=0.5) as emitter:
                began = time.monotonic()
                with pytest.raises(BackplaneUnavailable, match="the engine"):
                    emitter.to_room("x").send("n")
                return time.monotonic() - began

        async def wait(first: Callable[[Emitter], Awaitable[object]]) -> float:
            emitter, began = Emitter(url, timeout=0.5), time.monotonic()
            with pytest.raises(BackplaneUnavailable, match="the engine"):
                await first(emitter)
            took = time.monotonic() - began
            await emitter.stop()
            return took

        took = await asyncio.gather(
            asyncio.to_thread(block),
            wait(lambda emitter: emitter.broadcast("n")),
            wait(lambda emitter: emitter.members("x")),
            wait(lambda emitter: asyncio.gather(*[emitter.broadcast("n") for _ in range(3)])),
        )
        assert max(took) < 2.5  # a busy machine's share is in it; connecting alone took 3 s


GREEN = """
import gevent.monkey
gevent.monkey.patch_all()
import asyncio, sys
import gevent
from velocity_ws import BrokerError, Emitter
emitter = Emitter(sys.argv[1], timeout=10)
for _ in range(2):
    try:
        emitter.sync.to_room("x").send("n", "no")
    except BrokerError as error:
        print(type(error).__name__, "gevent" in str(error), "threadpool.apply(asyncio.run" in str(error))

async def send_it():
    async with Emitter(sys.argv[1], timeout=10) as emitter:
        await emitter.to_room("x").send("n", "from a real thread")

gevent.get_hub().threadpool.apply(asyncio.run, (send_it(),))
"""


async def test_under_gevent_it_says_what_is_wrong_and_what_works() -> None:
    async with engine("nats") as server, nodes(server.url, 1) as (node,), person(node, room="x") as (peer, _):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", GREEN, server.url, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        assert out.decode().splitlines() == ["BrokerError True True"] * 2
        assert await peer.expect("n") == "from a real thread"


@pytest.mark.parametrize("url", ["memory://", "carrier-pigeon://loft"])
def test_there_has_to_be_an_engine(url: str) -> None:
    with pytest.raises(SettingsError):
        Emitter(url)


async def test_the_command_sends_and_asks() -> None:
    async with engine("nats") as server, nodes(server.url) as pair, person(pair[1], "ann", "x") as (peer, client_id):
        data = '{"text": "ä"}'
        assert await run_command("send", "--room", "x", "--event", "n", "--data", data, "--url", server.url) == (
            0,
            "",
            "",
        )
        assert await peer.expect("n") == {"text": "ä"}
        assert await run_command("send", "--user", "ann", "--event", "n", WS_BACKPLANE_URL=server.url) == (0, "", "")
        assert await run_command("send", "--client", client_id, "--event", "n", "--url", server.url) == (0, "", "")
        assert await run_command("send", "--event", "n", "--url", server.url) == (0, "", "")
        assert [await peer.expect("n") for _ in range(3)] == [None] * 3
        status, out, _ = await run_command("members", "x", "--url", server.url)
        assert (status, out.split("\t")[:3]) == (0, [client_id, "ann", pair[1].broker.node_id])
        status, out, _ = await run_command("members", "x", "--json", "--url", server.url)
        assert json.loads(out)["members"][0]["client_id"] == client_id
        status, out, _ = await run_command("stats", "--url", server.url)
        assert (status, json.loads(out)["total"]["connected_clients"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("send --event n --url {url} --data {{", "not JSON"),
        ("send --event n --url {url} --room x --user y", "not several"),
        ("send --event n --url {url} --user ''", "--user is empty"),
        ("send --event n", "needs the engine"),
        ("send --event '' --url {url}", "1 to 256 characters"),
        ("stats --url {url}", "no connection to the engine"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_BACKPLANE_URL", "memory://")
    result = CliRunner().invoke(main, arguments.format(url=f"nats://127.0.0.1:{free_port()}"))
    assert result.exit_code not in (0, None)
    assert says in result.output
    assert isinstance(result.exception, SystemExit), "which prints no traceback"


@pytest.mark.usefixtures("all_are_known")
async def test_a_first_question_waits_until_it_is_known_who_is_there(url: str, pair: list[Node]) -> None:
    async with person(pair[1]) as (_, client_id), Emitter(url, timeout=DEADLINE) as emitter:
        await emitter.join_room(client_id, "x")
        assert [client.id for client in pair[1].broker.get_room_clients("x")] == [client_id]


async def test_a_start_that_is_given_up_leaves_nothing() -> None:
    async with engine("nats") as server:
        await server.kill()
        emitter = Emitter(server.url)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(emitter.broadcast("n"), 0.1)
        broker = Broker(settings(backplane_url=server.url))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(broker.start(), 0.1)
        assert broker.is_running  # it goes on, and connects when the engine is there
        await broker.stop()
        starting = asyncio.create_task(broker.start())
        await asyncio.sleep(0)
        await broker.stop()
        with pytest.raises(BrokerError):
            await starting
        await eventually(lambda: not [task for task in asyncio.all_tasks() if "velocity-ws" in task.get_name()])


async def test_stopping_while_something_is_sent_leaves_nothing_behind() -> None:
    emitter = Emitter("memory://races")
    for _ in range(20):
        await emitter.start()
        await asyncio.gather(emitter.broadcast("n"), emitter.stop(), emitter.broadcast("n"))
        await emitter.stop()
        await eventually(lambda: not [task for task in asyncio.all_tasks() if "velocity-ws" in task.get_name()])


def test_it_is_used_on_one_loop_after_the_other_and_at_once() -> None:
    async def several(emitter: Emitter) -> None:
        await asyncio.gather(*[emitter.broadcast("n") for _ in range(5)])
        await emitter.stop()

    emitter = Emitter("memory://loops")
    for _ in range(3):
        asyncio.run(several(emitter))


FORK = """
import os, sys
from velocity_ws import Emitter
emitter = Emitter(sys.argv[1], timeout=10)
send = emitter.sync
send.to_room("x").send("n", "parent")
pid = os.fork()
if not pid:
    send.to_room("x").send("n", "child")
    emitter.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
send.to_room("x").send("n", "parent again")
emitter.close()
"""


async def test_a_worker_that_is_forked_has_a_connection_of_its_own() -> None:
    async with engine("nats") as server, nodes(server.url, 1) as (node,), person(node, room="x") as (peer, _):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", FORK, server.url)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        assert [await peer.expect("n") for _ in range(3)] == ["parent", "child", "parent again"]


async def test_a_script_runs_no_embedded_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    async with Emitter("embedded://nobody", timeout=0.5) as emitter:
        with pytest.raises(BackplaneUnavailable, match="runs embedded://nobody"):
            await emitter.broadcast("n")
    async with nodes("embedded://somebody", 1) as (node,), person(node) as (peer, _):
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        (tmp_path / f"velocity-ws-{os.getuid()}").symlink_to(tmp_path / "velocity-ws")
        async with Emitter("embedded://somebody", timeout=DEADLINE) as emitter:
            await emitter.broadcast("n", 1)
        assert await peer.expect("n") == 1
