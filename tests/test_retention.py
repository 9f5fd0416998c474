"""A history says how much is kept, in the words of the settings; what cannot be kept is refused with what to write."""

from __future__ import annotations

from typing import Any

import pytest

from velocity_ws.retention import History, Limits


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({}, Limits(100, 600_000, 1024**2)),
        ({"size": 7, "ttl": "1h30m", "max_bytes": "64KiB"}, Limits(7, 5_400_000, 65536)),
        ({"ttl": 0.5, "max_bytes": 10}, Limits(100, 500, 10)),
        ({"ttl": 20, "mode": "latest"}, Limits(1, 20_000, 1024**2)),
    ],
)
def test_what_is_said_is_kept(options: dict[str, Any], limits: Limits) -> None:
    history = History(**options)
    assert history.limits == limits
    assert history == History(**options)
    assert history.mode == options.get("mode", "all")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "number of messages"),
        ({"size": -1}, "number of messages"),
        ({"size": True}, "number of messages"),
        ({"size": "10"}, "number of messages"),
        ({"size": 10**7}, "1 to 1000000"),
        ({"ttl": 0}, "above 0"),
        ({"ttl": "0s"}, "above 0"),
        ({"ttl": -1.0}, "above 0"),
        ({"ttl": "soon"}, "10m"),
        ({"ttl": float("inf")}, "a year"),
        ({"ttl": float("nan")}, "a year"),
        ({"ttl": "400d"}, "a year"),
        ({"ttl": None}, "10m"),
        ({"ttl": True}, "10m"),
        ({"max_bytes": 0}, "above 0"),
        ({"max_bytes": "0"}, "above 0"),
        ({"max_bytes": "1 parsec"}, "1MiB"),
        ({"max_bytes": 1.5}, "1MiB"),
        ({"mode": "some"}, "latest"),
    ],
)
def test_what_cannot_be_kept_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        History(**options)


def test_a_top_is_known_for_much_longer_than_entries() -> None:
    assert History(ttl="1h").limits.meta_ttl == 10 * 3_600_000
    assert History(ttl=1).limits.meta_ttl >= 300_000  # an idempotency key's
