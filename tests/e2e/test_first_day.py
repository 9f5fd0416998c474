"""What goes wrong on a developer's first day is said on the console, once, with what to do; strangers fill no log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support import ServerKind, eventually, running, serve, settings
from tests.support.command import kept_port
from tests.support.console import ROOT, console, says
from velocity_ws import (
    Broker,
    Client,
    ClientIdError,
    ClientNotFound,
    ClientTimeout,
    InvalidNameError,
    InvalidPathError,
    Reject,
    Server,
    WebSocketApp,
)
from velocity_ws.asgi.admission import MAX_ORIGINS
from velocity_ws.backplane.embedded.backplane import GRACE
from velocity_ws.logs import WARNINGS_AT_ONCE
from velocity_ws.sessions.hints import MAX_NAMED


def _never(value: str) -> str:
    raise ValueError(f"{value} is not allowed")


class Said(BaseModel):
    text: str
    count: int = 0
    who: Annotated[str, AfterValidator(_never)] = "nobody"
    more: dict[str, int] = {}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What our loggers say, as level and text."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.levelname} {record.getMessage()}")

    keep = Keep()
    caplog.set_level(logging.INFO, "velocity_ws")
    logging.getLogger("velocity_ws").addHandler(keep)
    yield found
    logging.getLogger("velocity_ws").removeHandler(keep)


async def test_a_misspelled_event_and_data_that_does_not_fit_are_seen_on_the_console() -> None:
    async with console("velocity-ws run") as served:
        async with served.connect() as client:
            for _ in range(2):
                assert await says(client, "bom\x1b[2K") == "error"
                assert await says(client, "boom\nERROR:    forged", ["s3cret"]) == "error"
            await client.send(b"x")
            answer = json.loads(await client.recv())
            assert answer["data"]["code"] == "UNKNOWN_EVENT"
        await served.shows(r"(?m)^WARNING:  no handler for event 'bom\\x1b\[2K' \(there are: boom, 'boom")
        await served.shows(
            r"(?m)^WARNING:  the data of event 'boom\\nERROR: .* does not fit its handler echoed: Input sh"
        )
        await served.shows(r"(?m)^WARNING:  no on_binary hook")
    assert served.text.count("no handler for") == 1
    assert served.text.count("does not fit its handler") == 1
    assert "s3cret" not in served.text


async def test_an_event_without_a_handler_is_named_once_to_both_sides_and_names_are_bounded(said: list[str]) -> None:
    broker = Broker(settings(rate_limit=0))
    broker.on("say")(lambda data: None)
    broker.on("boom")(lambda data: None)
    async with running(broker) as address, address.connect() as peer:
        for _ in range(2):
            answer = await peer.request("sya")
            assert answer["data"]["message"] == "there is no handler for event 'sya'"
        await peer.request("x" * 256)
        for number in range(2 * MAX_NAMED):
            assert (await peer.request(f"e{number}"))["data"]["code"] == "UNKNOWN_EVENT"
    assert said.count("WARNING no handler for event 'sya' (there are: boom, say)") == 1
    assert len([line for line in said if "no handler for event" in line]) == MAX_NAMED
    assert said[-1].startswith(f"WARNING more than {MAX_NAMED} events have come that have no handler")
    assert max(map(len, said)) < 300


async def test_a_room_that_no_client_can_join_is_refused_as_any_and_the_developer_is_told_why(said: list[str]) -> None:
    broker = Broker(settings(rate_limit=0))
    broker.rooms("open:{name}").authorize(lambda client: True)
    broker.rooms("closed:{name}")
    async with running(broker) as address, address.connect() as peer:
        rooms = ["closed:a", "closed:b", "lobby\n", "lobby\n", *[f"r{number}" for number in range(2 * MAX_NAMED)]]
        refusals = [(await peer.request("join", {"room": room}))["data"] for room in rooms]
    assert refusals == [{"code": "FORBIDDEN", "message": "you may not be in this room"}] * len(refusals)
    lines = [line for line in said if "asked to join" in line]
    assert lines[0].startswith(
        "WARNING a client asked to join 'closed:a', and is FORBIDDEN, as broker.rooms('closed:{name}')"
    )
    assert lines[1].startswith("WARNING a client asked to join 'lobby\\n', and is FORBIDDEN, as no kind of rooms has a")
    assert all("@kind.authorize" in line and "handle the event join yourself" in line for line in lines[:-1])
    assert lines[-1].startswith(f"WARNING clients asked to join more than {MAX_NAMED} rooms of no kind")
    assert len(lines) == 2 + MAX_NAMED


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Reject("log\nin", code=4401), r"4401 'log\\nin'"),
        (Reject("no token", 401), "401 'no token'"),
        (HTTPException(403, "members only"), "403 'members only'"),
    ],
)
async def test_who_is_refused_by_authenticate_is_in_the_log_but_not_all_of_them(
    said: list[str], error: Exception, line: str
) -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def check(request: HTTPConnection) -> None:
        raise error

    async with running(broker) as address:
        for _ in range(WARNINGS_AT_ONCE + 5):
            with contextlib.suppress(InvalidStatus):
                async with address.connect() as peer:
                    await peer.closed()
    lines = [each for each in said if "refused" in each]
    assert len(lines) == WARNINGS_AT_ONCE
    expected = re.compile(rf"INFO handshake of 127\.0\.0\.1:\d+ refused by \S*check: {line}")
    assert all(map(expected.fullmatch, lines)), lines[0]
    assert broker.get_stats().rejected == WARNINGS_AT_ONCE + 5


async def test_an_event_that_only_on_message_sees_is_a_hint_where_others_have_handlers(said: list[str]) -> None:
    for handled in (["say"], []):
        broker = Broker(settings())
        broker.on_message(lambda client, message: None)
        for event in handled:
            broker.on(event)(lambda data: None)
        async with running(broker) as address, address.connect() as peer:
            for _ in range(2):
                assert (await peer.request("sya"))["event"] == "reply"
    assert [line for line in said if "no handler" in line] == [
        "INFO no handler for event 'sya', only on_message hooks (there are: say)"
    ]


@pytest.mark.parametrize("is_seen", [False, True])
async def test_an_event_that_only_rooms_have_is_answered_that_it_has_to_name_one(
    said: list[str], is_seen: bool
) -> None:
    broker = Broker(settings())
    rooms = broker.rooms("doc:{doc_id}")
    rooms.on("say")(lambda data: data)
    if is_seen:
        broker.on_message(lambda client, message: None)

    @broker.on_connect
    async def connect(client: Client) -> None:
        await broker.join_room(client.id, "doc:1")
        await broker.join_room(client.id, "tea")

    async with running(broker) as address, address.connect() as peer:
        for _ in range(2):
            answer = await peer.request("say", "x")
            if not is_seen:
                assert answer["data"]["code"] == "UNKNOWN_EVENT"
                assert "has to name its room" in answer["data"]["message"]
                assert "doc" not in answer["data"]["message"]
        await peer.send("say", "x", room="doc:1", id=2)
        assert (await peer.receive())["data"] == "x"
        await peer.send("say", "x", room="tea", id=3)
        if not is_seen:
            assert (await peer.receive())["data"]["message"] == "there is no handler for event 'say'"
    (line,) = [line for line in said if "no handler" in line]
    assert line.startswith("WARNING no handler for event 'say' without a room, only in rooms doc:{doc_id}: a message")


async def test_what_is_wrong_with_data_is_said_without_what_the_client_sent(said: list[str]) -> None:
    broker = Broker(settings())

    @broker.on("say")
    async def say(data: Said) -> None: ...

    @broker.on("other")
    async def other(data: Said) -> None: ...

    async with running(broker) as address, address.connect() as peer:
        wrong = {"count": "s3cret", "who": "s3cret", "more": {"s3cret": "s3cret"}}
        for event in ("say", "say", "other"):
            answer = await peer.request(event, wrong)
            assert answer["data"]["code"] == "INVALID_DATA"
            assert "s3cret" in json.dumps(answer), "its sender is told all of it"
    lines = [line for line in said if "does not fit" in line]
    assert len(lines) == 2
    assert lines[0].startswith("WARNING the data of event 'say' does not fit its handler ")
    parsing = "Input should be a valid integer, unable to parse string as an integer"
    assert f"say: text: Field required; count: {parsing}; who: value error; more.…: {parsing}" in lines[0]
    assert "s3cret" not in "".join(lines)


async def test_misspelled_variables_and_limits_that_are_reached_are_seen_on_the_console() -> None:
    variables = {"WS_MAX_CONECTIONS": "5", "WS_TOKEN": "another program's", "WS_MAX_CONNECTIONS": "1"}
    variables |= {"WS_RATE_LIMIT": "1", "WS_RATE_BURST": "2", "WS_MAX_MESSAGE_SIZE": "1000"}
    async with console("velocity-ws run", **variables) as served:
        await served.shows(r"(?m)^WARNING:  WS_MAX_CONECTIONS is no setting; did you mean WS_MAX_CONNECTIONS\?$")
        async with served.connect() as client:
            for _ in range(3):
                with pytest.raises(InvalidStatus):
                    await served.connect()
            for _ in range(5):
                await says(client, "boom")
            await client.send("x" * 2000)
            await client.wait_closed()
            assert client.close_code == 1009
        await served.shows(r"(?m)^WARNING:  handshake of \S+ refused \(503\): WS_MAX_CONNECTIONS \(1\) is reached$")
        await served.shows(r"(?m)^WARNING:  client \S+ has a message refused: too many messages \(WS_RATE_LIMIT=1, ")
        await served.shows(
            r"(?m)^WARNING:  client \S+ was closed \(1009\) for a message over WS_MAX_MESSAGE_SIZE \(1000 "
        )
    assert "WS_TOKEN" not in served.text
    for line in ("did you mean", "is reached", "has a message refused", "was closed (1009)"):
        assert served.text.count(line) == 1, line


@pytest.mark.parametrize("slow_client", ["disconnect", "drop"])
@pytest.mark.parametrize("kind", ["ours", "websockets-sansio"])
async def test_a_client_that_reads_too_slowly_is_seen_and_its_limit_named(
    slow_client: str, kind: ServerKind, said: list[str]
) -> None:
    broker = Broker(settings(slow_client=slow_client, send_queue_size=1000, socket_send_buffer=4096))
    async with running(broker, kind) as address, address.connect(max_queue=1, compression=None, close_timeout=0.1):
        await eventually(broker.get_clients)
        (client,) = broker.get_clients()
        while not broker.get_stats().dropped:
            await client.send("news", "x" * 100_000)
            await asyncio.sleep(0)
        for _ in range(100):
            await client.send("news", "x" * 100_000)
    (line,) = [line for line in said if "reads too slowly" in line]
    assert line.startswith(f"WARNING client {client.id} reads too slowly")
    assert "WS_SEND_QUEUE_SIZE (1000 bytes)" in line
    assert ("is dropped" if slow_client == "drop" else "was closed (1013)") in line


async def test_a_client_that_lets_a_message_with_wait_time_out_is_seen(said: list[str]) -> None:
    broker = Broker(settings())
    async with running(broker, "ours") as address, address.connect(max_queue=1, compression=None, close_timeout=0.1):
        await eventually(broker.get_clients)
        (client,) = broker.get_clients()

        async def send_on_and_on() -> None:
            while True:
                await client.send("news", "x" * 1_000_000, wait=True, timeout=0.1)

        with pytest.raises(ClientTimeout):
            await send_on_and_on()
    (line,) = [line for line in said if "reads too slowly" in line]
    assert "was closed (1013)" in line


@pytest.mark.parametrize("kind", ["ours", "hypercorn"])
async def test_each_limit_is_named_once_a_minute_with_how_often_it_was_reached_since(
    kind: ServerKind, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_message_size": 1000, "max_connections_per_ip": 1, "rate_bytes": 1, "rate_limit": 0}
    broker = Broker(settings(**limits))
    async with running(broker, kind) as address:

        async def reach() -> None:
            async with address.connect() as peer:
                with pytest.raises(InvalidStatus):
                    async with address.connect():
                        pass
                for _ in range(10):
                    await peer.send("say", "x" * 900)
                await peer.ws.send("x" * 2000)
                assert (await peer.closed())[0] == 1009

        for _ in range(3):
            await reach()
            await eventually(lambda: not broker.node.lifecycle.sessions)
        once = [line for line in said if "WS_" in line]
        monkeypatch.setattr("velocity_ws.logs.SECONDS_BETWEEN", 0.0)
        await reach()
        await eventually(lambda: not broker.node.lifecycle.sessions)
    kinds = ("WS_MAX_CONNECTIONS_PER_IP (1) is reached", "was closed (1009)", "too many bytes")
    for what in kinds:
        assert len([line for line in once if what in line]) == 1, once
        assert any(what in line and "times more since this was last said" in line for line in said), said
    assert any(line.endswith("bytes); and 2 times more since this was last said") for line in said)


async def test_a_client_that_is_closed_for_going_on_over_its_limit_is_seen(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.refused.REFUSALS_AT_ONCE", 100)
    # Time stands still: a client is closed for what it sends in a second, and a slow machine sends less.
    broker = Broker(settings(rate_limit=1, rate_burst=1), clock=lambda: 1000.0)
    async with running(broker, "ours") as address, address.connect(max_queue=None) as peer:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1000):
                await peer.send("say")
        assert (await peer.closed())[0] == 1008
    (line,) = [line for line in said if "was closed (1008)" in line]
    assert "too many messages (WS_RATE_LIMIT=1, " in line


async def test_a_client_in_the_place_of_its_id_is_refused_with_what_to_pass() -> None:
    broker = Broker(settings())
    async with running(broker) as address, address.connect():
        await eventually(broker.get_clients)
        client: Any = broker.get_clients()[0]
        calls: dict[str, Callable[[], Any]] = {
            "join_room": lambda: broker.join_room(client, "tea"),
            "leave_room": lambda: broker.leave_room(client, "tea"),
            "disconnect": lambda: broker.disconnect(client),
            "to_client": lambda: broker.to_client(client),
            "except_": lambda: broker.to_all().except_(client),
            "is_connected": lambda: broker.is_connected(client),
            "get_client": lambda: broker.get_client(client),
            "sync.join_room": lambda: asyncio.to_thread(broker.sync.join_room, client, "tea"),
        }
        for name, call in calls.items():
            with pytest.raises(ClientIdError, match=r"takes the client's id, a string: pass client\.id") as caught:
                await call()
            assert str(caught.value).startswith(name.removeprefix("sync.") + "(")
        with pytest.raises(ClientNotFound, match=r"looks otherwise; it is join_room\(client_id, room\)"):
            await broker.join_room("tea", client.id)
        with pytest.raises(InvalidNameError, match="a room is a string"):
            await broker.join_room("tea", client)
        await client.disconnect()
        with pytest.raises(ClientNotFound, match="it may have left"):
            await broker.join_room(client.id, "tea")


def test_two_brokers_at_one_path_are_refused() -> None:
    for first, second in (("/ws", "/ws/"), ("/", "/"), ("/ws/{tenant}", "/ws/{other}/")):
        app = Starlette()
        Broker(settings()).attach(app, first)
        with pytest.raises(InvalidPathError, match=r"attach\(app, path='/internal'\), or register its hooks"):
            Broker(settings(), name="internal").attach(app, second)
        assert len(app.routes) == 1
        Broker(settings(), name="internal").attach(app, "/internal/{number:int}")


async def test_of_two_paths_that_fit_the_one_attached_first_is_served() -> None:
    for paths, wanted in (
        (["/ws/{tenant}", "/ws/admin"], "/ws/{tenant}"),
        (["/ws/admin", "/ws/{tenant}"], "/ws/admin"),
    ):
        app = Starlette()
        for number, path in enumerate(paths):
            broker = Broker(settings(), name=f"n{number}")

            async def greet(client: Client, path: str = path) -> None:
                await client.send("path", path)

            broker.on_connect(greet)
            broker.attach(app, path)
        async with serve(app) as address:
            async with address.connect("/ws/admin") as peer:
                assert await peer.expect("path") == wanted
            async with address.connect("/ws/acme") as peer:
                assert await peer.expect("path") == "/ws/{tenant}"


async def test_a_page_on_another_port_is_told_from_one_behind_a_proxy_and_said_once(said: list[str]) -> None:
    broker = Broker(settings())
    async with running(broker) as address:
        for origin in ["http://localhost:3000"] * 60 + [f"http://localhost:{address.port}", "null"]:
            with pytest.raises(InvalidStatus):
                async with address.connect(origin=origin):
                    pass
    page, twin, hostless = [line for line in said if "because of its origin" in line]
    assert (
        f"a page of 'http://localhost:3000' asked the host '127.0.0.1:{address.port}': that is another origin" in page
    )
    assert "To allow it: WS_ALLOWED_ORIGINS=http://localhost:3000. Where a proxy serves both, it must pass on" in page
    assert f"WS_ALLOWED_ORIGINS=http://localhost:{address.port}" in twin
    assert "proxy" not in hostless.partition("so that a proxy")[0]
    assert broker.get_stats().rejected == 62


async def test_origins_that_strangers_make_up_do_not_fill_memory(said: list[str]) -> None:
    application = WebSocketApp(Broker(settings(allowed_origins="https://app.example.com")))
    async with serve(application) as address:
        for number in range(MAX_ORIGINS + 10):
            with pytest.raises(InvalidStatus):
                async with address.connect("/", origin=f"https://a{number}.example"):
                    pass
    assert len(application._admission._refused_origins) == MAX_ORIGINS
    assert "To allow it: add https://a0.example to WS_ALLOWED_ORIGINS. " in said[0]
    assert len(said) < 40


class Person:
    """A user as many applications have it."""

    def __init__(self, name: str) -> None:
        self.name = name


async def test_a_user_that_has_no_id_is_said_once_for_its_type(said: list[str]) -> None:
    for options in ({}, {"user_id": lambda user: None}, {"user_id": lambda user: user.name}):
        broker = Broker(settings(), **options)
        broker.authenticate(lambda request: Person("ann"))
        async with running(broker) as address:
            for _ in range(3):
                async with address.connect():
                    pass
    (line,) = [line for line in said if "user_id" in line]
    assert line.startswith("WARNING the user of a client, of type Person, has no id, user_id or sub: ")
    assert "Broker(user_id=...)" in line


async def test_that_there_is_a_faster_way_is_said_once_for_a_process(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.hints._said_faster_way", 0)
    for _ in range(2):
        async with running(Broker(settings())) as address, address.connect():
            pass
    (line,) = [line for line in said if "one by one" in line]
    assert (
        "`velocity-ws run` or `velocity-ws dev` (or `uvicorn --ws velocity_ws.uvicorn:WebSocketProtocol --http " in line
    )


async def _ended(*command: str, cwd: Path, **variables: str) -> str:
    """What a program says until it has ended by itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        cwd=cwd,
        env={**clean, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode()


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    port = kept_port()
    program = f"import velocity_ws as v; v.Server(v.Broker(), port={port}).run()"
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        said = await _ended("-c", program, cwd=tmp_path)
    last = said.splitlines()[-1]
    assert last.startswith("OSError: [Errno ")
    assert f"cannot listen on 127.0.0.1:{port}: " in last
    with pytest.raises(OSError, match=r"cannot listen on no-host\.invalid:0: "):
        async with Server(Broker(settings()), host="no-host.invalid", port=0):
            pass


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("is_stopping", [False, True])
async def test_an_embedded_engine_that_ends_is_missed_by_those_who_do_not_end_too(
    is_stopping: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    url = "embedded://first-day"
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.programs.embedded", url, "all"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert owner.stdout is not None
        async with asyncio.timeout(60):
            assert await owner.stdout.readline() == b"connected\n"
        broker = Broker(settings(backplane_url=url))
        async with broker:
            assert broker.healthy
            owner.kill()
            await owner.wait()
            await eventually(lambda: not broker.healthy)
            if is_stopping:
                await broker.stop()
                await asyncio.sleep(1.2 * GRACE)  # for as long as it would have been told
            else:
                await eventually(lambda: any("no connection to the engine" in line for line in said))
    finally:
        if owner.returncode is None:
            owner.kill()
            await owner.wait()
    lines = [line for line in said if "no connection to the engine" in line]
    if is_stopping:
        assert lines == []
    else:
        assert lines[0].startswith("WARNING there is no connection to the engine embedded://first-day (")


async def test_the_engine_is_named_without_its_password(said: list[str]) -> None:
    url = f"nats://ann:s3cret@127.0.0.1:{kept_port()}"
    async with Broker(settings(backplane_url=url, backplane_timeout=0.1)):
        await eventually(lambda: any("no connection to the engine" in line for line in said))
    assert any(f"no connection to the engine nats://127.0.0.1:{url.rpartition(':')[2]} (" in line for line in said)
    assert "s3cret" not in "".join(said)
