"""``velocity-ws run`` and ``dev`` find the application as ``fastapi run`` and ``dev`` do, and serve it as ours."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from uvicorn.main import main as uvicorn_command
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.support.command import kept_port, serving_folder
from tests.support.console import UPPER
from velocity_ws.cli import discovery, main

FASTAPI = "from fastapi import FastAPI\n"
PLAIN = FASTAPI + "app = FastAPI()\n"
ENTRY = "[tool.fastapi]\nentrypoint = 'x:app'"
Files = dict[str, str]
CASES: list[tuple[Files, str, str, str]] = [
    ({"main.py": PLAIN, "app.py": PLAIN, "api.py": PLAIN, "app/main.py": PLAIN}, "", "", "main:app"),
    ({"api.py": PLAIN, "app.py": PLAIN}, "", "", "app:app"),
    ({"api.py": PLAIN, "app/main.py": PLAIN}, "", "", "api:app"),
    ({"app/main.py": PLAIN}, "", "", "main:app"),
    ({"app/__init__.py": "", "app/main.py": PLAIN, "app/api.py": PLAIN}, "", "", "app.main:app"),
    ({"other.py": PLAIN}, "other.py", "", "other:app"),
    ({"a/__init__.py": "", "a/b/__init__.py": "", "a/b/c.py": PLAIN}, "a/b/c.py", "", "a.b.c:app"),
    ({"a/__init__.py": PLAIN}, "a", "", "a:app"),
    ({"a/__init__.py": PLAIN}, "a/__init__.py", "", "a:app"),
    ({"x.py": FASTAPI + "zulu = FastAPI()\napi = FastAPI()\n"}, "x.py", "", "x:api"),
    ({"x.py": FASTAPI + "zulu = FastAPI()\nalpha = FastAPI()\n"}, "x.py", "", "x:alpha"),
    ({"x.py": FASTAPI + "app = 'a string'\nother = FastAPI()\n"}, "x.py", "", "x:other"),
    ({"x.py": FASTAPI + "app = api = FastAPI\nother = FastAPI()\n"}, "x.py", "", "x:other"),
    ({"x.py": FASTAPI + "def app(x): pass\nother = FastAPI()\n"}, "x.py", "", "x:other"),
    ({"x.py": PLAIN + "other = FastAPI()\n"}, "x.py", "other", "x:other"),
    ({"x.py": "from starlette.applications import Starlette\nsite = Starlette()\n"}, "x.py", "", "x:site"),
    (
        {"x.py": f"from velocity_ws import *\n{FASTAPI}a = FastAPI()\napp = WebSocketMiddleware(a, Broker())\n"},
        *("x.py", "", "x:app"),
    ),
    ({"x.py": "async def app(scope, receive, send): pass\n"}, "x.py", "", "x:app"),
    (
        {"main.py": PLAIN, "pyproject.toml": ENTRY},
        "m:n",
        "",
        "m:n",
    ),
    ({"main.py": PLAIN, "x.py": PLAIN, "pyproject.toml": ENTRY}, "", "", "x:app"),
    (
        {"main.py": PLAIN, "x.py": PLAIN, "pyproject.toml": ENTRY},
        "main.py",
        "",
        "main:app",
    ),
    ({"main.py": PLAIN, "pyproject.toml": "[project]\nname = 'x'"}, "", "", "main:app"),
    ({}, "", "", "NotFound there is none of main.py"),
    ({"main.py": PLAIN}, "nowhere.py", "", 'NotFound no file or folder is called "nowhere.py"'),
    ({"x.py": "app = 1"}, "x.py", "", "NotFound x has no application called app or api, nor one of FastAPI"),
    ({"x.py": PLAIN}, "x.py", "nope", "NotFound x has no nope"),
    ({"v1.2.py": PLAIN}, "v1.2.py", "", "NotFound No module named 'v1'"),
    ({"main.py": PLAIN, "pyproject.toml": "[tool.fastapi]\nentrypoint = 'x'"}, "", "", "NotFound entrypoint of"),
    ({"main.py": PLAIN, "pyproject.toml": "["}, "", "", "NotFound pyproject.toml cannot be read"),
]


@pytest.mark.parametrize(("files", "target", "name", "found"), CASES)
def test_an_application_is_found_as_fastapis_commands_find_it(
    files: Files, target: str, name: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for module in ("main", "app", "api", "x", "a", "other", "site"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    try:
        said = discovery.find(target or None, name or None)
    except discovery.ApplicationNotFound as error:
        said = f"NotFound {error}"
    finally:
        for module in set(sys.modules) - modules:
            del sys.modules[module]
    assert said == found if not found.startswith("NotFound") else said.startswith(found)


SERVED = """
from fastapi import FastAPI
from velocity_ws import Broker

app = FastAPI()
broker = Broker()
broker.attach(app)

@broker.on("version")
async def version(client):
    return [1, await client.ping() is not None]
"""


async def asks(port: int) -> object:
    """What it answers, once it is there."""
    async with asyncio.timeout(UPPER):
        while True:
            try:
                async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as client:
                    await client.send('{"event": "version", "id": 1}')
                    return json.loads(await client.recv())["data"]
            except (OSError, WebSocketException):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("command", ["run", "dev"])
async def test_it_serves_what_it_found_with_our_classes_and_dev_reloads(command: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SERVED)
    port = kept_port()
    async with serving_folder(tmp_path, command, port, "--loop", "asyncio") as process:
        assert await asks(port) == [1, True]
        if command == "dev":
            async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as page:
                (tmp_path / "main.py").write_text(SERVED.replace("[1,", "[2,"))
                async with asyncio.timeout(UPPER):
                    await page.wait_closed()
                assert page.close_code == 1012
                hint = re.fullmatch(r"restarting, retry_after=(\d+\.\d+)", page.close_reason or "")
                assert hint is not None
                assert float(hint[1]) <= 0.5
            assert await asks(port) == [2, True]
        os.killpg(process.pid, signal.SIGINT)
        async with asyncio.timeout(UPPER):
            assert await process.wait() == 0
        said = (tmp_path / "log").read_text()
        assert "found the application main:app" in said
        assert f"Uvicorn running on http://127.0.0.1:{port}" in said
        assert "Traceback" not in said


def test_dev_listens_on_port_8000_unless_another_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WS_PORT", raising=False)
    monkeypatch.setenv("FASTAPI_ENV", "")
    monkeypatch.setattr(uvicorn_command, "callback", lambda **options: asked.append(options))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for arguments in (
        ["dev", "a:b"],
        ["dev", "a:b", "--port", "1"],
        ["run", "a:b", "--log-level", "info"],
        ["run", "a:b"],
    ):
        assert CliRunner().invoke(main, arguments).exit_code == 0
    monkeypatch.setenv("WS_PORT", "7000")
    assert CliRunner().invoke(main, ["dev", "a:b", "--no-reload", "--ws", "wsproto"]).exit_code == 0
    assert [(one["host"], one["port"], one["reload"]) for one in asked] == [
        ("127.0.0.1", 8000, True),
        ("127.0.0.1", 1, True),
        ("127.0.0.1", 6001, False),
        ("127.0.0.1", 6001, False),
        ("127.0.0.1", 7000, False),
    ]
    assert [one["ws"] for one in asked] == ["velocity_ws.uvicorn:WebSocketProtocol"] * 4 + ["wsproto"]
