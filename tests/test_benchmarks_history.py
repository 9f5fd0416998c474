"""The measurement of what history takes of each engine works from end to end; its figures are for its make target."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.history_memory import QUICK, SUBJECTS

ROOT = Path(__file__).parent.parent


async def test_a_quick_run_has_a_row_for_each_engine_and_size() -> None:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "benchmarks.history_memory", "--quick"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    heading, rule, *rows = output.decode().splitlines()
    assert heading.count("|") == rule.count("|")
    expected = [(name, f"{rooms:,}", str(step)) for rooms, steps in QUICK for name in SUBJECTS for step in steps]
    assert [tuple(cell.strip() for cell in row.split("|")[1:4]) for row in rows] == expected
