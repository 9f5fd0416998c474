"""What the suite of the Durable Streams protocol says of our server; `make conformance` asks it of each engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conformance.suite import NOT_OFFERED, PASSED, SKIPPED, Case, Report, run

WITHIN = 330.0
"""Seconds that the suite may take, of which 25 are waiting; for a machine that does other things."""


@pytest.mark.timeout(WITHIN + 270)  # and for what npm brings
async def test_streams_over_http_keep_the_protocol() -> None:
    report = await run("memory://", within=WITHIN, retries=3, long_poll=3)
    print(report)  # noqa: T201 - shown where it fails
    assert not report.problems, "\n".join(report.problems)


def test_what_must_not_be_is_found_among_the_cases() -> None:
    good = [Case(f"Basic > {number}", "passed") for number in range(PASSED - 1)]
    waiting = Case("TTL Expiration Behavior > should extend", "passed", retries=1, errors=["too late"])
    away = [Case(f"{NOT_OFFERED} > {number}", "skipped") for number in range(SKIPPED)]
    fine = Report([*good, waiting, *away])
    assert fine.problems == []
    assert str(fine) == f"332 passed, 0 failed, 6 skipped\ntried again: {waiting.name} (1)"
    for odd, said in (
        (Case("Basic > 0", "failed", errors=["not 200"]), "Basic > 0: failed\n    not 200"),
        (Case("Basic > 0", "pending"), "Basic > 0: pending"),
        (Case("Basic > 0", "skipped"), "Basic > 0: skipped"),
        (Case("Basic > 0", "passed", retries=1), "Basic > 0: it does not wait for anything, and passed at a later"),
    ):
        problems = replace(fine, cases=[odd, *fine.cases[1:]]).problems
        assert problems[0].startswith(said)
    assert replace(fine, cases=fine.cases[1:]).problems == ["331 cases were passed, not 332"]
    assert replace(fine, cases=fine.cases[:-1]).problems == ["5 cases were skipped, not 6"]
    assert replace(fine, errors=["it threw"]).problems == ["beside the cases: it threw"]
