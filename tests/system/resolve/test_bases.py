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
    Engine,
    build_image,
    push_image_layers,
)
from slipway.matrix import Base, Matrix, Registry
from slipway.matrix.model import Family
from slipway.records import BaseLock, load_inventory, load_locks
from slipway.registry import RegistryClient
from slipway.registry.manifests import SCHEMA2
from slipway.resolve import LockOptions, update_locks
from slipway.resolve.base_lookup import resolve_base
from tests.support.lock_samples import addon, base, image, wheel
from tests.support.oci_bases import base_tar
from tests.support.registry.images import put_oci_image, unique

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


def publish(engine: Engine, tiny_base: str, upstream: Base) -> str:
    """Push an image that an engine has built; gives its digest."""
    assert upstream.registry is not None
    reference = f"{upstream.registry.public}/{upstream.repository}:{upstream.tag}"
    build_image(
        engine,
        BuildRequest(
            dockerfile=f'FROM {tiny_base}\nENV A="b c"\nWORKDIR /w\n',
            context=(),
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
    digest = publish(engine, tiny_base, upstream)
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
    publish(engine, tiny_base, upstream)
    found = resolve_base(replace(upstream, tag="2.8.0-none"), None, anonymous)
    assert found == BaseLock(upstream.name, unresolved="its registry has no such tag")


def described(libc: str, **packages: str) -> bytes:
    """A layer with an interpreter, these distributions, and one package of Debian."""
    site = "opt/lib/python3.12/site-packages"
    status = f"Package: libc6\nStatus: install ok installed\nVersion: {libc}\nArchitecture: amd64\n"
    return base_tar(
        {
            "opt/bin/python": b"",
            "var/lib/dpkg/status": status.encode(),
            **{
                f"{site}/{name}-{version}.dist-info/METADATA": (
                    f"Name: {name}\nVersion: {version}\n".encode()
                )
                for name, version in packages.items()
            },
        }
    )


def put_described(plain: RegistryClient, upstream: Base, layer: bytes) -> str:
    """Have the base's tag name an image of this layer; gives its digest."""
    return put_oci_image(plain, upstream.repository, upstream.tag, layer=layer).digest


def test_what_is_in_a_base_is_read_from_its_layers_and_again_when_its_digest_moves(
    plain: RegistryClient,
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
    base = replace(upstream, family=replace(FAMILY, python="/opt/bin/python"))
    cell = image(base, addon("addon", "1"))
    assert base.registry is not None
    matrix = Matrix((cell,), (base,), {"dlc": base.registry}, {}, cell.name, "prefix")
    project = Project(tmp_path / "checkout", tmp_path / "state")

    def relock(**options: bool) -> tuple[str, ...]:
        return update_locks(
            project, matrix, matrix.images, LockOptions(None, anonymous, **options)
        ).changes

    first = put_described(plain, base, described("2.36-9", torch="2.8.0"))
    relock()
    locks = load_locks(project)
    assert locks.bases[base.name].packages is None, "no layer is read unasked"
    assert "py312_addon-1" in locks.python

    relock(inventory=True)
    locks = load_locks(project)
    assert locks.bases[base.name].packages == {"torch": "2.8.0"}
    inventory = load_inventory(project, locks.bases[base.name])
    assert inventory is not None
    assert [str(package) for package in inventory.system or ()] == ["libc6 2.36-9 amd64"]
    key = "pytorch-2.8-sagemaker-gpu_addon-1"
    assert [pin.name for pin in locks.python[key].pins] == ["addon", "helper"]
    assert "py312_addon-1" not in locks.python
    assert relock(inventory=True) == ()

    second = put_described(plain, base, described("2.36-8", torch="2.9.0", helper="1"))
    written = {path: path.read_bytes() for path in project.locks.rglob("*.*")}
    changes = relock(check=True)
    told = [line for line in changes if line.startswith(f"base {base.name}: ")]
    assert [line.partition(": ")[2] for line in told if "layer " not in line] == [
        f"digest moved from {first} to {second}",
        "python helper 1 (added)",
        "python torch 2.8.0 -> 2.9.0 (up)",
        "dpkg libc6 2.36-9 -> 2.36-8 (down)",
    ]
    assert {path: path.read_bytes() for path in project.locks.rglob("*.*")} == written
    relock()
    assert [pin.name for pin in load_locks(project).python[key].pins] == ["addon"]
