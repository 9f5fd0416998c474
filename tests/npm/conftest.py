"""The package as somebody has it who installed it: packed by npm, and installed from the tarball into a project."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from npm.__main__ import pack, write_package
from tests.support.chromium import FLAGS, find_chromium
from tests.support.node_tools import find_npm, install, node_environment

HERE = Path(__file__).parent
SOURCES = ("package.json", "package-lock.json", "tsconfig.json", "app", "node", "types")


def link(source: str, target: str) -> None:
    """A hard link, which takes no time and no space, or a copy where the place is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make npm` packs."""
    place = tmp_path_factory.mktemp("package")
    write_package(place / "npm")
    return pack(place / "npm", place)


@pytest.fixture(scope="session")
def project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with React, TypeScript, Vite, esbuild and ws, into which npm has installed the tarball."""
    modules = install(HERE)
    place = tmp_path_factory.mktemp("project")
    for name in SOURCES:
        source = HERE / name
        if source.is_dir():
            shutil.copytree(source, place / name)
        else:
            shutil.copy(source, place)
    own = shutil.ignore_patterns(".package-lock.json")  # npm writes into that one, and this is a link to another's
    shutil.copytree(modules, place / "node_modules", copy_function=link, symlinks=True, ignore=own)
    command = [*find_npm(), "install", "--offline", "--no-save", "--ignore-scripts", "--silent", str(tarball)]
    subprocess.run(command, cwd=place, env=node_environment(), check=True)
    return place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        await browser.close()
