"""The package of npm: what is in it, and what programs in Node and bundlers make of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from npm.__main__ import check, pack, version_of_npm, write_package
from tests.support import DEADLINE, running, settings
from tests.support.command import kept_port
from tests.support.node_tools import find_node, node_environment
from velocity_ws import Broker, Client, __version__
from velocity_ws.asgi.browser_files import BROWSER_FILES, read_browser_file

pytestmark = pytest.mark.timeout(300)  # for what npm brings


async def node(project: Path, *arguments: str) -> Any:
    """What a program says, which ends by itself and complains of nothing."""
    process = await asyncio.create_subprocess_exec(
        find_node(), *arguments, cwd=project, env=node_environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(2 * DEADLINE):
            output, complaints = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert (process.returncode, complaints.decode()) == (0, "")
    return output.decode()


def bundled(project: Path, name: str, kind: str) -> Path:
    """A program and all that it imports, as esbuild writes it in one file."""
    into = project / f"{name}.{kind}.{'cjs' if kind == 'cjs' else 'mjs'}"
    command = [
        *("node_modules/esbuild/bin/esbuild", f"node/{name}.mjs", "--bundle", "--minify", "--log-level=error"),
        *("--platform=node", f"--format={kind}", f"--outfile={into}"),
    ]
    if kind == "esm":  # what ws asks for is CommonJS
        require = 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);'
        command.append(f"--banner:js={require}")
    subprocess.run(command, cwd=project, env=node_environment(), check=True)
    return into


def chat() -> Broker:
    """A broker with a room for everybody, and what a program asks for."""
    broker = Broker(settings())
    rooms = broker.rooms("{name}")
    rooms.authorize(lambda name: True)

    broker.on("double")(lambda client, data: 2 * data)
    broker.on("ask")(lambda client: client.ask("confirm", 3))
    broker.on("restart")(lambda client: client.disconnect(1012, "restarting, retry_after=0.01"))

    @broker.on_binary
    async def turn_round(client: Client, data: bytes) -> None:
        await client.send_bytes(data[::-1])

    @broker.on("say")
    async def say(client: Client, data: str) -> None:
        await broker.to_rooms(client.rooms).send("said", data)

    return broker


def test_the_tarball_has_the_files_that_the_endpoint_serves_and_what_npm_needs(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        members = {member.name.removeprefix("package/"): member for member in archive.getmembers()}
        assert set(members) == {*BROWSER_FILES, "package.json", "README.md", "LICENSE"}
        content = {name: file.read() for name, member in members.items() if (file := archive.extractfile(member))}
    for name in BROWSER_FILES:
        assert content[name] == read_browser_file(name).content
    declared = json.loads(content["package.json"])
    assert (declared["name"], declared["version"], declared["license"]) == ("velocity-ws", __version__, "MIT")
    assert (declared["sideEffects"], declared["type"], "dependencies" in declared) == (False, "module", False)
    assert f'version = "{__version__}"' in content["velocity.js"].decode()


def test_a_version_is_written_as_npm_does() -> None:
    assert [version_of_npm(each) for each in ("1.2.3", "1.2.3a1", "1.2.3b10", "1.2.3rc2")] == [
        "1.2.3", "1.2.3-alpha.1", "1.2.3-beta.10", "1.2.3-rc.2",
    ]  # fmt: skip
    for odd in ("1.2", "1.2.3.dev1", "1.2.3+local"):
        with pytest.raises(ValueError, match="npm has no version like"):
            version_of_npm(odd)


@pytest.mark.soak  # what the checkers need is large
def test_the_checkers_find_nothing_wrong_but_with_a_package_that_is(tarball: Path, tmp_path: Path) -> None:
    assert check(tarball) == ""
    write_package(tmp_path / "npm")
    declared = tmp_path / "npm" / "package.json"
    declared.write_text(declared.read_text().replace("./react.d.ts", "./reactive.d.ts"))
    said = check(pack(tmp_path / "npm", tmp_path))
    assert "publint" in said
    assert "@arethetypeswrong/cli" in said


@pytest.mark.parametrize("kind", ["installed", "esm", "cjs"])
async def test_a_program_in_node_is_a_client_with_the_sockets_of_ws(project: Path, kind: str) -> None:
    program = "node/client.mjs" if kind == "installed" else str(bundled(project, "client", kind))
    async with running(chat(), "ours") as address:
        said = json.loads(await node(project, program, f"{address.ws}/ws"))
    assert said == {
        "joined": {"room": "tea"}, "doubled": 42, "confirmed": 4, "reversed": [2, 1],
        "said": ["hello", "tea"], "rooms": ["tea"],
    }  # fmt: skip


@pytest.mark.parametrize("sockets", ["undici", "undici6"])
async def test_an_attempt_that_fails_is_not_the_last(project: Path, sockets: str) -> None:
    """With the sockets of Node 24.0 and 20, which tell that by 1002, or by no close at all."""
    async with running(chat(), "ours") as address:
        program = ("node/attempts.mjs", sockets, f"ws://127.0.0.1:{kept_port()}/ws", f"{address.ws}/ws")
        said = json.loads(await node(project, *program))
    assert said == {"doubled": 42, "statuses": ["waiting 1006", "connecting", "open", "closed 1000"]}


@pytest.mark.parametrize("kind", ["installed", "cjs"])
async def test_where_nobody_can_know_the_server_the_error_says_what_to_give(project: Path, kind: str) -> None:
    program = "node/lost.mjs" if kind == "installed" else str(bundled(project, "lost", kind))
    said = json.loads(await node(project, program))
    assert said["nowhere"].startswith("TypeError: velocity: this module does not come from the server: say where")
    assert 'connect("/ws")' in said["nowhere"]
    assert said["noSocket"].startswith("TypeError: velocity: there is no WebSocket here")


async def test_on_a_server_react_renders_and_opens_nothing(project: Path) -> None:
    said = json.loads(await node(project, "node/server.mjs"))
    assert said["html"] == "<p>null connecting joining idle undefined [nullundefined]</p>"
    assert 'useVelocity("/ws")' in said["alone"]
    assert '<VelocityProvider url="/ws">' in said["room"]


async def test_a_bundle_has_only_what_it_uses(project: Path) -> None:
    small = bundled(project, "small", "esm")
    assert (await node(project, str(small))).split() == ["true", "false"]
    assert small.stat().st_size < 500
