"""What `inv lock` records of bases, from a registry on loopback that has AWS's names and tags."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import Project, anonymous, silent
from slipway.engine import (
    BuildAttempt,
    BuildRequest,
    ContextFile,
    Engine,
    build_image,
    push_image_layers,
)
from slipway.matrix import Base, Matrix, Registry
from slipway.matrix.model import Family
from slipway.records import BaseLock, load_locks
from slipway.registry.manifests import SCHEMA2
from slipway.resolve import LockOptions, update_locks
from slipway.resolve.base_lookup import resolve_base
from tests.support.lock_samples import addon, base, image, wheel
from tests.support.registry.images import unique

pytest_plugins = ["tests.support.registry.fixtures"]

TAG = "2.8.0-gpu-py312-cu129-ubuntu22.04-sagemaker"
FAMILY = Family("dlc-system", "apt", "/opt/python", "/", "root")


@pytest.fixture
def upstream(data_registry: str) -> Base:
    """A base whose registry is on loopback; nothing is there yet."""
    repository = unique()
    public = Registry("dlc", {}, data_registry, (repository,))
    made = base("pytorch-2.8-sagemaker-gpu", registry=public, family=FAMILY)
    return replace(made, repository=repository, tag=TAG)


def publish(engine: Engine, tiny_base: str, upstream: Base, packages: str) -> str:
    """Push an image whose interpreter only ever lists these packages; gives its digest."""
    assert upstream.registry is not None
    reference = f"{upstream.registry.public}/{upstream.repository}:{upstream.tag}"
    interpreter = f"#!/bin/sh\necho '{packages}'\n".encode()
    build_image(
        engine,
        BuildRequest(
            dockerfile=f'FROM {tiny_base}\nCOPY python /opt/python\nENV A="b c"\nWORKDIR /w\n',
            context=(ContextFile("python", interpreter, 0o755),),
            tags=(reference,),
            build_args={},
            labels={"com.amazonaws.ml.engines": "true"},
            secrets={},
        ),
        BuildAttempt(
            task="publish",
            credentials=anonymous,
            on_event=silent,
            log=Path(os.devnull),
        ),
    )
    digest = push_image_layers(engine, reference, credentials=anonymous, on_event=silent)
    engine.client.images.remove(reference)  # whoever locks has not pulled it
    return digest


def test_a_base_is_recorded_by_digest_media_type_size_and_configuration(
    engine: Engine, tiny_base: str, upstream: Base
) -> None:
    digest = publish(engine, tiny_base, upstream, "{}")
    found = resolve_base(upstream, None, anonymous)
    assert (found.digest, found.media_type, found.unresolved) == (digest, SCHEMA2, None)
    assert found.size is not None
    assert found.size > 1000
    assert found.config is not None
    assert "A=b c" in found.config["Env"]
    assert found.config["WorkingDir"] == "/w"
    assert found.config["Labels"] == {"com.amazonaws.ml.engines": "true"}


def test_a_tag_that_the_registry_lacks_is_unresolved_with_that_reason(
    engine: Engine, tiny_base: str, upstream: Base
) -> None:
    publish(engine, tiny_base, upstream, "{}")
    found = resolve_base(replace(upstream, tag="2.8.0-none"), None, anonymous)
    assert found == BaseLock(upstream.name, unresolved="its registry has no such tag")


def test_packages_are_read_out_of_the_base_and_a_moved_digest_has_them_read_again(
    engine: Engine,
    tiny_base: str,
    upstream: Base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links = tmp_path / "links"
    for name in ("pip", "setuptools", "wheel", "helper"):
        wheel(links, name, "2")
    wheel(links, "addon", "1", ["torch", "helper"])
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    cell = image(upstream, addon("addon", "1"))
    assert upstream.registry is not None
    matrix = Matrix((cell,), (upstream,), {"dlc": upstream.registry}, {}, cell.name, "prefix")
    project = Project(tmp_path / "checkout", tmp_path / "state")

    def relock(*, pull: bool) -> tuple[str, ...]:
        return update_locks(
            project,
            matrix,
            matrix.images,
            LockOptions(None, anonymous, engine, pull=pull),
        ).changes

    first = publish(engine, tiny_base, upstream, '{"torch": "2.8.0"}')
    relock(pull=False)
    locks = load_locks(project)
    assert locks.bases[upstream.name].packages is None, "nothing is pulled unasked"
    assert "py312_addon-1" in locks.python

    relock(pull=True)
    locks = load_locks(project)
    assert locks.bases[upstream.name].packages == {"torch": "2.8.0"}
    key = "pytorch-2.8-sagemaker-gpu_addon-1"
    assert [pin.name for pin in locks.python[key].pins] == ["addon", "helper"]
    assert "py312_addon-1" not in locks.python

    second = publish(engine, tiny_base, upstream, '{"torch": "2.8.0", "helper": "1"}')
    changes = relock(pull=True)
    assert f"base {upstream.name}: digest moved from {first} to {second}" in changes
    assert [pin.name for pin in load_locks(project).python[key].pins] == ["addon"]
