"""The types: mypy and pyright let right programs pass, and refuse what is refused at run time, and a little more."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TYPED = ROOT / "tests" / "typed"
CHECK = {
    "mypy": ("-m", "mypy", "--no-error-summary"),
    "pyright": ("-m", "pyright", "--outputjson", "--pythonpath", sys.executable),
}


async def wrong_lines(checker: str, name: str) -> set[int]:
    """The lines of a file in which a checker finds something wrong."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *CHECK[checker], str(TYPED / name), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode in (0, 1), output
    if checker == "mypy":
        return {int(line) for line in re.findall(rf"{name}:(\d+): error", output)}
    found = json.loads(output)["generalDiagnostics"]
    return {item["range"]["start"]["line"] + 1 for item in found if item["severity"] == "error"}


@pytest.mark.parametrize("checker", CHECK)
@pytest.mark.parametrize("name", ["right.py", "wrong.py"])
async def test_a_checker_refuses_what_is_marked_as_wrong_and_nothing_else(checker: str, name: str) -> None:
    lines = (TYPED / name).read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert bool(marked) is (name == "wrong.py")
    assert await wrong_lines(checker, name) == marked
