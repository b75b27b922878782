"""The daemon's lines about layers, told as one sum of bytes."""

from __future__ import annotations

from typing import Any

import pytest

from slipway.core import Event
from slipway.engine.transfer import LayerProgress, pushed_digest, registry_host

TASK = "pull x"


def _told(*lines: dict[str, Any]) -> list[Event]:
    events: list[Event] = []
    layers = LayerProgress(TASK, events.append)
    for line in lines:
        layers.take(line)
    return events


def _line(layer: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    detail = {"current": current, "total": total} if total else {}
    return {"id": layer, "status": status, "progressDetail": detail}


def _sums(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.current, event.total) for event in events if event.kind == "progress"]


def test_bytes_are_summed_over_all_layers() -> None:
    events = _told(
        _line("a", "Downloading", 10, 100),
        _line("b", "Downloading", 5, 50),
        _line("a", "Downloading", 100, 100),
    )
    assert _sums(events) == [(10, 100), (15, 150), (105, 150)]
    assert {event.unit for event in events} == {"B"}


def test_extracting_does_not_count_the_bytes_again() -> None:
    events = _told(
        _line("a", "Downloading", 100, 100),
        _line("a", "Extracting", 30, 100),
        _line("a", "Pull complete"),
    )
    assert _sums(events) == [(100, 100)]
    assert events[-1] == Event("done", TASK, "a", "Pull complete")


def test_a_layer_that_has_arrived_counts_in_full() -> None:
    events = _told(_line("a", "Downloading", 10, 100), _line("a", "Download complete"))
    assert _sums(events) == [(10, 100), (100, 100)]


def test_a_push_that_sends_more_than_was_announced_is_never_over_its_total() -> None:
    events = _told(
        _line("a", "Pushing", 512, 400),
        {"id": "a", "status": "Pushing", "progressDetail": {"current": 600}},
    )
    assert _sums(events) == [(512, 512), (600, 600)]


@pytest.mark.parametrize(
    "status", ["Already exists", "Layer already exists", "Mounted from team/app"]
)
def test_a_layer_that_is_there_already_is_cached(status: str) -> None:
    assert _told(_line("a", status)) == [Event("cached", TASK, "a", status)]


@pytest.mark.parametrize(
    "line",
    [
        {"status": "Pulling from team/app", "id": "v1"},
        {"status": "Digest: sha256:aa"},
        {"status": "Waiting", "id": "a", "progressDetail": {}},
        {"aux": {"Digest": "sha256:aa"}, "progressDetail": {}},
    ],
)
def test_lines_that_tell_nothing_of_a_layer_are_passed_over(line: dict[str, Any]) -> None:
    assert _told(line) == []


def test_the_digest_of_a_push_is_found_in_the_lines_of_either_kind_of_engine() -> None:
    digest = "sha256:" + "ab" * 32
    assert pushed_digest({"status": f"v1.0: digest: {digest} size: 695"}) == digest
    assert pushed_digest({"progressDetail": {}, "aux": {"Tag": "v1", "Digest": digest}}) == digest
    assert pushed_digest({"status": "Pushed", "id": "digest"}) is None


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("debian:12", "docker.io"),
        ("team/app:1", "docker.io"),
        ("localhost/app", "localhost"),
        ("127.0.0.1:5000/a/b@sha256:aa", "127.0.0.1:5000"),
        ("1.dkr.ecr.eu-west-1.amazonaws.com/a:1", "1.dkr.ecr.eu-west-1.amazonaws.com"),
    ],
)
def test_the_registry_of_a_reference_is_its_first_part_if_that_looks_like_a_host(
    reference: str, host: str
) -> None:
    assert registry_host(reference) == host
