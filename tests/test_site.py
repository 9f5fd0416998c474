"""The site: `make docs` fails for what leads nowhere, all that is public is in the reference, codes are the code's."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
from playwright.async_api import Request, expect

import velocity_ws
from tests.support import DEADLINE
from tests.support.pages import ROOT, section
from tests.support.site import launch
from velocity_ws import close

CODES = "docs/codes.md"
BROWSER = ROOT / "src/velocity_ws/browser/velocity.js"


async def build(source: Path, output: Path) -> tuple[int | None, str]:
    """Build a site as `make docs` does; the exit code and what was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", str(source), str(output)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    return process.returncode, said


async def test_what_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    shutil.copy(ROOT / "docs/conf.py", source)
    (source / "static").mkdir()
    (source / "index.md").write_text("# Index\n\n```{toctree}\npage\n```\n")
    (source / "page.md").write_text(
        "# Page\n\n[no page](nowhere.md), [no heading](index.md#nowhere), [no file](../nowhere.py)\n\n"
        "```{eval-rst}\nNo such thing: `Broker.nowhere`\n```\n"
    )
    (source / "lonely.md").write_text("# In no navigation\n")
    code, said = await build(source, tmp_path / "site")
    assert code == 1, said
    for problem in (
        "nowhere.md",
        "in doc 'index': 'nowhere'",
        "nowhere.py",
        "Broker.nowhere",
        "isn't included in any toctree",
    ):
        assert problem in said


def files_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


@pytest.mark.soak
async def test_the_site_needs_no_network_and_its_search_finds(tmp_path: Path) -> None:
    code, said = await build(ROOT / "docs", tmp_path)
    assert (code, said) == (0, "")
    asked: list[str] = []

    def remember(request: Request) -> None:
        if not request.url.startswith(("file:", "data:")):
            asked.append(request.url)

    async with launch() as browser:
        page = await browser.new_page()
        page.on("request", remember)
        for file in files_of(tmp_path):
            await page.goto(file.as_uri())
            broken = "Array.from(document.images).filter((image) => !image.naturalWidth).map((image) => image.src)"
            assert await page.evaluate(broken) == [], file
            wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not await page.evaluate(wide), f"{file} is wider than its window"
        await page.goto((tmp_path / "index.html").as_uri())
        await page.fill("input[name=q]", "reauthorize")
        await page.press("input[name=q]", "Enter")
        results = page.locator("#search-results ul.search li")
        await expect(results.filter(has_text="Rooms of a kind").first).to_be_visible(timeout=DEADLINE * 1000)
    assert asked == []


def test_all_that_is_public_is_in_the_reference() -> None:
    shown = {
        name
        for page in [*(ROOT / "docs/api").glob("*.md"), ROOT / "docs/settings.md"]
        for name in re.findall(r"^\.\. auto\w+:: ([\w.]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    adapters = ("velocity_ws.adapters.ai_sdk", "velocity_ws.adapters.langchain", "velocity_ws.adapters.openai")
    modules = ("velocity_ws", *adapters, "velocity_ws.backplane", "velocity_ws.testing", "velocity_ws.uvicorn")
    public = {f"{module}.{name}" for module in modules for name in import_module(module).__all__ if name[0] != "_"}
    assert public - shown == set(), "give each a directive on one of the pages of docs/api"
    assert shown - public == set(), "no longer public: take it out of docs/api"


def test_the_closes_listed_are_those_of_the_code() -> None:
    lines = re.findall(r"^\|( \d{4} \|.*)\|$", section(CODES, "A connection is closed"), re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    listed = {(int(code), reason) for code, reasons, *_ in rows for reason in re.findall(r"`([^`]+)`", reasons)}
    plain = [value for value in vars(close).values() if isinstance(value, tuple) and len(value) == 2]
    ours = {*plain, close.restarting(1012, 0.3), close.slow_message(60.0)}
    of_pages = {each for each in listed if each[1] in BROWSER.read_text(encoding="utf-8")}
    assert listed - of_pages == {(int(code), reason) for code, reason in ours if reason}
    assert {int(code) for code, *_ in rows} >= {int(code) for code, _ in ours}
    for code, _, _, comes_back in rows:
        assert comes_back == ("yes" if velocity_ws.may_reconnect(int(code)) else "no"), code


def test_the_codes_of_errors_listed_are_those_of_the_code() -> None:
    said = section(CODES, "A message is answered by an error")
    listed = set(re.findall(r"^\| `([A-Z_]+)`|, `([A-Z_]+)`|`(INVALID_ANSWER)`", said, re.MULTILINE))
    codes = {code for groups in listed for code in groups if code and not code.endswith("_")}
    written = re.compile(r'(?:encode_error|ClientError|Malformed)\(\s*"([A-Z_]+)"')
    there = {
        code
        for path in (ROOT / "src/velocity_ws").rglob("*.py")
        for code in written.findall(path.read_text(encoding="utf-8"))
    }
    assert there - {"CODE"} <= codes
    of_statuses = {"CONFLICT", "NOT_FOUND", "RATE_LIMITED", "UNAUTHORIZED"}
    of_pages = set(re.findall(r'"([A-Z_]+)"', BROWSER.read_text(encoding="utf-8")))
    assert codes <= there | of_statuses | of_pages
