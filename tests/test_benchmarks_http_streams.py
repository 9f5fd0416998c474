"""The benchmark of streams over HTTP works from end to end; its figures are for its make target."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.document import HTTP_STREAMS, part_of
from benchmarks.http_streams.forms import EventsOfProtocol
from benchmarks.http_streams.report import outcomes
from benchmarks.http_streams.scenarios import CONTESTANTS, CPU, MEMORY, WAITING
from benchmarks.scenarios import Figures

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(300)  # many processes are started, one after the other
async def test_a_quick_run_measures_everything_and_every_text_is_right(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\nOf other runs.\n")
    command = [sys.executable, "-m", "benchmarks.http_streams", "--quick", "--out", str(results)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=-1, stderr=-1)
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    report = part_of(results.read_text(), HTTP_STREAMS)
    for contestant in CONTESTANTS:
        (line,) = [line for line in report.splitlines() if line.startswith(f"| {contestant.name} |")]
        assert ("not installed" in line) == bool(contestant.missing())
    for name in WAITING:
        assert f"\n| {name} | **" in report
    assert "deliveries, each one checked: 0 lost, duplicated or out of order." in report


def test_ratios_are_those_of_rounds() -> None:
    ours, rakaia, _ = (contestant.name for contestant in CONTESTANTS)
    delivery = {ours: [Figures({CPU: 1}), Figures({CPU: 3})], rakaia: [Figures({CPU: 10}), Figures({CPU: 10})]}
    waiting = {name: [Figures({MEMORY: 10.0 + number})] for number, name in enumerate(WAITING)}
    found = outcomes({"delivery": delivery, "waiting": waiting})
    assert [outcome.measured for outcome in found] == [0.2, None, 1.0, 2.0, 0]


def test_events_of_the_protocol_are_found() -> None:
    events = [
        b"event: data\ndata: one\ndata:\n\nid: 1\nevent: control\ndata:{}\n\n",
        b"event: data\ndata:Z\xc3\xbcrich\n\nid: 2\nevent: control\ndata:{}\n\n",
        b":\n\n",
    ]
    reader = EventsOfProtocol.__new__(EventsOfProtocol)
    reader.chunks = [b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"]
    reader.times = [1]
    assert [piece.text for piece in reader.pieces()] == [" one\n", "Zürich"]
