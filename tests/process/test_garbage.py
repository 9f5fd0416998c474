"""When the collector runs: not while a large message is decoded, and rarely everywhere at once."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from velocity_ws.messages.inbound import Malformed, Message, decode
from velocity_ws.process.garbage import LARGE, collection_paused

ARRAYS = '{"event":"a","data":[' + ",".join(["[]"] * 170_000) + '],"id":7}'


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generation of each collection that begins."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


@pytest.mark.parametrize("text", [ARRAYS, ARRAYS[:-1], ARRAYS.replace("event", "x")], ids=["good", "cut", "no event"])
def test_nothing_is_collected_while_a_large_message_is_decoded(text: str, collections: list[int]) -> None:
    gc.collect()
    collections.clear()
    decode(text)
    assert len(collections) <= 1, "but when it is done, of what is young"
    assert gc.isenabled()


def test_a_small_message_does_not_touch_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "disable", lambda: pytest.fail("it did"))
    assert isinstance(decode('{"event":"a","data":"' + "x" * (LARGE - 100) + '"}'), Message)


def costs(*texts: str) -> list[float]:
    """Seconds of processor time that decoding each takes, at best; in turns, as a processor is not always as fast."""
    took: list[list[float]] = [[] for _ in texts]
    for _ in range(8):
        for times, text in zip(took, texts, strict=True):
            gc.collect()
            began = time.process_time()
            decode(text)
            times.append(time.process_time() - began)
    return [min(times) for times in took]


def test_what_is_malformed_at_its_end_is_not_parsed_twice() -> None:
    broken = (ARRAYS[:-1] + ",}", ARRAYS.replace('"event":"a",', "").replace("}", ',"event":5}'))
    assert all(isinstance(decode(text), Malformed) for text in broken)
    good, *others = costs(ARRAYS, *broken)
    assert max(others) < 1.7 * good  # what is not built, but looked at, takes a tenth


def test_the_collector_is_left_as_it_was_found() -> None:
    with collection_paused:
        assert not gc.isenabled()
        with collection_paused:
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with collection_paused:
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_several_threads_pause_it_together() -> None:
    together = threading.Barrier(3)
    first_leaves, second_leaves = threading.Event(), threading.Event()
    seen: list[Any] = []

    def hold(leave: threading.Event) -> None:
        with collection_paused:
            together.wait(10)
            leave.wait(10)

    threads = [threading.Thread(target=hold, args=(event,)) for event in (first_leaves, second_leaves)]
    for thread in threads:
        thread.start()
    together.wait(10)
    for thread, event in zip(threads, (first_leaves, second_leaves), strict=True):
        seen.append(gc.isenabled())
        event.set()
        thread.join(10)
    assert [*seen, gc.isenabled()] == [False, False, True]


FIRST = gc.get_threshold()[0]


def grown(*arguments: str) -> dict[str, Any]:
    """What a program counts that makes very many objects."""
    command = [sys.executable, "-m", "tests.programs.growing", *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


by_generations = pytest.mark.skipif(
    not gc.get_threshold()[2], reason="this collector has no full collections of its own accord"
)


@by_generations
def test_full_collections_take_a_small_part_of_the_time() -> None:
    found = grown()
    assert found["by itself"] >= 2, "and the more, the smaller what is imported"
    assert found["at once"] == 0
    assert found["in time"] == 1
    assert 1 <= found["in any case"] <= 2
    assert found["of connections"] == 0
    assert 1 <= found["when they have gone"] <= 4
    assert found["freed"] > 90_000, "young garbage is collected as before"
    assert found["callbacks"] == 2, "once is enough"
    assert found["thresholds"] == [FIRST, 2, 1_400_000 // (2 * FIRST)]
    assert found["thresholds set later"] == [700, 10, 1000]


@by_generations
def test_a_larger_threshold_of_the_application_is_kept() -> None:
    found = grown("own")
    assert found["thresholds"] == [700, 10, 1000]
    assert [found[when] for when in ("at once", "in time", "in any case")] == [0, 0, 0]
