"""The benchmark across nodes works from end to end, and its section stands beside the others in one file."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.cluster.contestants import ENTRANTS, OURS, PEERS, REDIS
from benchmarks.cluster.scenarios import IDLE_VARIES, OVER_IDLE, P99, QUICK, SCENARIOS, THROUGHPUT, WAKEUPS
from benchmarks.cluster.targets import Outcome, outcomes
from benchmarks.document import CLUSTER, part_of, with_part
from benchmarks.process import Child
from benchmarks.scenarios import Figures

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(300)  # many processes are started, one after the other
async def test_quick_run_measures_every_engine_and_loses_nothing(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\nOf other runs.\n")
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "benchmarks.cluster", "--quick", "--out", str(results)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    text = results.read_text()
    assert text.startswith("# Results\n\nOf other runs.\n")
    report = part_of(text, CLUSTER)
    for scenario in SCENARIOS:
        assert f"\n### {scenario.title.format(**asdict(QUICK))}\n" in report
    for entrant in ENTRANTS:
        assert report.count(f"\n| {entrant.name} | **") == (len(SCENARIOS) if entrant.ours else 0)
    assert "deliveries, each one checked: 0 lost, duplicated or out of order." in report
    assert "| deliveries of ours that were lost, duplicated or out of order | at most 0 | 0 | met |" in report


def test_a_part_replaces_itself_and_leaves_the_others() -> None:
    once = with_part("# Results\n\nothers\n", CLUSTER, "## Across nodes\n\nfirst\n")
    assert part_of(once, CLUSTER) == "## Across nodes\n\nfirst\n"
    twice = with_part(once + "after\n", CLUSTER, "second\n")
    assert part_of(twice, CLUSTER) == "second\n"
    assert "first" not in twice
    assert twice.startswith("# Results\n\nothers\n")
    assert twice.endswith("after\n")
    rewritten = with_part("# Newer\n", CLUSTER, part_of(twice, CLUSTER))
    assert rewritten.startswith("# Newer\n")
    assert part_of(rewritten, CLUSTER) == "second\n"
    assert with_part("# Newer\n", CLUSTER, part_of("nothing", CLUSTER)) == "# Newer\n"


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome("x", 3, 3.0, at_least=True), "met"),
        (Outcome("x", 3, 2.98, at_least=True), "**missed**"),
        (Outcome("x", 1.15, 1.151), "met"),
        (Outcome("x", 1.15, 1.16), "**missed**"),
        (Outcome("x", 1, None), "not measured"),
        (Outcome("x", None, 1.0), "not measured"),
    ],
)
def test_verdict(outcome: Outcome, verdict: str) -> None:
    assert outcome.verdict == verdict


def test_targets_compare_with_each_peer_and_elsewhere_with_the_best() -> None:
    def measured(column: str, *values: float) -> list[Figures]:
        return [Figures({column: value}) for value in values]

    socketio, channels, _ = PEERS
    results = {
        "saturation": {
            REDIS.name: measured(THROUGHPUT, 80, 120),
            OURS[1].name: measured(THROUGHPUT, 40, 40),
            socketio.name: measured(THROUGHPUT, 20, 40),
            channels.name: measured(THROUGHPUT, 10, 10),
        },
        "paced": {REDIS.name: measured(P99, 6, 6), socketio.name: measured(P99, 4, 4)},
        "elsewhere": {
            REDIS.name: [
                Figures({OVER_IDLE: over, IDLE_VARIES: noise, WAKEUPS: 0.5}) for over, noise in ((1, 2), (3, 1))
            ]
        },
    }
    found = {outcome.target: outcome for outcome in outcomes(results)}
    assert found[f"deliveries a second across nodes, {REDIS.name}, relative to {socketio.name}"].measured == 3.5
    assert found[f"deliveries a second across nodes, {REDIS.name}, relative to {channels.name}"].measured == 10
    best = found[f"deliveries a second across nodes, {OURS[1].name}, relative to the best of them"]
    assert (best.measured, best.verdict) == (1.5, "**missed**")
    assert found[f"p99 across nodes, {REDIS.name}, relative to {socketio.name}"].verdict == "**missed**"
    title = f"a message to a room without members here, {REDIS.name}"
    over = found[f"{title}, CPU over idle, µs (at most what idle varies by)"]
    assert (over.limit, over.measured, over.verdict) == (2, 2, "met")
    assert found[f"{title}, wake-ups over idle"].verdict == "**missed**"


async def test_no_more_than_a_window_is_on_its_way() -> None:
    command = [sys.executable, "-m", "benchmarks.servers.velocity"]
    async with Child(command, server=False) as server:
        send = {"count": 10, "texts": ["x"], "rooms": 1, "window": 3}
        await server.ask("credit")
        assert (await server.ask("broadcast", **send))["each"] == 3  # nobody says that any has arrived
        port = (await server.ask("credit"))["port"]
        _, teller = await asyncio.open_connection("127.0.0.1", port)
        teller.write((7).to_bytes(8))
        assert (await server.ask("broadcast", **send))["each"] == 10
        teller.close()
        await teller.wait_closed()
