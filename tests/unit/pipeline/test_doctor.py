"""What doctor says of the engine is what `ship` will do with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from slipway.pipeline.doctor import MachineCheck, engine_checks
from tests.support.engine_answers import PODMAN, answering_socket, json_answer


@pytest.fixture(autouse=True)
def able_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root on a machine that has dockerd: the embedded engine could be started."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)


def _engine(root: Path, choice: str) -> MachineCheck:
    (only,) = engine_checks(root, choice)
    return only


def test_an_engine_that_a_setting_names_is_not_replaced_by_the_embedded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering_socket(tmp_path, json_answer(PODMAN)) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        check = _engine(tmp_path, "auto")
    assert check.state == "wrong"
    assert "this is Podman" in check.found
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    assert _engine(tmp_path, "auto").found == "no Docker daemon answers"
    assert _engine(tmp_path, f"unix://{tmp_path}/none").state == "wrong"


def test_a_context_that_is_not_there_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    check = _engine(tmp_path, "auto")
    assert check.state == "wrong"
    assert "there is no Docker context 'gone'" in check.found


def test_the_embedded_engine_that_ship_would_start_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path / "state"))
    assert _engine(tmp_path, "embedded").state == "ok"
