"""The first app of the documentation, step by step, in a real Chromium, in a folder as somebody who reads it has it."""

from __future__ import annotations

import runpy
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Dialog, Page, expect
from starlette.types import ASGIApp

from tests.support import DEADLINE, Address, serve
from tests.support.pages import blocks

PAGE = "docs/first-app.md"
SERVER, LOGIN, ROOMS, TEST = (block.source for block in blocks(PAGE, "python"))
FIRST_PAGE, LAST_PAGE = (block.source for block in blocks(PAGE, "html"))


def write(folder: Path, app: str, page: str) -> Any:
    """Write the files of a step; the names of its `app.py`."""
    (folder / "app.py").write_text(app, encoding="utf-8")
    (folder / "page.html").write_text(page, encoding="utf-8")
    return runpy.run_path(str(folder / "app.py"), run_name="app")


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[Address]:
    async with serve(app, "ours") as server:
        yield server


async def visit(browser: Browser, server: Address, name: str = "", hash: str = "") -> Page:
    """The page in a browser of its own, whose user answers what it asks for."""
    page = await (await browser.new_context()).new_page()
    answers = iter([name, "secret"])

    async def answer(dialog: Dialog) -> None:
        await dialog.accept(next(answers))

    page.on("dialog", answer)
    await page.goto(f"{server.http}/{hash}")
    await expect(page.locator("#status")).to_have_text("open", timeout=DEADLINE * 1000)
    return page


async def say(page: Page, text: str) -> None:
    await page.fill("#text", text)
    await page.press("#text", "Enter")


@pytest.mark.asyncio(loop_scope="session")
async def test_every_step_does_what_it_says(browser: Browser, tmp_path: Path) -> None:
    expect.set_options(timeout=DEADLINE * 1000)
    async with served(write(tmp_path, SERVER, FIRST_PAGE)["app"]) as server:
        pages = [await visit(browser, server) for _ in range(2)]
        await say(pages[0], "hello")
        for page in pages:
            await expect(page.locator("#list li")).to_have_text(["hello"])
    async with served(write(tmp_path, f"{SERVER}\n\n{LOGIN}", FIRST_PAGE)["app"]) as server:
        page = await browser.new_page()
        await page.goto(server.http)
        await expect(page.locator("#status")).to_have_text("closed")
    async with served(write(tmp_path, f"{SERVER}\n\n{LOGIN}\n\n{ROOMS}", LAST_PAGE)["app"]) as server:
        ann, bob = [await visit(browser, server, name) for name in ("ann", "bob")]
        for page in (ann, bob):
            await expect(page.locator("#people")).to_have_text("ann, bob")
        await say(ann, "hello")
        await say(bob, "hi")
        for page in (ann, bob):
            await expect(page.locator("#list li")).to_have_text(["ann: hello", "bob: hi"])
        stranger = await visit(browser, server, "bob", "#milk")
        await expect(stranger.locator("#list li")).to_have_text(["room:milk: FORBIDDEN"])


def test_its_own_test_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, f"{SERVER}\n\n{LOGIN}\n\n{ROOMS}", LAST_PAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {}
    exec(compile(TEST, "test_app.py", "exec", dont_inherit=True), names)
    names["test_bob_hears_ann_in_her_room"]()
    del sys.modules["app"]
