"""A run without an engine whose tag another builder takes while it builds.

The build and the push are stand-ins: what is held here is what follows from a refused tag. That
registries refuse one is held in tests/system/registry.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.core import Project, silent
from slipway.pipeline import Checkout, ShipRequest
from slipway.pipeline.appended.appended_builds import AppendContext
from slipway.pipeline.image_run import ImageRun, StageResult
from slipway.pipeline.targets import SharedImage, TargetImages
from slipway.records import BuildRecord, ImageRecord, load_record
from slipway.registry import ImmutableTagError, Target

# The room's face has a function of the module's name.
RUN = importlib.import_module("slipway.pipeline.appended.ship_appended")
ROOT = Path(__file__).parents[3]
TARGET = Target("local", "local", "127.0.0.1:5055", None)
OURS = f"sha256:{'0' * 64}"


def lose_the_race(
    monkeypatch: pytest.MonkeyPatch, folder: Path, winner: SharedImage | None
) -> tuple[AppendContext, ImageRun]:
    """One image built here; its push is refused, and the target then has what `winner` says."""
    at_root = Checkout.at(ROOT)
    checkout = Checkout(Project(ROOT, folder), at_root.matrix, at_root.locks)
    (image,) = checkout.chosen([])
    inputs = checkout.inputs([image])
    bases: Any = SimpleNamespace()
    settings: Any = SimpleNamespace(soci=False)
    context = AppendContext(checkout, settings, bases, lambda _: None, silent, inputs, TARGET)
    run = ImageRun(image, ImageRecord())

    def append_stage(context: AppendContext, run: ImageRun, delivery: object) -> None:
        assert delivery is opened
        values = inputs[image.name]
        built = BuildRecord(values.build_id, values.as_json(), "r:t", OURS, 1, 1.0)
        run.save(context.checkout.project, built=built)
        run.steps.append(StageResult("build", True, 1.0, "made here"))

    def deliver_stage(*_: Any) -> None:
        raise ImmutableTagError("the tag is another image's")

    opened = object()
    monkeypatch.setattr(RUN, "open_delivery", lambda *_: contextlib.nullcontext(opened))
    monkeypatch.setattr(RUN, "append_stage", append_stage)
    monkeypatch.setattr(RUN, "deliver_stage", deliver_stage)
    monkeypatch.setattr(
        RUN,
        "find_shared_images",
        lambda wanted, *_: {wanted[0].image.name: winner} if winner else {},
    )
    request = ShipRequest(("build", "push"), no_engine=True)
    RUN._ship(context, run, request, TargetImages(TARGET, {}))
    return context, run


def test_the_winners_image_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digest, config = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    winner = SharedImage(f"{TARGET.host}/a/b:tag", digest, config, "a type", 77)
    context, run = lose_the_race(monkeypatch, tmp_path, winner)
    assert run.failure is None
    assert [(step.name, step.fresh) for step in run.steps] == [("build", False), ("push", False)]
    record = load_record(context.checkout.project, run.image.name)
    assert record.built
    assert (record.built.image_id, record.built.size) == (config, 77)
    pushed = record.pushed["local"]
    assert (pushed.digest, pushed.media_type, pushed.size) == (digest, "a type", 77)


def test_a_tag_that_nothing_has_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, run = lose_the_race(monkeypatch, tmp_path, None)
    assert isinstance(run.failure, ImmutableTagError)
