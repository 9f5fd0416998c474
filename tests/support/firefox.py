"""A Firefox, driven by WebDriver BiDi; knows nothing of what it is driven for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.client_scripts import PATIENCE, script_of
from tests.support.debian import find_program
from tests.support.remote import START, Remote, RemoteError, remote

__all__ = ["Firefox", "FirefoxTab", "firefox"]


class FirefoxTab:
    """A tab, as `tests.support.client_scripts.Page` says.

    Attributes:
        module: where the client is that its scripts get.
    """

    module = "/ws/velocity.js"

    def __init__(self, remote: Remote, context: str) -> None:
        self.errors: list[str] = []
        self._remote = remote
        self._context = context
        self._shown = asyncio.Event()
        remote.listen(self._heard)

    def _heard(self, event: dict[str, Any]) -> None:
        params = event["params"]
        if event["method"] != "log.entryAdded" or params["source"].get("context") != self._context:
            return
        if params["type"] == "javascript" and params["level"] == "error":
            self.errors.append(params["text"])

    async def evaluate(self, expression: str, *, within: float = PATIENCE) -> Any:
        """The value of an expression, or of the promise that it is; it must be one that JSON has."""
        answer = await self._remote.call(
            "script.evaluate",
            within=within,
            expression=f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    async def run(self, script: str, argument: Any = None, *, within: float = PATIENCE) -> Any:
        """As `tests.support.client_scripts.Page` says; the page must be one of the server that has the client."""
        return await self.evaluate(script_of(script, argument, self.module), within=within)

    async def goto(self, url: str) -> None:
        """Navigate, and wait until it has loaded."""
        await self._remote.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def click(self, selector: str) -> None:
        """Click on something."""
        await self.evaluate(f"void document.querySelector({json.dumps(selector)}).click()")

    async def back(self, path: str) -> None:
        """Press the back button, and wait until the page of that path is there."""
        await self._remote.call("browsingContext.traverseHistory", context=self._context, delta=-1)
        there = f"location.pathname === {json.dumps(path)} && document.readyState === 'complete'"
        async with asyncio.timeout(PATIENCE):
            while not await self._is(there):
                await asyncio.sleep(
                    0.005
                )  # there is one event for a page that is loaded, and none for one that was kept

    async def _is(self, condition: str) -> bool:
        try:
            return await self.evaluate(condition) is True
        except RemoteError:  # the page has just gone
            return False

    async def show(self) -> None:
        """Have its window show it, which hides the others."""
        await self._remote.call("browsingContext.activate", context=self._context)

    async def close(self) -> None:
        """Close it."""
        await self._remote.call("browsingContext.close", context=self._context)


class Firefox:
    """A running browser."""

    def __init__(self, remote: Remote, version: str) -> None:
        self.version = version
        self._remote = remote

    async def tab(self, url: str) -> FirefoxTab:
        """Open a tab and show it."""
        made = await self._remote.call("browsingContext.create", type="tab")
        tab = FirefoxTab(self._remote, made["context"])
        await tab.goto(url)
        await tab.show()
        return tab


@asynccontextmanager
async def firefox(directory: Path) -> AsyncIterator[Firefox]:
    """A browser without a window, whose profile is in that directory, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        find_program("firefox-esr", "firefox", package="firefox-esr"),
        *("--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", str(directory)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        written = directory / "WebDriverBiDiServer.json"
        async with asyncio.timeout(START):
            while not written.exists() or not written.read_text():
                assert process.returncode is None
                await asyncio.sleep(0.05)  # there is no event to wait for
        where = json.loads(written.read_text())
        async with remote(f"ws://{where['ws_host']}:{where['ws_port']}/session") as browser:
            session = await browser.call("session.new", within=START, capabilities={})
            await browser.call("session.subscribe", events=["log.entryAdded"])
            yield Firefox(browser, session["capabilities"]["browserVersion"])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
