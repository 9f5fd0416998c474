"""`velocity.js` in Node 20, which has no `WebSocket`: with that of the package `ws`, and without any page."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE, settings
from tests.support.node_tools import find_node, install, node_environment
from tests.support.proxy import proxy
from tests.support.site import faster
from velocity_ws import Broker, Client, Message, Server

# The timeout leaves room for the installation of the package.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "src/velocity_ws/browser/velocity.js"


def make(received: list[str]) -> Broker:
    broker = Broker(settings(drain_timeout=0.2))
    broker.rooms("{name}").authorize(lambda: True)

    @broker.on_message
    def remember(client: Client, message: Message) -> None:
        received.append(f"{message.event} {message.data}")

    broker.on("echo")(lambda client, data: data)
    broker.on("note")(lambda client: None)
    broker.on("restart")(lambda client: client.disconnect(1012, "retry_after=0.01"))
    broker.on("ask")(lambda client: client.ask("confirm", 3))

    @broker.on_binary
    async def back(client: Client, data: bytes) -> None:
        await client.send_bytes(data[::-1])

    return broker


async def run(directory: Path, script: str, argument: Any, *, before: str = "") -> Any:
    """What the body of an async function returns in Node; it has `velocity`, `connect`, `WebSocket` and `argument`."""
    wrapper = install(ROOT / "tests" / "npm") / "ws" / "wrapper.mjs"
    path = directory / "script.mjs"
    path.write_text(
        f"""
        {before}
        const velocity = await import({json.dumps(CLIENT.as_uri())});
        const {{ WebSocket }} = await import({json.dumps(wrapper.as_uri())});
        const {{ connect }} = velocity;
        const argument = {json.dumps(argument)};
        const outcome = (promise) => promise.then((value) => ({{ value }}), ({{ code }}) => ({{ code }}));
        const until = async (condition) => {{
            while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
        }};
        const unhandled = [];
        process.on("unhandledRejection", (error) => unhandled.push(String(error)));
        const result = await (async () => {{ {script} }})();
        console.log(JSON.stringify({{ result, unhandled }}));
        process.exit();
        """,
        encoding="utf-8",
    )
    process = await asyncio.create_subprocess_exec(
        *(find_node(), str(path)),
        env=node_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(3 * DEADLINE):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    told = json.loads(output.decode().splitlines()[-1])
    assert told["unhandled"] == []
    return told["result"]


async def test_it_does_all_that_it_does_in_a_page(tmp_path: Path) -> None:
    received: list[str] = []
    async with Server(make(received), port=0) as server:
        result = await run(
            tmp_path,
            """
            const statuses = [], joined = [];
            const ws = connect(() => argument, { WebSocket, baseDelay: 1 });
            ws.on("status", (status, { code }) => statuses.push([status, code ?? 0]));
            ws.on("joined", (room) => joined.push(room));
            ws.onRequest("confirm", async (n) => n * 2);
            const bytes = new Promise((resolve) => ws.on("binary", resolve));
            ws.sendBytes(new Uint8Array([1, 2]));
            const answers = [await ws.join("a"), await ws.request("echo", "grüße"), await ws.request("ask")];
            ws.send("restart");
            await until(() => joined.length === 2);
            answers.push([...new Uint8Array(await bytes)]);
            ws.close();
            await until(() => ws.status === "closed");
            return [answers, statuses];
            """,
            f"ws://127.0.0.1:{server.port}/ws",
        )
    assert result[0] == [{"room": "a"}, "grüße", 6, [2, 1]]
    assert result[1] == [["open", 0], ["waiting", 1012], ["connecting", 0], ["open", 0], ["closed", 1000]]


@pytest.mark.parametrize("sides", [{}, {"back": False}, {"there": False}], ids=["both ways", "there", "back"])
async def test_a_dead_network_is_noticed_and_what_was_sent_is_told(tmp_path: Path, sides: dict[str, bool]) -> None:
    received: list[str] = []
    broker = make(received)
    async with Server(broker, port=0) as server, proxy(server.port) as way:
        broker.on("swallow")(lambda client: way.swallow(**sides))
        result = await run(
            tmp_path,
            """
            const ws = connect(argument, { WebSocket, baseDelay: 1, maxDelay: 1 });
            const lost = new Promise((resolve) => {
                ws.on("status", (status, detail) => status === "waiting" && resolve(detail));
            });
            await ws.request("echo", 0, { timeout: Infinity });
            ws.send("swallow");
            await new Promise((resolve) => setTimeout(resolve, 2000));
            const began = performance.now();
            ws.send("note", 1);
            const asked = outcome(ws.request("note", 2, { timeout: Infinity }));
            const { code, unconfirmed } = await lost;
            const took = (performance.now() - began) / 1000;
            return [took, code, unconfirmed.map(({ data }) => data ?? 0), (await asked).code];
            """,
            f"ws://127.0.0.1:{way.port}/ws",
            before=faster(10),
        )
    assert 5 < result[0] < 35
    assert result[1:] == [1006, [0, 1], "DISCONNECTED"]
    assert len(received) == len(set(received))


async def test_an_attempt_that_fails_or_is_given_up_ends_no_process(tmp_path: Path) -> None:
    """The sockets of "ws" throw what nobody listens to."""
    hang = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    result = await run(
        tmp_path,
        """
        const reasons = [];
        const urls = ["ws://127.0.0.1:9"];
        const ws = connect(() => urls.shift() ?? argument, { WebSocket, connectTimeout: 300, baseDelay: 1 });
        ws.on("status", (status, { reason }) => status === "waiting" && reasons.push(reason));
        await until(() => reasons.length === 3);
        ws.close();
        await new Promise((resolve) => setTimeout(resolve, 20));
        return [reasons, (await outcome(ws.request("echo"))).code, await ws.leave("a")];
        """,
        f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}",
    )
    hang.set()
    server.close()
    await server.wait_closed()
    assert result[0][1:] == ["connecting took too long"] * 2
    assert result[1:] == ["CLOSED", None]


async def test_what_is_missing_is_said_at_once(tmp_path: Path) -> None:
    result = await run(
        tmp_path,
        """
        const said = (make) => { try { make(); } catch (error) { return `${error.name}: ${error.message}`; } };
        delete globalThis.WebSocket;
        return [said(() => connect("ws://127.0.0.1:9")), said(() => connect(undefined, { WebSocket })),
            said(() => connect("/ws", { WebSocket }))];
        """,
        None,
    )
    assert "connect(url, { WebSocket })" in result[0]
    assert 'as in connect("/ws")' in result[1]
    assert result[2].startswith("TypeError: Invalid URL")
