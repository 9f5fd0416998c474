"""Stats: figures of nodes of two versions are read by each other, add up, and are a snapshot."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec
import pytest

from tests.support import settings
from velocity_ws import Broker
from velocity_ws.broker.members import ClusterStats
from velocity_ws.broker.procedures import STATS, _are_figures
from velocity_ws.stats import RECOVERIES, Counters, Stats

NEW = ("recoveries", "recovered_messages", "repaired", "history_reads")
FIGURES: dict[str, Any] = {field.name: 1 for field in dataclasses.fields(Stats) if field.name not in NEW}
EarlierStats = dataclasses.make_dataclass("EarlierStats", [(name, int | float) for name in FIGURES])
"""The figures as nodes know them that know no history."""


def test_nodes_that_know_no_history_read_our_figures_and_we_theirs() -> None:
    ours = Stats(**FIGURES, recoveries={"recovered": 2}, recovered_messages=3, repaired=4, history_reads=5)
    theirs = EarlierStats(**FIGURES)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ours), type=EarlierStats) == theirs
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(theirs), type=Stats) == Stats(**FIGURES)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ours), type=Stats) == ours


def test_figures_add_up_whichever_of_them_a_node_has() -> None:
    one = Stats(**FIGURES, recoveries={"recovered": 2, "evicted": 1}, recovered_messages=3, repaired=4, history_reads=5)
    other = Stats(**FIGURES, recoveries={"recovered": 1, "new": 1}, recovered_messages=1)
    total = ClusterStats.of({"a": one, "b": other, "c": Stats(**FIGURES)}, []).total
    assert {name: count for name, count in total.recoveries.items() if count} == {
        "recovered": 3,
        "evicted": 1,
        "new": 1,
    }
    assert set(RECOVERIES) < set(total.recoveries)
    assert (total.recovered_messages, total.repaired, total.history_reads, total.connections) == (4, 4, 5, 3)
    assert ClusterStats.of({}, []).total.recoveries == dict.fromkeys(RECOVERIES, 0)


@pytest.mark.parametrize(
    "recoveries", [{"recovered": -1}, {"x" * 257: 1}, {str(number): 1 for number in range(65)}, {"recovered": "many"}]
)
def test_figures_that_no_node_has_are_refused(recoveries: dict[str, Any]) -> None:
    said = msgspec.msgpack.encode(Stats(**FIGURES, recoveries=recoveries))
    try:
        figures = msgspec.msgpack.decode(said, type=STATS.result)
    except msgspec.ValidationError:
        return
    assert not _are_figures(figures)


def test_what_was_asked_for_does_not_change_any_more() -> None:
    broker = Broker(settings())
    before = broker.get_stats()
    assert before.recoveries == dict.fromkeys(RECOVERIES, 0)
    broker._node.counters.recoveries["recovered"] += 1
    assert before.recoveries["recovered"] == 0
    after = broker.get_stats()
    assert after.recoveries["recovered"] == 1
    assert json.loads(json.dumps(after.to_dict()))["recoveries"]["recovered"] == 1


def test_brokers_count_for_themselves() -> None:
    one, other = Counters(), Counters()
    one.recoveries["recovered"] += 1
    assert other.recoveries["recovered"] == 0
