"""The types of the package: `tsc --strict` takes what is right, and what is marked as wrong is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.node_tools import find_node, node_environment

pytestmark = pytest.mark.timeout(300)  # for what npm brings


@pytest.mark.parametrize(("module", "resolution"), [("ESNext", "Bundler"), ("NodeNext", "NodeNext")])
def test_a_strict_compiler_takes_what_is_right_and_nothing_else(project: Path, module: str, resolution: str) -> None:
    options = ("--project", ".", "--module", module, "--moduleResolution", resolution, "--pretty", "false")
    command = [find_node(), "node_modules/typescript/bin/tsc", *options]
    done = subprocess.run(command, cwd=project, env=node_environment(), check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
