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


async def wrong_lines(checker: str, *names: str) -> dict[str, set[int]]:
    """The lines of each file in which a checker finds something wrong."""
    files = [str(TYPED / name) for name in names]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *CHECK[checker], *files, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode in (0, 1), output
    if checker == "mypy":
        found = re.findall(r"([^/\n]+):(\d+): error", output)
    else:
        problems = [item for item in json.loads(output)["generalDiagnostics"] if item["severity"] == "error"]
        found = [(Path(item["file"]).name, item["range"]["start"]["line"] + 1) for item in problems]
    assert {name for name, _ in found} <= set(names), output
    return {name: {int(line) for where, line in found if where == name} for name in names}


@pytest.mark.parametrize("checker", CHECK)
async def test_a_checker_refuses_what_is_marked_as_wrong_and_nothing_else(checker: str) -> None:
    marked = {
        name: {n for n, line in enumerate((TYPED / name).read_text().splitlines(), 1) if line.endswith("# wrong")}
        for name in ("right.py", "wrong.py")
    }
    assert not marked["right.py"]
    assert marked["wrong.py"]
    assert await wrong_lines(checker, *marked) == marked
