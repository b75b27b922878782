"""The daemon that the docker CLI would use, and what is said of settings that are broken."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from slipway.core import Project
from slipway.engine import (
    DEFAULT_URL,
    EngineUnavailableError,
    connect,
    docker_endpoint,
    engine_kind,
)


def add_context(home: Path, name: str, content: object) -> Path:
    identity = hashlib.sha256(name.encode()).hexdigest()
    path = home / "contexts/meta" / identity / "meta.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def context(host: str, name: str = "big") -> dict[str, object]:
    return {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}}


@pytest.mark.parametrize(
    ("environ", "current", "url"),
    [
        ({}, None, DEFAULT_URL),
        ({}, "default", DEFAULT_URL),
        ({}, "big", "unix:///big.sock"),
        ({"DOCKER_CONTEXT": "big"}, None, "unix:///big.sock"),
        ({"DOCKER_CONTEXT": "default"}, "big", DEFAULT_URL),
        ({"DOCKER_HOST": "tcp://h:2375", "DOCKER_CONTEXT": "none"}, "none", "tcp://h:2375"),
        ({"DOCKER_HOST": ""}, "big", "unix:///big.sock"),
    ],
)
def test_settings_count_in_the_docker_clis_order(
    tmp_path: Path, environ: dict[str, str], current: str | None, url: str
) -> None:
    add_context(tmp_path, "big", context("unix:///big.sock"))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": current}))
    found = docker_endpoint({**environ, "DOCKER_CONFIG": str(tmp_path)})
    assert found.url == url
    assert bool(found.named_by) == (url != DEFAULT_URL)


def test_a_context_that_is_not_there_is_an_error_and_not_another_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(tmp_path, "big", context("unix:///big.sock"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "bigg")
    with pytest.raises(EngineUnavailableError, match=r"context 'bigg' \(did you mean big"):
        connect(Project(tmp_path, tmp_path / "state"))
    monkeypatch.delenv("DOCKER_CONTEXT")
    (tmp_path / "config.json").write_text('{"currentContext": "gone"}')
    with pytest.raises(EngineUnavailableError, match="'gone'") as refused:
        connect(Project(tmp_path, tmp_path / "state"))
    assert refused.value.where == f"currentContext in {tmp_path / 'config.json'}"


def test_a_context_whose_engine_does_not_answer_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(tmp_path, "big", context(f"unix://{tmp_path}/none.sock"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "big")
    with pytest.raises(EngineUnavailableError, match="no Docker daemon answers") as refused:
        connect(Project(tmp_path, tmp_path / "state"))
    assert "the context 'big' (DOCKER_CONTEXT)" in (refused.value.cure or "")


BROKEN = {
    "trailing comma": ('{\n"currentContext": "x",}', 2),  # the comma's line is the brace's
    "torn": ('{\n"currentContext": ', 2),
    "a list": ("[]", 1),
    "a number": ("7", 1),
    "not UTF-8": (b'{\n"a": "\xff"}', 2),
    "nested": ("[" * 100_000, 1),
    "a number of 5,000 digits": ('{"a": 1' + "0" * 5000 + "}", 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    content, line = BROKEN[name]
    data = content if isinstance(content, bytes) else content.encode()  # type: ignore[attr-defined]
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(EngineUnavailableError) as refused:
        docker_endpoint({"DOCKER_CONFIG": str(tmp_path)})
    assert refused.value.where == f"{tmp_path / 'config.json'}:{line}"
    assert refused.value.cure


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.json"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(EngineUnavailableError, match="cannot be read") as refused:
        docker_endpoint({"DOCKER_CONFIG": str(tmp_path)})
    assert refused.value.where == str(path)


def test_half_a_character_is_one_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"currentContext": "a\\ud800b"}')
    with pytest.raises(EngineUnavailableError, match=r"no Docker context 'a\?b'"):
        docker_endpoint({"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize("text", ["", " \n", "null", "\ufeff{}", '{"auths": null, "x": [1]}'])
def test_what_can_be_used_of_a_file_is_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert docker_endpoint({"DOCKER_CONFIG": str(tmp_path)}).url == DEFAULT_URL


@pytest.mark.parametrize("current", [7, [], {"a": 1}, True])
def test_a_current_context_of_another_type_is_named(tmp_path: Path, current: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": current}))
    with pytest.raises(EngineUnavailableError, match="not a context's name"):
        docker_endpoint({"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"Endpoints": None},
        {"Endpoints": {"docker": []}},
        {"Endpoints": {"docker": {"Host": None}}},
        {"Endpoints": {"kubernetes": {}}},
        "{",
        "null",
    ],
)
def test_a_context_that_cannot_be_read_is_an_error(tmp_path: Path, content: object) -> None:
    path = add_context(tmp_path, "big", content)
    with pytest.raises(EngineUnavailableError) as refused:
        docker_endpoint({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "big"})
    assert str(refused.value.where).startswith(str(path))


@pytest.mark.parametrize(
    ("version", "info", "kind"),
    [
        ({}, {}, "Docker"),
        ({"Platform": {"Name": "Docker Engine - Community"}}, {}, "Docker"),
        ({"Platform": {"Name": "Docker Desktop 4.30.0 (149282)"}}, {}, "Docker Desktop"),
        ({}, {"OperatingSystem": "Docker Desktop"}, "Docker Desktop"),
        ({}, {"SecurityOptions": ["name=rootless"]}, "rootless Docker"),
        ({"Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}, {}, "Podman"),
        ({"Components": None, "Platform": None}, {"SecurityOptions": None}, "Docker"),
    ],
)
def test_an_engine_is_named_as_what_it_is(
    version: dict[str, object], info: dict[str, object], kind: str
) -> None:
    assert engine_kind(version, info) == kind
