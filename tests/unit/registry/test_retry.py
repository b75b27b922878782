from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest

from slipway.registry import RetryPolicy
from slipway.registry.distribution.retry import HostPause, host_pause, retry_after


def test_waits_double_up_to_the_cap() -> None:
    policy = RetryPolicy(base=1.0, cap=5.0)
    assert [policy.delay(n, rand=lambda: 1.0) for n in (1, 2, 3, 4, 50)] == [1, 2, 4, 5, 5]


def test_jitter_spreads_a_wait_from_nothing_to_its_full_length() -> None:
    policy = RetryPolicy(base=1.0, cap=100.0)
    assert policy.delay(4, rand=lambda: 0.0) == 0.0
    assert policy.delay(4, rand=lambda: 0.5) == 4.0
    assert all(0.0 <= policy.delay(4) <= 8.0 for _ in range(100))


def test_retry_after_is_never_shortened_by_chance_but_has_an_end() -> None:
    policy = RetryPolicy(base=1.0, obey=60.0)
    assert policy.delay(1, 10.0, rand=lambda: 0.0) == 10.0
    assert policy.delay(1, 10.0, rand=lambda: 1.0) == 11.0
    assert policy.delay(1, 3600.0) == 60.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2020 07:28:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    header: str | None, seconds: float | None
) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=timezone.utc)
    assert retry_after(header, now=now) == seconds


def test_a_host_has_one_gate_and_hosts_do_not_share_it() -> None:
    assert host_pause("one.example") is host_pause("one.example")
    assert host_pause("one.example") is not host_pause("two.example")


def test_a_held_gate_makes_everyone_wait_the_longest_time_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(time, "sleep", slept.append)
    held = HostPause()
    held.wait()
    assert slept == []
    held.hold(9.0)
    held.hold(3.0)
    held.wait()
    assert slept == [9.0]
