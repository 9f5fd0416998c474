"""The benchmark works from end to end; its figures are for `make bench`."""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.chart import Bar, Panel, draw
from benchmarks.client import frames, whole_frames
from benchmarks.contestants import BASELINE, CONTESTANTS, OURS
from benchmarks.load import faults_in
from benchmarks.scenarios import QUICK, SCENARIOS, Figures
from benchmarks.targets import outcomes

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(300)  # many processes are started, one after the other
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


@pytest.mark.timeout(300)  # many processes are started, one after the other
async def test_a_change_is_measured_beside_an_older_checkout(tmp_path: Path) -> None:
    older = tmp_path / "older"
    for part in ("src", "benchmarks"):
        shutil.copytree(ROOT / part, older / part, ignore=shutil.ignore_patterns("node_modules"))
    (older / "src/velocity_ws/broker/broker.py").write_text("raise RuntimeError('this is the older one')\n")
    for checkout, said in ((ROOT, "echo: velocity-ws: CPU, µs "), (older, "echo: velocity-ws, before: failed: ")):
        options = ["--quick", "--rounds", "1", "--scenario", "echo"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.before", str(checkout), *options, cwd=ROOT, stdout=-1, stderr=-1
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert said in output.decode()
    assert "this is the older one" in errors.decode()


@pytest.mark.parametrize(
    ("got", "faults"),
    [([4, 5, 6], 0), ([4, 6], 1), ([4, 5, 5, 6], 1), ([5, 4, 6], 1), ([4, 5, 6, 7], 1), ([], 3)],
    ids=["whole", "lost", "duplicated", "disordered", "not to come", "nothing"],
)
def test_load_sees_each_fault(got: list[int], faults: int) -> None:
    assert faults_in(got, range(4, 7)) == faults


def test_frames_are_found_wherever_the_bytes_are_cut() -> None:
    payloads = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 65535, b"e" * 65536]
    lengths = [b"\x00", b"\x01", b"\x7d", b"\x7e\x00\x7e", b"\x7e\xff\xff", b"\x7f" + (65536).to_bytes(8)]
    heads = [b"\x81" + length for length in lengths]
    data = b"".join(head + payload for head, payload in zip(heads, payloads, strict=True))
    assert [data[start:end] for _, start, end in frames(data)] == payloads
    for cut in (*range(300), len(data) - 1, len(data)):
        found = [end for _, _, end in frames(data[:cut])]
        assert whole_frames(data[:cut]) == (found[-1] if found else 0, len(found))


def test_targets_compare_medians_of_the_rounds_own_ratios() -> None:
    def measured(*costs: float) -> list[Figures]:
        return [Figures({"CPU, µs": cost, "p99, µs": 1.0}) for cost in costs]

    results = {
        "fanout": {OURS.name: measured(5, 12, 4), BASELINE.name: measured(10, 20, 10), "picows": measured(4, 4, 4)}
    }
    by_target = {outcome.target: outcome for outcome in outcomes(results)}
    met = by_target["one room, plain, CPU relative to Starlette `send_text`"]
    assert (met.measured, met.verdict) == (0.5, "met")
    missed = by_target["one room, plain, CPU relative to picows"]
    assert (missed.measured, missed.verdict) == (1.25, "**missed**")
    assert by_target["echo, CPU relative to Starlette"].verdict == "not measured"


def test_chart_is_well_formed_and_its_bars_are_in_proportion() -> None:
    chart = draw([Panel("a < b", "µs", [Bar("slow & old", 40), Bar("ours", 10, ours=True)])])
    root = ET.fromstring(chart)
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    assert [bar.attrib["class"] for bar in bars] == ["bar ours", "bar"]
    assert float(bars[1].attrib["width"]) == pytest.approx(4 * float(bars[0].attrib["width"]), rel=0.01)


def test_chart_cuts_a_bar_that_would_hide_the_others() -> None:
    chart = draw([Panel("costs", "µs", [Bar("a", 10), Bar("b", 10), Bar("slow", 1000)])])
    root = ET.fromstring(chart)
    short, _, cut = [float(bar.attrib["width"]) for bar in root.findall("{http://www.w3.org/2000/svg}rect")]
    assert cut == pytest.approx(4 * short, rel=0.01)
    assert "1,000 µs, cut" in chart
