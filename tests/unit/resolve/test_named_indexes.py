"""A package index by name: resolved and fetched from it, and its address in no lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError
from slipway.records import load_locks, python_lock_path, write_python_lock
from slipway.resolve.pip_settings import PipSettings
from slipway.resolve.python_locks import ClosureRequest, LockSetting, update_closure
from slipway.resolve.uv import Resolver
from slipway.wheels import fetch_wheels, index_url
from tests.support.lock_samples import sha256, wheel
from tests.support.loopback_files import serve_files

WANT = ClosureRequest(
    "py312_addon-1+cu130",
    "addon",
    ("addon==1+cu130",),
    (LockSetting("a base", "3.12", {}),),
    index="team-x",
)


def publish(root: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> Path:
    """A wheel on the simple page (PEP 503) of an index below `root`."""
    page = root / "simple" / name
    page.mkdir(parents=True)
    file = wheel(page, name, version, list(requires))
    link = f'<a href="{file.name}#{sha256(file).replace(":", "=")}">{file.name}</a>'
    (page / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    return file


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """pip's own index, which has what the add-on needs, and the one that has the add-on."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "SLIPWAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    publish(tmp_path / "main", "helper", "1")
    publish(tmp_path / "team", "addon", "1+cu130", ("helper",))
    with serve_files(tmp_path / "main") as main, serve_files(tmp_path / "team") as team:
        monkeypatch.setenv("PIP_INDEX_URL", f"{main}/simple")
        yield f"{main}/simple", f"{team}/simple"


def test_a_closure_comes_from_both_and_the_lock_has_a_name_only(
    tmp_path: Path, indexes: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main, team = indexes
    monkeypatch.setenv("SLIPWAY_INDEX_TEAM_X", team)
    project = Project(tmp_path, tmp_path / "state")
    resolver = Resolver(PipSettings(index_url=main), tmp_path / "uv")
    closure = update_closure(WANT, {}, resolver)
    assert [(pin.name, pin.version) for pin in closure.pins] == [
        ("addon", "1+cu130"),
        ("helper", "1"),
    ]
    write_python_lock(project, closure)
    text = python_lock_path(project, WANT.key).read_text()
    assert "# index: team-x\n" in text
    assert "127.0.0.1" not in text
    assert load_locks(project).python == {WANT.key: closure}

    files = fetch_wheels(project, closure.pins, "3.12", index=closure.index)
    assert [file.name for file in files] == [
        "addon-1+cu130-py3-none-any.whl",
        "helper-1-py3-none-any.whl",
    ]
    monkeypatch.delenv("SLIPWAY_INDEX_TEAM_X")
    assert fetch_wheels(project, closure.pins, "3.12", index=closure.index) == files
    assert update_closure(WANT, {WANT.key: closure}, resolver) is closure


def test_an_index_that_this_machine_does_not_know_is_named_with_both_cures(
    tmp_path: Path, indexes: tuple[str, str]
) -> None:
    resolver = Resolver(PipSettings(index_url=indexes[0]), tmp_path / "uv")
    with pytest.raises(SlipwayError, match=r"'team-x' of .* is not said on this") as caught:
        update_closure(WANT, {}, resolver)
    assert "pip config set slipway-index.team-x URL" in str(caught.value.cure)
    assert "SLIPWAY_INDEX_TEAM_X" in str(caught.value.cure)


def test_pip_s_configuration_says_where_an_index_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text("[slipway-index]\nof-a-file = https://example.invalid/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    assert index_url("of-a-file") == "https://example.invalid/simple"
    monkeypatch.setenv("SLIPWAY_INDEX_OF_A_FILE", "https://other.invalid/simple")
    assert index_url("of-a-file") == "https://other.invalid/simple"
