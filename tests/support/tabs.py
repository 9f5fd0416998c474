"""A Chromium with everything on that people have: hidden tabs are throttled, frozen, and kept for the back button.

Playwright switches these off, so it is driven by its DevTools protocol here. Knows nothing of what it is driven for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.chromium import FLAGS, find_chromium
from tests.support.client_scripts import PATIENCE, script_of
from tests.support.remote import START, Remote, remote

__all__ = ["Chromium", "Tab", "chromium"]


class Tab:
    """A tab. Its window shows the one that was made or shown last, and the others are hidden.

    Attributes:
        errors: exceptions and rejections that nobody has caught.
        console: what the page has written there.
        module: where the client is that its scripts get.
    """

    module = "/ws/velocity.js"

    def __init__(self, remote: Remote, target: str, session: str) -> None:
        self.errors: list[str] = []
        self.console: list[str] = []
        self._remote = remote
        self._target = target
        self._session = session
        self._loaded = asyncio.Event()
        remote.listen(self._heard)

    def _heard(self, event: dict[str, Any]) -> None:
        if event.get("sessionId") != self._session:
            return
        method, params = event["method"], event["params"]
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details["text"])))
        elif method == "Runtime.consoleAPICalled":
            said = (str(each.get("value", each.get("description"))) for each in params["args"])
            self.console.append(f"{params['type']}: {' '.join(said)}")
        elif params.get("name") == "load" or params.get("type") == "BackForwardCacheRestore":
            self._loaded.set()  # what was cached is not loaded again

    async def begin(self) -> None:
        """Have it tell what happens in it."""
        for method in ("Page.enable", "Runtime.enable"):
            await self.call(method)
        await self.call("Page.setLifecycleEventsEnabled", enabled=True)

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method of the DevTools protocol that is for this tab."""
        return await self._remote.call(method, session=self._session, **params)

    async def evaluate(self, expression: str, *, within: float = PATIENCE) -> Any:
        """The value of an expression, or of the promise that it is."""
        options = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self._remote.call("Runtime.evaluate", session=self._session, within=within, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def run(self, script: str, argument: Any = None, *, within: float = PATIENCE) -> Any:
        """As `tests.support.client_scripts.Page` says; the page must be one of the server that has the client."""
        return await self.evaluate(script_of(script, argument, self.module), within=within)

    async def goto(self, url: str) -> None:
        """Navigate, and wait until it has loaded."""
        self._loaded.clear()
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def reload(self) -> None:
        """Load the page anew, and wait until it has loaded."""
        self._loaded.clear()
        await self.call("Page.reload")
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def back(self) -> None:
        """Press the back button, and wait until the page is there."""
        history = await self.call("Page.getNavigationHistory")
        entry = history["entries"][history["currentIndex"] - 1]
        self._loaded.clear()
        await self.call("Page.navigateToHistoryEntry", entryId=entry["id"])
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def freeze(self) -> None:
        """Have it frozen, as a browser does with a tab that has been hidden for minutes."""
        await self.call("Page.setWebLifecycleState", state="frozen")

    async def resume(self) -> None:
        """Undo `freeze`."""
        await self.call("Page.setWebLifecycleState", state="active")

    async def show(self) -> None:
        """Have its window show it, which hides the others."""
        await self._remote.call("Target.activateTarget", targetId=self._target)

    async def close(self) -> None:
        """Close it."""
        await self._remote.call("Target.closeTarget", targetId=self._target)


class Chromium:
    """A running browser."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    @asynccontextmanager
    async def profile(self) -> AsyncIterator[Profile]:
        """A window that shares nothing with others, until the end of the block."""
        context = (await self._remote.call("Target.createBrowserContext"))["browserContextId"]
        try:
            yield Profile(self._remote, context)
        finally:
            await self._remote.call("Target.disposeBrowserContext", browserContextId=context)


class Profile:
    """A window that shares nothing with others."""

    def __init__(self, remote: Remote, context: str) -> None:
        self._remote = remote
        self._context = context

    async def tab(self, url: str = "about:blank") -> Tab:
        """Open another tab, which hides the one before."""
        made = await self._remote.call("Target.createTarget", url="about:blank", browserContextId=self._context)
        target = made["targetId"]
        attached = await self._remote.call("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self._remote, target, attached["sessionId"])
        await tab.begin()
        if url != "about:blank":
            await tab.goto(url)
        return tab


@asynccontextmanager
async def chromium(directory: Path, *flags: str) -> AsyncIterator[Chromium]:
    """A browser without a window, whose profile is in that directory, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        find_chromium(),
        *FLAGS,
        *("--headless=new", "--remote-debugging-port=0", f"--user-data-dir={directory}", *flags),
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        written = directory / "DevToolsActivePort"
        async with asyncio.timeout(START):
            while not written.exists() or len(written.read_text().split()) < 2:
                assert process.returncode is None
                await asyncio.sleep(0.02)  # there is no event to wait for
        port, path = written.read_text().split()
        async with remote(f"ws://127.0.0.1:{port}{path}") as browser:
            yield Chromium(browser)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
