"""The package as somebody has it who installed it: packed by npm, and installed from the tarball into a project."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from npm.__main__ import pack, write_package
from tests.support.node_tools import find_node, find_npm, install, make_once, node_environment

HERE = Path(__file__).parent


def link(source: str, target: str) -> None:
    """A hard link, which takes no time and no space, or a copy where the place is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make npm` packs, and `node_modules` into which npm has installed it: one for all workers, which read it."""
    return make_once(place_of_all(tmp_path_factory) / "package", pack_and_install)


def place_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all workers have."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def pack_and_install(place: Path) -> None:
    write_package(place / "npm")
    tarball = pack(place / "npm", place)
    shutil.copy(HERE / "package.json", place)
    shutil.copy(HERE / "package-lock.json", place)
    own = shutil.ignore_patterns(".package-lock.json")  # npm writes into that one, and this is a link to another's
    shutil.copytree(install(HERE), place / "node_modules", copy_function=link, symlinks=True, ignore=own)
    command = [*find_npm(), "install", "--offline", "--no-save", "--ignore-scripts", "--silent", str(tarball)]
    subprocess.run(command, cwd=place, env=node_environment(), check=True)


@pytest.fixture(scope="session")
def tarball(package: Path) -> Path:
    (tarball,) = package.glob("*.tgz")
    return tarball


@pytest.fixture(scope="session")
def project(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the package, React, TypeScript, Vite, esbuild and ws."""
    place = tmp_path_factory.mktemp("project")
    shutil.copy(HERE / "package.json", place)
    shutil.copy(HERE / "tsconfig.json", place)
    for name in ("app", "node", "types"):
        shutil.copytree(HERE / name, place / name)
    (place / "node_modules").symlink_to(package / "node_modules")
    return place


@pytest.fixture(scope="session")
def bundle(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page in `app`, as Vite builds it: one for all workers."""

    def build(place: Path) -> None:
        vite = str(project / "node_modules/vite/bin/vite.js")
        command = [find_node(), vite, "build", "app", "--outDir", str(place), "--emptyOutDir"]
        done = subprocess.run(command, cwd=project, env=node_environment(), check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "Vite has something to say"

    return make_once(place_of_all(tmp_path_factory) / "bundle", build)
