"""The benchmark of memory works from end to end; its figures are for `make bench-memory`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.memory import QUICK

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(300)  # many processes are started, one after the other
async def test_a_quick_run_has_a_row_for_each_state_of_a_connection_and_for_each_kind_of_room() -> None:
    command = [sys.executable, "-m", "benchmarks.memory", "--quick"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=-1, stderr=-1)
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    lines = output.decode().splitlines()
    assert {line.count("|") for line in lines} == {5}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    counts = [int(of.replace(",", "")) for _, of, _, _ in cells]
    assert counts == [QUICK.clients] * 10 + [QUICK.memberships, QUICK.rooms]
    objects = [float(each) for what, _, each, _ in cells if "objects" in what]
    assert len(objects) == 2
    assert all(1 < each < 100 for each in objects)
