"""What sdists build with is read from their metadata; a wheel is preferred where there is one."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from slipway.core import SlipwayError
from slipway.records import BUILD, Pin, SdistBuild
from slipway.resolve.build_requirements import build_requires, sdist_build_want
from slipway.resolve.python_locks import resolve_with_wheels
from slipway.resolve.uv import NoSolutionError, ResolveRequest

PIN = Pin("thing", "1", ("sha256:0",), source=True)
COMMON = (Pin("setuptools", "82.0", ()), Pin("wheel", "0.45", ()), Pin("pip", "26", ()))


def sdist(folder: Path, pyproject: str | None) -> Path:
    path = folder / "thing-1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        files = {"thing-1/setup.py": "", "thing-1/vendored/pyproject.toml": "[build-system]"}
        if pyproject is not None:
            files["thing-1/pyproject.toml"] = pyproject
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    ("pyproject", "expected"),
    [
        (None, ("setuptools",)),
        ("[project]\nname = 'thing'\n", ("setuptools",)),
        ("[build-system]\nrequires = []\n", ()),
        (
            '[build-system]\nrequires = ["Cython>=3.1", "cffi; sys_platform == \'win32\'"]\n',
            ("Cython>=3.1", 'cffi; sys_platform == "win32"'),
        ),
    ],
)
def test_requirements_are_those_of_the_top_folder(
    tmp_path: Path, pyproject: str | None, expected: tuple[str, ...]
) -> None:
    assert build_requires(sdist(tmp_path, pyproject)) == expected


def test_a_zip_is_an_sdist_too(tmp_path: Path) -> None:
    path = tmp_path / "thing-1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing-1/pyproject.toml", '[build-system]\nrequires = ["flit"]\n')
    assert build_requires(path) == ("flit",)


@pytest.mark.parametrize(
    "text", ["[build-system", '[build-system]\nrequires = ["a b"]\n', "build-system = 3\n"]
)
def test_metadata_that_cannot_be_read_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(SlipwayError, match=r"thing-1\.tar\.gz"):
        build_requires(sdist(tmp_path, text))


@pytest.mark.parametrize(
    ("requires", "asked"),
    [
        (("setuptools", "wheel"), None),
        (("setuptools>=61", "cffi; python_version < '3.0'"), None),
        (("setuptools<80",), ("pip", "setuptools<80")),
        (("hatchling",), ("pip", "hatchling")),
        (("setuptools[core]",), ("pip", "setuptools[core]")),
        (("cython; python_version < '3.10'",), ("pip", "cython; python_version < '3.10'")),
    ],
)
def test_an_sdist_has_a_lock_of_its_own_where_the_common_one_is_not_enough(
    requires: tuple[str, ...], asked: tuple[str, ...] | None
) -> None:
    want = sdist_build_want(SdistBuild(PIN, "3.9"), requires, COMMON)
    if asked is None:
        assert want is None
        return
    assert want is not None
    assert (want.key, want.addon, want.asked) == ("build_thing-1_py39", BUILD, asked)
    assert want.wheels_only, "what builds others is never built itself"


class Index:
    """A resolver that knows packages: name -> version -> whether it has a wheel, newest first."""

    def __init__(self, **packages: dict[str, bool]) -> None:
        self.packages = packages

    def resolve(self, question: ResolveRequest) -> tuple[Pin, ...]:
        """The newest of each package; as a wheel where that is asked for."""
        pins = []
        for name, versions in sorted(self.packages.items()):
            fitting = {v: w for v, w in versions.items() if w or name not in question.wheels_only}
            if not fitting:
                raise NoSolutionError(f"{name} has no usable wheels")
            version, has_wheel = next(iter(fitting.items()))
            pins.append(Pin(name, version, (), source=not has_wheel))
        return tuple(pins)


def test_an_older_version_with_a_wheel_is_better_than_a_newer_sdist() -> None:
    index = Index(
        gevent={"26.7": False, "25.9": True}, training={"5.1": False}, plain={"2": True, "1": True}
    )
    pins = resolve_with_wheels(index, ResolveRequest(("training",), "3.9"))
    assert {pin.name: (pin.version, pin.source) for pin in pins} == {
        "gevent": ("25.9", False),
        "training": ("5.1", True),
        "plain": ("2", False),
    }
