"""The benchmarks of history work from end to end, on each engine; their figures are for their make targets."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import history_memory
from benchmarks.document import HISTORY, part_of
from benchmarks.history.report import outcomes
from benchmarks.history.scenarios import BEFORE_RATIO, OTHERS_RATIO, QUICK, RATIO, READS, SCENARIOS
from benchmarks.scenarios import Figures

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(300)  # many processes are started, one after the other
async def test_quick_run_measures_every_engine_and_loses_nothing(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\nOf other runs.\n")
    command = [sys.executable, "-m", "benchmarks.history", "--quick", "--out", str(results)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=-1, stderr=-1)
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    text = results.read_text()
    assert text.startswith("# Results\n\nOf other runs.\n")
    report = part_of(text, HISTORY)
    for scenario in SCENARIOS:
        table = report.partition(f"\n### {scenario.title.format(**asdict(QUICK))}\n")[2].partition("###")[0]
        assert [line.partition("://")[0] for line in table.splitlines() if "://" in line] == [
            f"| {engine}" for engine in scenario.engines
        ]
    assert "deliveries, each one checked: 0 lost, duplicated or out of order." in report
    assert "reads of the engine (nodes + 1) | at most 3 | 2 | met |" in report


def test_reads_of_the_engine_are_those_of_the_worst_round() -> None:
    def back(reads: float) -> Figures:
        return Figures({RATIO: 1.0, READS: reads, OTHERS_RATIO: 1.0, BEFORE_RATIO: 1.0})

    found = {outcome.target: outcome for outcome in outcomes({"returning": {"redis": [back(2), back(4), back(2)]}})}
    assert found["redis: clients that come back, reads of the engine (nodes + 1)"].verdict == "**missed**"
    assert found["redis: clients that come back, CPU relative to new ones"].verdict == "met"


@pytest.mark.timeout(300)  # many processes are started, one after the other
async def test_a_quick_run_has_a_row_for_each_engine_and_size() -> None:
    pipe = asyncio.subprocess.PIPE
    names = ["valkey", "nats-memory"]
    command = [sys.executable, "-m", "benchmarks.history_memory", "--quick", "--only", ",".join(names)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    heading, rule, *rows = output.decode().splitlines()
    assert heading.count("|") == rule.count("|")
    expected = [
        (name, f"{rooms:,}", str(step)) for rooms, steps in history_memory.QUICK for name in names for step in steps
    ]
    assert [tuple(cell.strip() for cell in row.split("|")[1:4]) for row in rows] == expected
