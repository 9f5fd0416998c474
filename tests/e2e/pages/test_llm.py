"""The page of the chat with a model: tokens as they come, a refresh, a second device, Stop, a killed worker."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio

from examples.llm import app as llm
from examples.llm import model
from examples.llm.__main__ import STORES
from tests.support import Address, serve
from tests.support.client_scripts import PATIENCE
from tests.support.command import kept_port
from tests.support.tabs import Chromium, Tab

# The timeout leaves room for the installation of a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[3]
ARTIFACTS = ROOT / "artifacts"
LAST = "[...document.querySelectorAll('.exchange')].at(-1)"
MARKUP = re.compile(r"```(?:python)?|^#+ |^- |^\d+\. |[*`]|\s", re.MULTILINE)
AT_ONCE = 100_000.0
"""Tokens a second of a model that has no more to think about."""
SLOWLY = 10.0
"""The same of one that writes for long enough, whatever else the machine does meanwhile."""


class Reader:
    """Somebody who looks at a chat; all of it is about the last question there."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    async def ask(self, text: str) -> None:
        """Type a question, and send it."""
        await self.tab.evaluate(
            f"document.getElementById('text').value = {text!r}, document.getElementById('composer').requestSubmit()"
        )

    async def press(self, name: str) -> None:
        """Press a button below the answer."""
        await self.sees(f"{LAST} && !{LAST}.querySelector('.{name}').hidden")
        await self.tab.evaluate(f"{LAST}.querySelector('.{name}').click()")

    async def sees(self, condition: str) -> None:
        """Wait until something is true in the page."""
        await self.tab.evaluate(
            f"(async () => {{ while (!({condition})) await new Promise((resolve) => setTimeout(resolve, 5)); }})()"
        )

    async def sees_state(self, state: str, words: str) -> None:
        """Wait until an answer has ended so."""
        await self.sees(f"{LAST}?.dataset.state === '{state}'")
        assert await self.shown(".state-text") == words

    async def sees_more(self, than: int = 0) -> int:
        """Wait until there is more of the answer than so many characters; how much there is."""
        length = f"{LAST}?.querySelector('.text').textContent.length"
        await self.sees(f"{length} > {than}")
        return int(await self.tab.evaluate(length))

    async def shown(self, selector: str) -> str:
        """What stands in some part of the last exchange, without what is hidden."""
        return str(await self.tab.evaluate(f"{LAST}.querySelector('{selector}').innerText.replace(/ · .*/, '')"))

    async def text(self) -> str:
        """What is shown of the answer, without spaces, and without what may become markup when more comes."""
        shown = re.sub(r"[\s*`]", "", await self.tab.evaluate(f"{LAST}.querySelector('.text').textContent"))
        return re.sub(r"[#\d.-]+$", "", shown)

    async def worker(self) -> int:
        """The process that has the connection."""
        await self.sees("/kill/.test(document.getElementById('worker').textContent)")
        return int(str(await self.tab.evaluate("document.getElementById('worker').textContent")).rpartition(" ")[2])

    async def photograph(self, name: str) -> None:
        ARTIFACTS.mkdir(exist_ok=True)
        picture = await self.tab.call("Page.captureScreenshot")
        (ARTIFACTS / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))


def plain(prompt: str) -> str:
    """All that the model says, as `Reader.text` has it."""
    return re.sub(r"\.$", "", MARKUP.sub("", model.text_of(prompt)))


@pytest_asyncio.fixture(loop_scope="session")
async def address() -> AsyncIterator[Address]:
    async with serve(llm.app, "ours") as address:
        yield address


@asynccontextmanager
async def reader_of(browser: Chromium, address: Address, chat: str) -> AsyncIterator[Reader]:
    """A device of its own."""
    async with browser.profile() as profile:
        reader = Reader(await profile.tab(f"{address.http}/#{chat}"))
        await reader.sees("document.getElementById('status').dataset.status === 'open'")
        yield reader
        assert reader.tab.errors == []
        assert reader.tab.console == []


async def test_tokens_appear_as_they_come_and_the_answer_is_listed_until_it_ends(
    browser: Chromium, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "TOKENS_PER_SECOND", SLOWLY)
    async with reader_of(browser, address, "tokens") as reader:
        await reader.ask("What is a token?")
        length, steps = 0, list[int]()
        while len(steps) < 5:
            length = await reader.sees_more(length)
            steps.append(length)
        assert steps[-1] < len(model.text_of("What is a token?")) / 2
        await reader.sees("document.querySelectorAll('#running li').length === 1")
        assert await reader.shown(".state-text") == "Writing"
        await reader.photograph("llm")
        monkeypatch.setattr(model, "TOKENS_PER_SECOND", AT_ONCE)
        await reader.sees_state("done", "Done")
        assert await reader.text() == plain("What is a token?")
        await reader.sees("document.querySelectorAll('#running li').length === 0")


async def test_a_page_that_is_refreshed_in_the_middle_has_what_there_was_and_ends_with_all_of_it(
    browser: Chromium, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reader_of(browser, address, "refresh") as reader:
        await reader.ask("Do you know `code` and <b>html</b>?")
        for more in (20, 60, 100):
            await reader.sees_more(more)
            before = await reader.text()
            await reader.tab.reload()
            await reader.sees_more()
            assert (await reader.text()).startswith(before)
        assert (await reader.shown(".question")).endswith("\nDo you know `code` and <b>html</b>?")
        monkeypatch.setattr(model, "TOKENS_PER_SECOND", AT_ONCE)
        await reader.sees_state("done", "Done")
        assert await reader.text() == plain("Do you know `code` and <b>html</b>?")


async def test_a_second_device_sees_the_same_and_stops_it_on_both(
    browser: Chromium, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "TOKENS_PER_SECOND", SLOWLY)
    async with reader_of(browser, address, "devices") as one, reader_of(browser, address, "devices") as other:
        await one.ask("How many are we?")
        await one.sees_more(10)
        await other.sees_more(10)
        assert (await other.shown(".question")).endswith("\nHow many are we?")
        await other.press("stop")
        for reader in (one, other):
            await reader.sees_state("cancelled", "Stopped")
        assert await one.text() == await other.text() == plain("How many are we?")[: len(await one.text())]
        async with reader_of(browser, address, "devices") as late:
            await late.sees_state("cancelled", "Stopped")
            assert await late.text() == await one.text()


async def test_another_answer_has_another_id_and_the_first_one_stays(
    browser: Chromium, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reader_of(browser, address, "again") as one, reader_of(browser, address, "again") as other:
        await one.ask("Please fail in the middle")
        for reader in (one, other):
            await reader.sees_state("error", "Failed: the model raised an error")
        failed = await one.text()
        assert plain("Please fail in the middle").startswith(failed)
        monkeypatch.setattr(model, "fake", lambda prompt: spoken("This", " time", " it", " works."))
        await one.press("again")
        for reader in (one, other):
            await reader.sees_state("done", "Done")
            assert await reader.text() == "Thistimeitworks"
            assert await reader.shown(".version") == "2 / 2"
        await other.press("previous")
        await other.sees_state("error", "Failed: the model raised an error")
        assert await other.text() == failed
        assert await one.shown(".version") == "2 / 2"


async def spoken(*tokens: str) -> AsyncIterator[str]:
    for token in tokens:
        yield token


async def test_on_a_phone_in_the_dark_everything_fits_and_every_button_has_a_name(
    browser: Chromium, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "TOKENS_PER_SECOND", AT_ONCE)
    async with reader_of(browser, address, "phone") as reader:
        phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        await reader.tab.call("Emulation.setDeviceMetricsOverride", **phone)
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        await reader.tab.call("Emulation.setEmulatedMedia", features=dark)
        await reader.sees("!document.getElementById('welcome').hidden")
        await reader.tab.evaluate("document.querySelector('.suggestions button').click()")
        await reader.sees_state("done", "Done")
        await reader.ask("x" * 300)
        await reader.sees_state("done", "Done")
        await reader.photograph("llm-phone")
        log = "document.getElementById('log')"
        assert await reader.tab.evaluate(f"{log}.scrollWidth <= {log}.clientWidth")
        assert await reader.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await reader.tab.evaluate("document.scrollingElement.scrollHeight <= innerHeight")
        nameless = (
            "[...document.querySelectorAll('button')].filter((b) => !(b.ariaLabel ?? b.textContent).trim()).length"
        )
        assert await reader.tab.evaluate(nameless) == 0


async def test_an_answer_whose_worker_is_killed_is_lost_and_is_written_anew(browser: Chromium, tmp_path: Path) -> None:
    async with two_workers(tmp_path) as address, reader_of(browser, address, "killed") as reader:
        await reader.ask("Are you mortal?")
        await reader.sees_more(50)
        worker = await reader.worker()
        os.kill(worker, signal.SIGKILL)
        await reader.sees_state("lost", "Lost: the worker that wrote it has died")
        rest = await reader.text()
        assert plain("Are you mortal?").startswith(rest)
        assert await reader.worker() != worker
        await reader.press("again")
        await reader.sees_state("done", "Done")
        assert await reader.text() == plain("Are you mortal?")
        await reader.press("previous")
        await reader.sees_state("lost", "Lost: the worker that wrote it has died")
        assert await reader.text() == rest


@asynccontextmanager
async def two_workers(directory: Path) -> AsyncIterator[Address]:
    """What `make llm` runs."""
    address = Address(kept_port())
    inherited: dict[str, Any] = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "examples.llm"),
            cwd=ROOT,
            env={**inherited, "WS_PORT": str(address.port), "XDG_RUNTIME_DIR": str(directory)},
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=address.http) as http, asyncio.timeout(2 * PATIENCE):
            while not await is_ready(http):
                assert process.returncode is None, (directory / "log").read_text()
                await asyncio.sleep(0.05)  # nobody listens yet
        yield address
    finally:
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0, (directory / "log").read_text()
        shutil.rmtree(STORES / f"llm-{address.port}")
    assert "Traceback" not in (directory / "log").read_text()


async def is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/ws/health")).status_code == 200
    except httpx.TransportError:
        return False
