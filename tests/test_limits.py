"""Limits: a client's rate of messages, and how many connections there are. Time is a number here."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from velocity_ws.limits import ConnectionLimits, RateLimiter

NANOSECOND = 1e-9
"""Far below anything a clock measures, far above what floats round away in these tests."""


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def accepted_now(limiter: RateLimiter, at_most: int = 10_000) -> int:
    """How many messages pass without time passing."""
    count = 0
    while count < at_most and limiter.acquire() == 0:
        count += 1
    return count


rates = st.floats(0.01, 1000.0)
bursts = st.integers(0, 20)
starts = st.floats(0, 1e5)


# --- rate


@settings(max_examples=150, deadline=None)
@given(rates, st.integers(1, 20), starts, st.lists(st.floats(0, 2.0), min_size=1, max_size=80))
@example(rate=1.0, burst=1, start=0.0, pauses=[0.0, 1.0, 0.999, 0.001])
def test_no_window_ever_sees_more_than_burst_and_rate(
    rate: float, burst: int, start: float, pauses: list[float]
) -> None:
    clock = Clock(start)
    limiter = RateLimiter(rate, burst, clock)
    times: list[float] = []
    for pause in pauses:
        clock.now += pause / rate
        if limiter.acquire() == 0:
            times.append(clock.now)
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            allowed = burst + rate * (times[last] - begin)
            assert last - first + 1 <= allowed + 1e-3


@settings(max_examples=150, deadline=None)
@given(rates, bursts, starts, st.lists(st.floats(0, 1.0), max_size=20))
def test_retry_after_is_honest(rate: float, burst: int, start: float, pauses: list[float]) -> None:
    clock = Clock(start)
    limiter = RateLimiter(rate, burst, clock)
    for pause in pauses:
        clock.now += pause / rate
        limiter.acquire()
    accepted_now(limiter)
    retry_after = limiter.acquire()
    assert 0 < retry_after <= 1 / rate + NANOSECOND
    if retry_after < 1e-6:  # as near as the clock's own precision
        return
    clock.now += retry_after * 0.99
    assert limiter.acquire() > 0, "not clearly before"
    clock.now += retry_after * 0.01 + NANOSECOND
    assert limiter.acquire() == 0, "and then for sure: what was refused meanwhile has cost nothing"
    assert limiter.acquire() > 0


@pytest.mark.parametrize(("rate", "burst", "at_once"), [(5, 3, 3), (5, 200, 200), (0.1, 1, 1), (100, 200, 200)])
def test_burst_at_once(rate: float, burst: int, at_once: int) -> None:
    assert accepted_now(RateLimiter(rate, burst, Clock())) == at_once


@pytest.mark.parametrize(("rate", "at_once"), [(5.0, 5), (2.5, 3), (1.0, 1), (0.1, 1), (0.001, 1), (99.5, 100)])
def test_no_burst_means_a_seconds_worth_and_at_least_one(rate: float, at_once: int) -> None:
    assert accepted_now(RateLimiter(rate, 0, Clock())) == at_once


@settings(max_examples=60, deadline=None)
@given(rates, bursts)
def test_idling_saves_up_no_more_than_the_burst(rate: float, burst: int) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, burst, clock)
    at_once = accepted_now(limiter)
    clock.now += 1e6
    assert accepted_now(limiter) == at_once


def test_fractional_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(0.25, 1, clock)
    assert limiter.acquire() == 0
    assert limiter.acquire() == pytest.approx(4.0)
    clock.now = 1.0
    assert limiter.acquire() == pytest.approx(3.0)
    clock.now = 4.0
    assert limiter.acquire() == 0


def test_in_the_long_run_the_rate_is_reached() -> None:
    clock = Clock()
    limiter = RateLimiter(10, 5, clock)
    count = 0
    for _ in range(100 * 100):
        clock.now += 0.01
        count += limiter.acquire() == 0
    assert count == pytest.approx(10 * 100 + 5, abs=1)


# --- connections

addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "::1", None])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 6), st.integers(0, 3), st.lists(st.tuples(st.booleans(), addresses), max_size=40))
def test_admission_counts_who_is_in(limit: int, limit_per_ip: int, steps: list[tuple[bool, str | None]]) -> None:
    limits = ConnectionLimits(limit, limit_per_ip)
    inside: Counter[str | None] = Counter()
    for enters, ip in steps:
        if enters:
            full = limits.count_in(ip)
            if limit and inside.total() >= limit:
                assert full == "WS_MAX_CONNECTIONS"
            elif limit_per_ip and ip is not None and inside[ip] >= limit_per_ip:
                assert full == "WS_MAX_CONNECTIONS_PER_IP"
            else:
                assert full is None
                inside[ip] += 1
        elif inside[ip]:
            limits.count_out(ip)
            inside[ip] -= 1
    for ip in list(inside.elements()):
        limits.count_out(ip)
    # Counts are back at zero where everything fits in again, and not one more.
    for _ in range(limit):
        assert limits.count_in(None) is None
    assert (limits.count_in(None) is not None) == bool(limit)


def test_per_address_counts_return_to_zero() -> None:
    limits = ConnectionLimits(0, 2)
    for _ in range(3):
        assert [limits.count_in("a"), limits.count_in("a")] == [None, None]
        assert limits.count_in("a") == "WS_MAX_CONNECTIONS_PER_IP"
        assert limits.count_in("b") is None
        limits.count_out("b")
        limits.count_out("a")
        limits.count_out("a")


def test_an_address_that_left_is_forgotten() -> None:
    limits = ConnectionLimits(0, 1)
    for n in range(100):
        assert limits.count_in(f"2001:db8:{n:x}::1") is None
        limits.count_out(f"2001:db8:{n:x}::1")
        # Asking for, and refusing, must not leave anything behind either.
        assert limits.count_in("held") is None
        assert limits.count_in("held") == "WS_MAX_CONNECTIONS_PER_IP"
        limits.count_out("held")
    # A stranger has as many IPv6 addresses as it likes, so this is a leak that only the inside shows.
    assert not limits._by_ip


def test_zero_is_no_limit() -> None:
    limits = ConnectionLimits(0, 0)
    assert {limits.count_in("a") for _ in range(1000)} == {None}


@pytest.mark.parametrize("unknown", [None, ""])
def test_an_unknown_address_counts_in_the_total_alone(unknown: str | None) -> None:
    limits = ConnectionLimits(3, 1)
    assert [limits.count_in(unknown) for _ in range(4)] == [None, None, None, "WS_MAX_CONNECTIONS"]
    limits.count_out(unknown)
    assert limits.count_in("a") is None


@pytest.mark.parametrize(
    "spellings",
    [
        ["192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201", "0:0:0:0:0:ffff:192.0.2.1", "64:ff9b::192.0.2.1"],
        ["2001:db8::1", "2001:DB8:0:0::1", "2001:db8::2", "2001:db8:0:0:ffff:ffff:ffff:ffff"],
        ["::1", "0:0:0:0:0:0:0:1"],
        ["fe80::1%eth0", "FE80:0::1%eth0"],
        ["fe80::1", "fe80:0::1"],
    ],
)
def test_an_address_is_one_however_it_is_spelled_and_an_ipv6_client_is_its_64(spellings: list[str]) -> None:
    for first in spellings:
        for other in spellings:
            limits = ConnectionLimits(0, 1)
            assert limits.count_in(first) is None
            assert limits.count_in(other) == "WS_MAX_CONNECTIONS_PER_IP", (first, other)
            limits.count_out(other)
            assert limits.count_in(first) is None


def test_addresses_of_different_hosts_are_apart() -> None:
    limits = ConnectionLimits(0, 1)
    for ip in (
        "192.0.2.1", "::ffff:192.0.2.2", "64:ff9b::192.0.2.3", "2001:db8::1", "2001:db8:0:1::1", "::1", "127.0.0.1",
        "fe80::1", "fe80::2", "fe80::1%eth0", "fe80::1%eth1", "192.0.2.01", "testclient", "unknown", "%", "a" * 1000,
    ):  # fmt: skip
        assert limits.count_in(ip) is None, ip


def test_a_refused_one_is_not_counted() -> None:
    limits = ConnectionLimits(1, 0)
    assert limits.count_in("a") is None
    for _ in range(5):
        assert limits.count_in("b") == "WS_MAX_CONNECTIONS"
    limits.count_out("a")
    assert limits.count_in("b") is None
