"""The benchmark works from end to end; its figures are for `make bench`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.contestants import CONTESTANTS
from benchmarks.scenarios import scenarios

ROOT = Path(__file__).parent.parent


async def test_quick_run_reports_every_server_and_loses_nothing() -> None:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    report = output.decode()
    assert process.returncode == 0, errors.decode()
    for scenario in scenarios(quick=True):
        assert f"## {scenario.title}" in report
    for server in CONTESTANTS:
        assert report.count(f"\n| {server} | **") == len(scenarios(quick=True))
    # For each server, 20 clients with 15 messages in two scenarios, and 50 clients with 5 messages in one.
    assert f"{len(CONTESTANTS) * (2 * 20 * 15 + 50 * 5):,} deliveries, each one checked: 0 lost" in report
