"""The benchmark works from end to end; its figures are for `make bench`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from benchmarks.scenarios import QUICK, SCENARIOS

ROOT = Path(__file__).parent.parent


async def test_quick_run_reports_every_server_and_loses_nothing() -> None:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    report = output.decode()
    assert process.returncode == 0, errors.decode()
    for scenario in SCENARIOS:
        assert f"## {scenario.title.format(**asdict(QUICK))}" in report
    for contestant in CONTESTANTS:
        assert report.count(f"\n| {contestant.name} | **") == (len(SCENARIOS) if contestant.everywhere else 0)
    assert "deliveries, each one checked: 0 lost, duplicated or out of order." in report
