"""The benchmark of streams works from end to end, on each engine; its figures are for its make target."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.document import STREAMS, part_of
from benchmarks.scenarios import Figures
from benchmarks.streams.load import faults_of, latencies_of
from benchmarks.streams.readers import EventReader, Piece
from benchmarks.streams.report import outcomes
from benchmarks.streams.runs import QUICK
from benchmarks.streams.scenarios import P99, RATIO, SCENARIOS
from benchmarks.streams.sources import Sources, times_in
from benchmarks.streams.tokens import tokens_of

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(300)  # many processes are started, one after the other
async def test_quick_run_measures_every_engine_and_every_text_is_right(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\nOf other runs.\n")
    command = [sys.executable, "-m", "benchmarks.streams", "--quick", "--out", str(results)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=-1, stderr=-1)
    output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    text = results.read_text()
    assert text.startswith("# Results\n\nOf other runs.\n")
    report = part_of(text, STREAMS)
    for scenario in SCENARIOS:
        table = report.partition(f"\n### {scenario.title.format(**asdict(QUICK))}\n")[2].partition("###")[0]
        if scenario.peer is not None and scenario.peer.missing():
            assert "not installed" in table
            continue
        assert [line.partition("://")[0] for line in table.splitlines() if "://" in line] == [
            f"| {engine}" for engine in scenario.engines
        ]
    assert "deliveries, each one checked: 0 lost, duplicated or out of order." in report
    assert "| texts and pieces that were not as they should be | at most 0 | 0 | met |" in report


def pieces(*texts: str, starts: Sequence[int | None] | None = None) -> list[Piece]:
    return [
        Piece(text, came, start, {}, 0)
        for came, (text, start) in enumerate(zip(texts, starts or [None] * len(texts), strict=True), 1)
    ]


@pytest.mark.parametrize(
    ("got", "faults"),
    [
        (pieces("ab", "c", starts=(0, 2)), 0),
        (pieces("abc"), 0),
        (pieces("ab", starts=(0,)), 1),
        (pieces("ab", "b", "c"), 1),
        (pieces("ab", "c", starts=(0, 3)), 1),
        (pieces("b", "ac", starts=(1, 0)), 3),
        ([], 1),
    ],
    ids=["whole", "in one", "lost", "duplicated", "elsewhere", "disordered", "nothing"],
)
def test_each_fault_of_a_text_is_seen(got: list[Piece], faults: int) -> None:
    assert faults_of(got, "abc") == faults


def test_a_token_is_there_when_the_last_of_it_is() -> None:
    said = array("q", [0, 0, 0])
    assert latencies_of(pieces("a", "bc", "c", "d"), [2, 3, 5], said) == [2, 2, 4]
    assert latencies_of(pieces("ab"), [2, 3, 5], said) == [1]


def test_tokens_of_a_log_have_their_size_and_differ() -> None:
    lines = tokens_of(0, 10, 100)
    assert {len(line.encode()) for line in lines} == {100}
    assert len(set(lines)) == 10
    assert len(tokens_of(1, 5)) == 5


async def test_sources_yield_at_their_pace_and_say_when() -> None:
    sources = Sources()
    sources.prepare(2, 3, 100)

    async def hear(stream: int) -> list[str]:
        return [token async for token in sources.of(stream)]

    hearing = [asyncio.create_task(hear(stream)) for stream in range(2)]
    began = time.monotonic_ns()
    said = await sources.go()
    times = times_in(said["times"])
    assert await asyncio.gather(*hearing) == [tokens_of(0, 3), tokens_of(1, 3)]
    assert len(times) == 6
    assert list(times[:3]) == sorted(times[:3])
    assert times[2] - began >= 18_000_000  # whenever the first was, which is late where the loop was held up


class Wire:
    """A socket that has these bytes to read, in these parts."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def recv(self, size: int) -> bytes:
        return next(self._parts, b"")


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_events_are_found_wherever_the_bytes_are_cut(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" one", " Zürich", "\n\n", " 🚂"]
    events = [f"id: {number}\ndata: {json.dumps(text)}\n\n".encode() for number, text in enumerate(texts)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in [*events, b": nothing\n\n"]) + b"0\r\n\r\n"
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    reader = EventReader.__new__(EventReader)
    reader._head, reader.chunks, reader.times, reader.opened, reader.ended = b"", [], [], False, False
    wire = Wire(iter([data[at : at + cut] for at in range(0, len(data), cut)]))
    monkeypatch.setattr(reader, "socket", wire, raising=False)
    ends = 0
    while not reader.ended:
        reader.read()
        ends += reader.is_ending
        reader.is_ending = False
    assert [piece.text for piece in reader.pieces()] == texts
    assert ends == 1


def test_targets_are_those_of_medians() -> None:
    def measured(*ratios: float) -> list[Figures]:
        return [Figures({RATIO: ratio, P99: 30.0}) for ratio in ratios]

    results = {"sustained": {"redis": measured(0.4, 0.5, 0.9)}, "many": {"redis": measured(0.7)}}
    found = {outcome.target: outcome for outcome in outcomes(results)}
    assert found[f"redis: sustained, CPU {RATIO}"].verdict == "met"
    assert found[f"redis: sustained, {P99} from token to reader"].verdict == "met"
    assert found[f"redis: many, CPU {RATIO}"].limit is None
