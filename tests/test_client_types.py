"""`connect<Events>()`: TypeScript's strict checker lets right programs pass, and refuses wrong ones where they are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.node_tools import find_node, install, node_environment

ROOT = Path(__file__).parents[1]
TYPED = ROOT / "tests" / "typed"
OPTIONS = {
    "strict": True,
    "noEmit": True,
    "exactOptionalPropertyTypes": True,
    "noUncheckedIndexedAccess": True,
    "target": "es2022",
    "module": "es2022",
    "moduleResolution": "bundler",
    "lib": ["es2022", "dom"],
    "types": [],
}


@pytest.mark.parametrize("name", ["right.ts", "wrong.ts"])
def test_the_checker_refuses_what_is_marked_as_wrong_and_nothing_else(name: str, tmp_path: Path) -> None:
    source = (TYPED / name).read_text(encoding="utf-8")
    marked = {number for number, line in enumerate(source.splitlines(), 1) if line.endswith("// wrong")}
    assert bool(marked) is (name == "wrong.ts")
    (tmp_path / name).write_text(source, encoding="utf-8")
    paths = {"velocity-ws": [str(ROOT / "src/velocity_ws/browser/velocity.d.ts")]}
    project = {"compilerOptions": {**OPTIONS, "paths": paths}, "files": [name]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(project), encoding="utf-8")
    tsc = install(ROOT / "tests" / "npm") / "typescript" / "bin" / "tsc"
    command = [find_node(), str(tsc), "-p", str(tmp_path), "--pretty", "false"]
    done = subprocess.run(command, cwd=tmp_path, env=node_environment(), capture_output=True, text=True, check=False)
    found = {int(line) for line in re.findall(rf"^{name}\((\d+),\d+\): error", done.stdout, re.MULTILINE)}
    assert found == marked, done.stdout
    assert done.returncode == (2 if marked else 0) or (marked and done.returncode == 1), done.stdout
