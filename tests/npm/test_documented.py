"""What docs/browser.md shows does what it says of it: served, in React, in Node."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.async_api import Browser, expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.support import DEADLINE, running, settings
from tests.support.client_scripts import PATIENCE
from tests.support.node_tools import find_node, install, node_environment
from tests.support.pages import blocks
from velocity_ws import Broker, Server, browser_client_path
from velocity_ws.asgi.browser_files import find_browser_file

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

PAGE = "docs/browser.md"
MOUNT = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
createRoot(document.getElementById("root")!).render(<StrictMode><App /></StrictMode>);
"""


OPENED = """async (path) => {
    const ws = (await import(path)).connect();
    return new Promise((resolve) => ws.on("status", (status) => status === "open" && resolve(status)));
}"""


def block(language: str, word: str) -> str:
    """The one block on the page that has a word in it."""
    (found,) = [each.source for each in blocks(PAGE, language) if word in each.source]
    return found


def compiled(project: Path, name: str, source: str, *options: str, place: Path | None = None) -> str:
    """A block as esbuild writes it, with all that it imports and that is not left out."""
    place = place or project
    (place / name).write_text(source)
    command = [str(project / "node_modules/esbuild/bin/esbuild"), name, *options]
    command += ["--bundle", "--jsx=automatic", "--log-level=error"]
    done = subprocess.run(command, cwd=place, env=node_environment(), check=True, capture_output=True, text=True)
    return done.stdout


def open_broker() -> Broker:
    broker = Broker(settings(drain_timeout=0.2))
    rooms = broker.rooms("{name}")
    rooms.authorize(lambda name: True)

    @rooms.on("said")
    async def said(data: dict[str, str], name: str) -> None:
        await broker.to_room(name).send("said", data)

    @broker.on("double")
    async def double(data: int) -> int:
        return 2 * data

    @broker.on("chat_message")
    async def chat(data: dict[str, str]) -> None:
        await broker.broadcast("chat_message", data)

    return broker


@pytest.fixture
def oldest(project: Path, tmp_path: Path) -> Path:
    """A project with the oldest React that the package takes."""
    modules = install(Path(__file__).parent / "react18")
    shutil.copytree(modules, tmp_path / "node_modules")
    shutil.copytree(project / "node_modules/velocity-ws", tmp_path / "node_modules/velocity-ws")
    return tmp_path


@pytest.mark.parametrize("react", [18, 19])
async def test_pages_as_it_shows_them_connect_and_hear_what_is_said(
    browser: Browser, project: Path, oldest: Path, react: int
) -> None:
    place = {18: oldest, 19: project}[react]
    bundle = compiled(project, "shown.tsx", block("tsx", "VelocityProvider") + MOUNT, place=place)
    assert f'version = "{react}.' in bundle or f'Version = "{react}.' in bundle
    pages = {"/": block("html", "velocity.js"), "/react": '<div id="root"></div><script src="/bundle.js"></script>'}
    routes = [Route(path, lambda request: HTMLResponse(pages[request.url.path])) for path in pages]
    routes.append(Route("/bundle.js", lambda request: Response(bundle, media_type="text/javascript")))
    expect.set_options(timeout=PATIENCE * 1000)
    async with Server(open_broker(), Starlette(routes=routes), port=0) as server:
        context = await browser.new_context()
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(error.message))
        await page.goto(f"http://127.0.0.1:{server.port}/")
        await expect(page).to_have_title("open")
        assert (
            await page.evaluate(OPENED, browser_client_path()) == "open"
        )  # by its other name it finds the server, too
        async with page.expect_console_message() as heard:
            await page.add_script_tag(content=block("js", "new WebSocket"))
        assert await (await heard.value).args[0].json_value() == {
            "event": "chat_message", "data": {"author": "ann", "text": "hello"},
        }  # fmt: skip
        await page.goto(f"http://127.0.0.1:{server.port}/react")
        await expect(page.locator("p")).to_have_text("open")
        await page.get_by_role("button").click()
        await expect(page.locator("li")).to_have_text(["hello"])
        await context.close()
        assert errors == []


async def test_its_test_in_node_passes(project: Path) -> None:
    options = ("--platform=node", "--format=esm", "--packages=external")
    (project / "shown.test.mjs").write_text(compiled(project, "shown.test.ts", block("ts", "node:test"), *options))
    async with running(open_broker(), "ours") as address:
        process = await asyncio.create_subprocess_exec(
            find_node(), "--test", "shown.test.mjs",
            cwd=project, env={**node_environment(), "SERVER": f"{address.ws}/ws"}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(2 * DEADLINE):
            output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert "pass 1" in output


async def test_templates_get_the_name_with_the_fingerprint() -> None:
    templates = SimpleNamespace(env=SimpleNamespace(globals={}))
    exec(block("python", "browser_client_path"), {"templates": templates})
    found = find_browser_file(templates.env.globals["velocity_js"].removeprefix("/ws/"))
    assert found is not None
    assert found[1], json.dumps(templates.env.globals)
