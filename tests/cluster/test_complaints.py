"""Complaints: each reason is told once, and nothing of an engine that ends with all of its nodes."""

from __future__ import annotations

import logging

import pytest

from tests.support import eventually
from velocity_ws.cluster.complaints import MOST_COMPLAINTS, Complaints

log = logging.getLogger("velocity_ws.cluster")


async def test_each_reason_is_told_once_and_the_end_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, log.name)
    complaints = Complaints(log, 0, "it is back")
    complaints.reached()
    for why in ("it is gone", "it is a replica", "it is gone"):
        complaints.lost(why)
    complaints.reached()
    complaints.reached()
    trying = "trying again until it is there"
    assert caplog.messages == [f"it is gone; {trying}", f"it is a replica; {trying}", "it is back"]
    complaints.lost("it is gone")
    assert caplog.messages[3:] == [f"it is gone; {trying}"]


async def test_reasons_are_bounded_and_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(log, 0, "it is back")
    for number in range(20):
        complaints.lost(f"reason\n{number}")
    assert len(caplog.messages) == MOST_COMPLAINTS
    assert caplog.messages[0].startswith("reason\\n0;")


async def test_a_loss_is_told_after_the_grace(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(log, 0.05, "it is back")
    complaints.lost("not there yet")
    assert len(caplog.messages) == 1  # a first connection is not one that ends with others
    complaints.reached()
    complaints.lost("gone")
    complaints.lost("refused")
    assert caplog.messages[1:] == ["it is back"]
    complaints.reached()
    await eventually(lambda: len(caplog.messages) == 4)
    assert caplog.messages[2:] == ["gone; it is there again", "refused; it is there again"]


async def test_nothing_is_told_of_an_engine_that_ends_with_its_nodes(caplog: pytest.LogCaptureFixture) -> None:
    complaints, other = Complaints(log, 0.02, "it is back"), Complaints(log, 0.02, "it is back")
    for each in (complaints, other):
        each.reached()
        each.lost("gone")
    complaints.is_silent = True
    other.end()
    witness = Complaints(log, 0.04, "it is back")
    witness.reached()
    witness.lost("later")
    await eventually(lambda: caplog.messages)
    assert caplog.messages == ["later; trying again until it is there"]
