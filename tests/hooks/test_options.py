"""HandlerOptions: what may be said of a handler beside its function."""

from __future__ import annotations

import math
from typing import Any

import pytest

from velocity_ws.errors import HookError
from velocity_ws.hooks.options import HandlerOptions


@pytest.mark.parametrize(("rate", "burst"), [(5, 10), (0.2, 1), (7.5, 15), (100, 200)])
def test_a_burst_is_twice_the_rate_by_default_and_at_least_one(rate: float, burst: int) -> None:
    assert HandlerOptions(rate=rate).burst == burst
    assert HandlerOptions(rate=rate, burst=3).burst == 3


@pytest.mark.parametrize(
    ("rate", "burst", "problem"),
    [
        (0, None, "above 0, and not 0"),
        (-1, None, "above 0"),
        (math.inf, None, "above 0"),
        (math.nan, None, "above 0"),
        ("5", None, "above 0, and not '5'"),
        (True, None, "above 0"),
        (5, 0, "1 or more, and not 0"),
        (5, 0.5, "1 or more"),
        (5, "9", "1 or more"),
        (None, 5, "give on\\(\\) a rate, too"),
    ],
)
def test_what_is_no_limit_is_refused(rate: Any, burst: Any, problem: str) -> None:
    with pytest.raises(HookError, match=problem):
        HandlerOptions(rate=rate, burst=burst)
