"""Commands, containers and units that docs/deployment.md shows, each run as it stands there, by `make proxies`."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import sys
import sysconfig
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support import DEADLINE, Peer, eventually, settings
from tests.support.command import kept_port
from tests.support.debian import find_program
from tests.support.proxies import CONFIGURATIONS, DOCUMENT, named_blocks, replaced, tls_lines

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
START = 60.0
"""Seconds that workers and their engine may take to start, on a machine that does other things."""
GRACE = 1.0
"""Seconds that the page gives a stop beside ``WS_DRAIN_TIMEOUT``."""
STOPS: dict[str, tuple[int, float]] = {
    "velocity-ws": (1012, settings().drain_timeout + GRACE),
    "uvicorn": (1012, settings().drain_timeout + GRACE),
    "gunicorn with uvicorn-worker": (1012, settings().drain_timeout + GRACE),
    "granian": (1006, DEADLINE),
    "gunicorn with its own ASGI worker": (1006, DEADLINE),
}
"""By the command: what clients are closed with, and the seconds until it has ended, at most."""
STARTED = re.compile("startup complete|Started worker|Booting worker")
"""What each of these says of a worker."""
ELSEWHERE = {"nginx, by a Unix socket", "HAProxy, by a Unix socket", "below a path"}
"""Blocks that test_addresses.py and test_collab.py run."""


def test_everything_on_the_page_is_run() -> None:
    here = {*STOPS, "TLS in the server", "Docker", "Kubernetes", "systemd: /etc/systemd/system/app.service"}
    assert {name for name in named_blocks() if not name.startswith("not tried")} == CONFIGURATIONS | ELSEWHERE | here
    assert len(tls_lines()) == 4


@asynccontextmanager
async def started(
    arguments: list[str], folder: Path, port: int, trust: ssl.SSLContext | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command in a folder with the smallest example as ``app.py``, once its application says that it is well."""
    shutil.copy(ROOT / "examples/minimal.py", folder / "app.py")
    (folder / "worker.py").write_text(worker_module())
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    path = os.pathsep.join([str(SCRIPTS), os.environ["PATH"]])
    environment = {**inherited, "PATH": path, "XDG_RUNTIME_DIR": str(folder), "WS_BACKPLANE_URL": "embedded://"}
    scheme = "http" if trust is None else "https"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *arguments, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        async with httpx.AsyncClient(verify=trust or True) as http, asyncio.timeout(START):
            while not await is_well(http, f"{scheme}://127.0.0.1:{port}/ws/health"):
                assert process.returncode is None, (folder / "log").read_text()
                await asyncio.sleep(0.05)  # nobody listens yet
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def is_well(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False


def worker_module() -> str:
    """``worker.py``, as the page has it."""
    (found,) = re.findall(r"```python\n(from uvicorn_worker.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


def command(name: str, port: int) -> list[str]:
    """One of the page's, with two workers and another port."""
    line = named_blocks()[name].splitlines()[1]
    line = re.sub(r"(--port |127\.0\.0\.1:)\d+", rf"\g<1>{port}", line)
    return shlex.split(re.sub(r"(--workers|-w) 4", r"\1 2", line))


def come(port: int) -> connect:
    """A page of that server, which answers pings and reads all the time."""
    origin: Any = f"http://127.0.0.1:{port}"
    return connect(f"ws://127.0.0.1:{port}/ws?room=tea", origin=origin, proxy=None, open_timeout=DEADLINE)


async def says(client: ClientConnection, text: str) -> None:
    await client.send(json.dumps({"event": "chat_message", "data": {"author": "ann", "text": text}}))


async def hears(client: ClientConnection, text: str) -> None:
    """Read until somebody in the room has said that."""
    async with asyncio.timeout(DEADLINE):
        while text not in str(await client.recv()):
            pass


@pytest.mark.proxies
@pytest.mark.parametrize("name", STOPS)
async def test_a_command_serves_its_workers_as_one_and_stops_as_the_page_says(name: str, tmp_path: Path) -> None:
    code, seconds = STOPS[name]
    port = kept_port()
    async with started(command(name, port), tmp_path, port) as process:
        async with come(port) as one, come(port) as two, come(port) as three:
            for each in (one, two, three):
                await says(each, "here")  # which it hears once it is in the room
                await hears(each, "here")
            await says(one, "hello")
            for each in (one, two, three):
                await hears(each, "hello")
            # granian's, which handles no signal before, does not end by one that comes while a worker starts.
            await eventually(lambda: len(STARTED.findall((tmp_path / "log").read_text())) >= 2, within=START)
            before = time.monotonic()
            process.send_signal(signal.SIGTERM)
            for each in (one, two, three):
                got, reason = await Peer(each).closed()
                assert got == code
                assert reason.startswith("restarting, retry_after=" if code == 1012 else "")
            async with asyncio.timeout(seconds):
                await process.wait()
            assert time.monotonic() - before < seconds
    log = (tmp_path / "log").read_text()
    assert "each of 2 worker processes" not in log, log  # they share an engine
    assert "Traceback" not in log or name.startswith("gunicorn with its own"), log


@pytest.mark.proxies
async def test_tls_in_the_server(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "app.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "app.key"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    port = kept_port()
    async with started(command("TLS in the server", port), tmp_path, port, trust):
        url = f"wss://127.0.0.1:{port}/ws"
        origin: Any = f"https://127.0.0.1:{port}"
        async with connect(url, origin=origin, ssl=trust, proxy=None, open_timeout=DEADLINE) as client:
            await client.ping()


@pytest.mark.proxies
async def test_the_dockerfile_is_clean_and_its_commands_serve_in_their_order(tmp_path: Path) -> None:
    text = named_blocks()["Docker"]
    (tmp_path / "Dockerfile").write_text(text)
    linted = await asyncio.create_subprocess_exec(SCRIPTS / "hadolint", tmp_path / "Dockerfile")
    assert await linted.wait() == 0
    steps = [line.split(" ", 1) for line in text.splitlines()[1:]]
    assert [step for step, _ in steps] == ["FROM", "RUN", "USER", "WORKDIR", "RUN", "COPY", "EXPOSE", "CMD"]
    install = steps[4][1]
    # Neither the base image nor a release is to be had here: this Python, and what this repository has.
    here = replaced(install, [("python -m venv", f"{sys.executable} -m venv"), ("'velocity-ws[", f"'{ROOT}[")])
    installed = await asyncio.create_subprocess_exec("sh", "-c", here, cwd=tmp_path)
    async with asyncio.timeout(5 * START):
        assert await installed.wait() == 0
    port = kept_port()
    arguments = [str(port) if each == "8000" else each for each in json.loads(steps[7][1])]
    assert arguments[arguments.index("--host") + 1] == "0.0.0.0"
    arguments[arguments.index("--host") + 1] = "127.0.0.1"
    async with started(arguments, tmp_path, port) as process:
        async with come(port) as client:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await hears(client, "nothing is said")
            assert client.close_code == 1012
        async with asyncio.timeout(settings().drain_timeout + GRACE):
            assert await process.wait() == 0


@pytest.mark.proxies
async def test_the_manifest_is_valid_and_its_times_fit_the_settings() -> None:
    import kubernetes_validate  # what `make proxies` installs
    import yaml

    deployment, service = yaml.safe_load_all(named_blocks()["Kubernetes"])
    for each in (deployment, service):
        kubernetes_validate.validate(each, "1.37", strict=True)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {each["name"].removeprefix("WS_").lower(): each["value"] for each in container["env"]}
    own = settings(**variables)
    assert own.drain_timeout == settings().drain_timeout
    stop = container["lifecycle"]["preStop"]["sleep"]["seconds"] + own.drain_timeout + GRACE
    assert pod["terminationGracePeriodSeconds"] > stop
    (port,) = container["ports"]
    assert str(port["containerPort"]) in container["command"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": f"{own.path}/health", "port": port["name"]}
    assert "httpGet" not in container["livenessProbe"]
    docker = json.loads(named_blocks()["Docker"].splitlines()[-1].removeprefix("CMD "))
    assert [each for each in docker if each not in ("--workers", "4")] == container["command"]


@pytest.mark.proxies
async def test_the_unit_is_valid_and_gives_a_stop_its_time(tmp_path: Path) -> None:
    text = named_blocks()["systemd: /etc/systemd/system/app.service"]
    unit = configparser.ConfigParser()
    unit.read_string(text)
    assert float(unit["Service"]["TimeoutStopSec"]) > settings().drain_timeout + GRACE
    assert int(unit["Service"]["LimitNOFILE"]) > settings().max_connections
    arguments = shlex.split(unit["Service"]["ExecStart"])
    assert arguments[1:] == shlex.split(named_blocks()["velocity-ws"].splitlines()[1])[1:]
    file = tmp_path / "app.service"
    file.write_text(replaced(text, [("/srv/app/.venv/bin/", f"{SCRIPTS}/"), ("User=app", "User=root")]))
    program = find_program("systemd-analyze", package="systemd")
    process = await asyncio.create_subprocess_exec(
        program, "verify", str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert [line for line in said.splitlines() if "app.service" in line] == []
