"""``velocity-ws run``: an application served by a command, with one worker and with several."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # it has no types
import pytest
from click.testing import CliRunner
from websockets.asyncio.client import ClientConnection

from tests.support.command import ROOT, Served
from velocity_ws.cli import main

APP = "tests.programs.options:app"
UPPER = 60.0
"""Seconds that what takes several interpreters to start may take, on a machine that is busy otherwise."""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` of the developer's and no engine of another test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("WS_ALLOWED_ORIGINS", "*")
    monkeypatch.setenv("WS_PORT", "0")
    monkeypatch.chdir(tmp_path)


async def start(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    """Start the command."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "velocity_ws", *arguments),
        env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def ends(*arguments: str, **variables: str) -> tuple[int | None, str]:
    """Run the command; its status and what it says."""
    process = await start(*arguments, **variables)
    try:
        async with asyncio.timeout(UPPER):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, (out + err).decode()


@contextlib.asynccontextmanager
async def run(*options: str, app: str = APP, workers: int = 1, **variables: str) -> AsyncIterator[Served]:
    """Serve by ``velocity-ws run``."""
    served = Served(await start("run", app, "--workers", str(workers), "--app-dir", str(ROOT), *options, **variables))
    try:
        await served.listens(workers, UPPER)
        yield served
    finally:
        if served.process.returncode is None:
            for process in psutil.Process(served.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            served.process.kill()
            await served.process.wait()
        await served.drain()


async def says(client: ClientConnection) -> Any:
    """The next message."""
    async with asyncio.timeout(UPPER):
        return json.loads(await client.recv())


async def hears(client: ClientConnection, event: str) -> None:
    """Wait for such a message, after others, such as that there was a gap."""
    while json.loads(await client.recv())["event"] != event:
        pass


async def asks(client: ClientConnection) -> Any:
    """What serves it, as it is told."""
    await client.send('{"event": "who", "id": 1}')
    return (await says(client))["data"]


async def close_code(client: ClientConnection) -> int | None:
    """The code it is closed with."""
    async with asyncio.timeout(UPPER):
        await client.wait_closed()
    return client.close_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_with_our_classes_and_drains(number: signal.Signals) -> None:
    async with run() as served:
        async with served.connect("/ws") as client:
            found = await asks(client)
            assert found["is ours"]
            assert found["pid"] == served.process.pid
            assert (await served.get())[0] == 200
            served.process.send_signal(number)
            assert await close_code(client) == 1012
        await served.ended()
        assert served.process.returncode == 0
        await served.drain()
        assert "Traceback" not in "".join(served.log)
        assert "embedded" not in "".join(served.log)


async def test_host_and_port_are_the_settings_unless_given() -> None:
    async with run(WS_HOST="127.0.0.2") as served:
        assert served.connect("/ws").uri == f"ws://127.0.0.1:{served.port}/ws"
        async with served.connect("/ws", host="127.0.0.2") as client:
            assert (await asks(client))["server"][0] == "127.0.0.2"
    async with run("--host", "127.0.0.1", "--port", "0", WS_HOST="127.0.0.2", WS_PORT="1") as served:
        async with served.connect("/ws") as client:
            assert (await asks(client))["server"] == ["127.0.0.1", served.port]


async def test_further_options_are_uvicorns() -> None:
    async with run("--loop", "asyncio", "--", "--root-path", "/there") as served:
        async with served.connect("/ws") as client:
            found = await asks(client)
            assert (found["loop"], found["root_path"]) == ("asyncio", "/there")
    status, said = await ends("run", APP, "--no-such-option")
    assert status == 2
    assert "--no-such-option" in said


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_is_none_is_refused_in_a_line(port: str) -> None:
    result = CliRunner().invoke(main, ["run", APP, "--port", port])
    assert result.exit_code == 2
    assert f"'--port': {port} is not in the range 0<=x<=65535" in result.output


async def test_an_option_that_clients_of_a_broker_do_not_follow_is_said_with_the_setting_that_they_do() -> None:
    options = ("--ws-max-size", "100", "--ws-ping-timeout", "20", "--ws-per-message-deflate", "true")
    async with run(*options, "--ws-ping-interval", "7") as served:
        for _ in range(2):
            async with served.connect("/ws") as client:
                assert await asks(client)
        await served.stop()
    lines = [line for line in "".join(served.log).splitlines() if "not for the clients" in line]
    assert [line.partition(":")[2].strip() for line in lines] == [
        "--ws-max-size 100 is not for the clients of a broker, for whom WS_MAX_MESSAGE_SIZE (524288) counts: set that",
        "--ws-ping-interval 7.0 is not for the clients of a broker, for whom WS_PING_INTERVAL (30.0) counts: set that",
    ]


async def test_workers_reach_each_other_by_an_engine_of_their_own() -> None:
    async with run(workers=2) as served, contextlib.AsyncExitStack() as stack:
        (line,) = [line for line in served.log if "WS_BACKPLANE_URL=" in line]
        url = line.partition("WS_BACKPLANE_URL=")[2].strip()
        assert url.startswith("embedded://tests-programs-options-app-")
        clients: dict[int, ClientConnection] = {}
        async with asyncio.timeout(UPPER):
            while len(clients) < 2:  # the system says who takes a connection
                client = await stack.enter_async_context(served.connect("/ws"))
                found = await asks(client)
                assert found["is ours"]
                clients.setdefault(found["pid"], client)
        assert served.process.pid not in clients
        assert await ends("send", "--event", "news", "--data", "1", "--url", url) == (0, "")
        for client in clients.values():
            assert await says(client) == {"event": "news", "data": 1}
        served.process.send_signal(signal.SIGTERM)
        for client in clients.values():
            assert await close_code(client) == 1012
        await served.ended()
        assert served.process.returncode == 0
        await served.drain()
        assert "Traceback" not in "".join(served.log)
        assert "no connection to the engine" not in "".join(served.log)


async def test_the_endpoints_of_one_application_are_apart_on_the_engine_of_its_workers() -> None:
    app = "tests.programs.two_endpoints:app"
    async with run(app=app, workers=2, INTERNAL="internal") as served, contextlib.AsyncExitStack() as stack:
        found: dict[str, dict[int, ClientConnection]] = {"/ws": {}, "/internal": {}}
        async with asyncio.timeout(UPPER):
            for path, clients in found.items():
                while len(clients) < 2:
                    with contextlib.suppress(ConnectionRefusedError):  # a worker listens after it has said so
                        client = await stack.enter_async_context(served.connect(path))
                        clients[await asks(client)] = client
        strangers, friends = found["/ws"], found["/internal"]
        assert strangers.keys() == friends.keys()
        await next(iter(friends.values())).send('{"event": "tell", "data": "s3cret"}')
        for friend in friends.values():
            assert await says(friend) == {"event": "secret", "data": "s3cret"}
        for stranger in strangers.values():
            assert await says(stranger) == {"event": "news", "data": None}  # and nothing before it
        await served.stop()


async def test_workers_on_two_unix_sockets_are_two_clusters(tmp_path: Path) -> None:
    urls = set()
    for name in ("a.sock", "b.sock"):
        said = (await ends("run", "nowhere:app", "--workers", "2", "--uds", str(tmp_path / name), WS_PORT="6001"))[1]
        urls |= {line for line in said.splitlines() if "WS_BACKPLANE_URL=" in line}
    assert len(urls) == 2


@pytest.mark.parametrize("app", ["app", "wrapped"])
async def test_two_endpoints_without_names_do_not_start_as_one(app: str) -> None:
    app = f"tests.programs.two_endpoints:{app}"
    status, said = await ends("run", app, "--app-dir", str(ROOT), INTERNAL="main", WS_BACKPLANE_URL="embedded://")
    assert status == 3
    assert "Broker(name='internal')" in said


async def test_the_worker_that_runs_the_engine_may_die(tmp_path: Path) -> None:
    async with run(workers=2) as served, contextlib.AsyncExitStack() as stack:
        (told,) = (tmp_path / "velocity-ws").glob("*.json")
        runs_it = psutil.Process(json.loads(told.read_text())["pid"]).ppid()
        async with asyncio.timeout(UPPER):
            while True:
                client = await stack.enter_async_context(served.connect("/ws"))
                if (await asks(client))["pid"] != runs_it:
                    break
        os.kill(runs_it, signal.SIGKILL)
        heard = asyncio.create_task(hears(client, "news"))  # whoever was not connected there stays connected
        async with asyncio.timeout(UPPER):
            while not heard.done():  # what is sent while there is no engine, or before the worker is back, is lost
                await ends("send", "--event", "news", "--url", f"embedded://{told.stem}")
        await heard
        await served.stop()
        assert served.process.returncode == 0


@pytest.mark.parametrize("where", ["variable", ".env", "env file"])
async def test_an_engine_that_is_set_is_used(tmp_path: Path, where: str) -> None:
    (tmp_path / {".env": ".env"}.get(where, "other.env")).write_text("WS_BACKPLANE_URL=memory://some\n")
    variables = {"WS_BACKPLANE_URL": "memory://some"} if where == "variable" else {}
    options = ("--env-file", "other.env") if where == "env file" else ()
    status, said = await ends("run", "nowhere:app", "--workers", "2", *options, **variables)
    assert status == 3
    assert "embedded://" not in said


@pytest.mark.parametrize(
    ("app", "workers", "why"),
    [
        ("nowhere:app", "1", 'Could not import module "nowhere"'),
        ("json:nothing", "1", 'Attribute "nothing" not found in module "json"'),
        ("json", "1", 'must be in format "<module>:<attribute>"'),
        ("json:nothing", "2", 'Attribute "nothing" not found in module "json"'),
    ],
)
async def test_what_is_no_application_is_said(app: str, workers: str, why: str) -> None:
    status, said = await ends("run", app, "--workers", workers)
    assert status == 3
    assert why in said
    assert "Traceback" not in said


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_an_application_that_does_not_start_is_a_failure(tmp_path: Path, workers: str) -> None:
    (tmp_path / "fails.py").write_text("async def app(scope, receive, send):\n    raise OSError('no database')\n")
    status, said = await ends("run", "fails:app", "--workers", workers, "--lifespan", "on")
    assert status == 3
    assert "no database" in said


async def test_told_to_end_while_it_imports_the_application_it_does(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('importing')\ntime.sleep(60)\n")
    process = await start("run", "slow:app")
    assert process.stdout is not None
    async with asyncio.timeout(UPPER):
        assert await process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_unusable_settings_are_said() -> None:
    status, said = await ends("run", APP, WS_PORT="many")
    assert status == 1
    assert "WS_PORT" in said
    assert "Traceback" not in said


def test_without_the_embedded_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.backplane.embedded.backplane.program", lambda: None)
    monkeypatch.delenv("WS_BACKPLANE_URL", raising=False)
    result = CliRunner().invoke(main, ["run", APP, "--workers", "2"])
    assert result.exit_code == 1
    assert "pip install 'velocity-ws[embedded]'" in result.output


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_without_what_the_engine_needs_it_ends_with_one_line_before_it_starts(
    workers: str, tmp_path: Path
) -> None:
    (tmp_path / "nats.py").write_text("raise ModuleNotFoundError('No module named nats', name='nats')")
    variables = {"WS_BACKPLANE_URL": "nats://u:s3cret@127.0.0.1:1", "PYTHONPATH": str(tmp_path)}
    status, said = await ends("run", APP, "--app-dir", str(ROOT), "--workers", workers, **variables)
    assert status == 1
    assert said == (
        "Error: unusable settings:\n  WS_BACKPLANE_URL: nats is not installed; pip install 'velocity-ws[nats]'\n"
    )
