"""Real resolutions by uv, over wheels made here; no index and no network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

from slipway.core import SlipwayError
from slipway.records import Pin, pins_of, wheel_fits
from slipway.records.wheel_tags import tag_order
from slipway.resolve.base_stubs import is_stub, stub_version, write_stubs
from slipway.resolve.pip_settings import PipSettings
from slipway.resolve.uv import Resolver, ResolveRequest
from tests.support.lock_samples import sdist, sha256, wheel


@pytest.fixture
def links(tmp_path: Path) -> Path:
    folder = tmp_path / "links"
    folder.mkdir()
    return folder


@pytest.fixture
def resolver(tmp_path: Path, links: Path) -> Resolver:
    settings = PipSettings(no_index=True, find_links=(str(links),))
    return Resolver(settings, tmp_path / "uv-cache")


def versions(pins: tuple[Pin, ...]) -> dict[str, str]:
    return {pin.name: pin.version for pin in pins}


def test_what_the_base_has_is_neither_moved_nor_locked(links: Path, resolver: Resolver) -> None:
    wheel(links, "addon", "1", ["torch>=2", "numpy", "helper"])
    wheel(links, "helper", "1")
    wheel(links, "numpy", "2.5")
    wheel(links, "torch", "2.13.0")
    present = {"torch": "2.8.0", "numpy": "1.26.4"}
    pins = resolver.resolve(ResolveRequest(("addon==1",), "3.12", present=present))
    assert versions(pins) == {"addon": "1", "helper": "1"}


def test_a_local_version_of_the_base_counts_as_the_version_it_is(
    links: Path, resolver: Resolver
) -> None:
    wheel(links, "addon", "1", ["torch==2.8.0", "torch<=2.8.0"])
    pins = resolver.resolve(ResolveRequest(("addon==1",), "3.12", present={"torch": "2.8.0+cu129"}))
    assert versions(pins) == {"addon": "1"}


def test_a_conflict_names_the_package_both_sides_and_the_cure(
    links: Path, resolver: Resolver
) -> None:
    wheel(links, "addon", "1", ["protobuf>=5.28.1"])
    wheel(links, "protobuf", "6.0")
    question = ResolveRequest(
        ("addon==1",), "3.12", present={"protobuf": "3.20.3"}, on="pytorch-2.2"
    )
    with pytest.raises(SlipwayError) as caught:
        resolver.resolve(question)
    assert caught.value.what == (
        "addon==1 cannot be added without moving protobuf: addon asks for protobuf>=5.28.1, "
        "and there is protobuf 3.20.3 already"
    )
    assert caught.value.where == "base pytorch-2.2"
    assert "`moves:`" in str(caught.value.cure)
    assert "slipway.base" not in str(caught.value)


def test_a_conflict_two_steps_away_names_who_asks(links: Path, resolver: Resolver) -> None:
    wheel(links, "addon", "1", ["middle"])
    wheel(links, "middle", "3", ["numpy>=2,<3"])
    question = ResolveRequest(("addon==1",), "3.12", present={"numpy": "1.26.4"}, on="b")
    with pytest.raises(SlipwayError, match=r"middle asks for numpy>=2,<3, .* numpy 1\.26\.4 alre"):
        resolver.resolve(question)


def test_a_conflict_with_versions_yaml_itself_says_so(links: Path, resolver: Resolver) -> None:
    wheel(links, "addon", "1")
    question = ResolveRequest(("addon==1", "torch>2.9"), "3.12", present={"torch": "2.8.0"}, on="b")
    with pytest.raises(SlipwayError, match=r"versions\.yaml asks for torch>2\.9"):
        resolver.resolve(question)


def test_a_version_that_nobody_offers_is_said_plainly(links: Path, resolver: Resolver) -> None:
    wheel(links, "addon", "1")
    with pytest.raises(SlipwayError, match=r"addon==2 cannot be resolved: .*addon==2") as caught:
        resolver.resolve(ResolveRequest(("addon==2",), "3.12"))
    assert "versions.yaml" in str(caught.value.cure)


def test_an_index_that_does_not_answer_is_told_from_a_missing_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    closed = PipSettings(index_url="http://127.0.0.1:9/simple")
    with pytest.raises(SlipwayError, match="no package index answered"):
        Resolver(closed, tmp_path / "cache").resolve(ResolveRequest(("addon==1",), "3.12"))


def test_markers_are_those_of_the_bases_python_and_not_of_the_hosts(
    links: Path, resolver: Resolver
) -> None:
    wheel(links, "addon", "1", ["old; python_version < '3.11'", "new; python_version >= '3.11'"])
    wheel(links, "old", "1")
    wheel(links, "new", "1")
    assert "old" in versions(resolver.resolve(ResolveRequest(("addon==1",), "3.10")))
    assert "new" in versions(resolver.resolve(ResolveRequest(("addon==1",), "3.13")))


def test_only_the_best_wheel_for_the_bases_python_is_pinned(
    links: Path, resolver: Resolver
) -> None:
    made = {
        tag: wheel(links, "addon", "1", tag=tag)
        for tag in (
            "cp311-cp311-manylinux_2_17_x86_64",
            "cp312-cp312-manylinux_2_17_x86_64",
            "cp312-cp312-manylinux_2_28_x86_64",
            "cp312-cp312-manylinux_2_39_x86_64",
            "cp312-cp312-manylinux_2_28_aarch64",
            "cp312-cp312-musllinux_1_2_x86_64",
            "py3-none-any",
        )
    }
    (pin,) = resolver.resolve(ResolveRequest(("addon==1",), "3.12"))
    assert pin.hashes == (sha256(made["cp312-cp312-manylinux_2_28_x86_64"]),)
    (pin,) = resolver.resolve(ResolveRequest(("addon==1",), "3.12", arch="arm64"))
    assert pin.hashes == (sha256(made["cp312-cp312-manylinux_2_28_aarch64"]),)


def test_a_package_without_a_fitting_wheel_is_found_to_need_a_build(
    links: Path, resolver: Resolver
) -> None:
    source = sdist(links, "addon", "1")
    wheel(links, "addon", "1", tag="cp311-cp311-win_amd64")
    (pin,) = resolver.resolve(ResolveRequest(("addon==1",), "3.12"))
    assert pin == Pin("addon", "1", (sha256(source),), source=True)


def test_versions_that_still_fit_stay_when_newer_ones_appear(
    links: Path, resolver: Resolver
) -> None:
    wheel(links, "addon", "1", ["helper"])
    wheel(links, "helper", "1")
    before = resolver.resolve(ResolveRequest(("addon==1",), "3.12"))
    wheel(links, "helper", "2")
    assert resolver.resolve(ResolveRequest(("addon==1",), "3.12", before=before)) == before
    assert versions(resolver.resolve(ResolveRequest(("addon==1",), "3.12")))["helper"] == "2"


def test_a_wheel_that_appears_later_does_not_replace_a_pinned_file() -> None:
    def pylock(*names: str) -> str:
        wheels = ", ".join(
            f'{{ url = "https://i.invalid/{name}", hashes = {{ sha256 = "{number:064x}" }} }}'
            for number, name in enumerate(names)
        )
        return f'[[packages]]\nname = "a"\nversion = "1"\nwheels = [{wheels}]\n'

    old = "a-1-py3-none-any.whl"
    before = pins_of(pylock(old), "3.12", "amd64")
    later = pylock(old, "a-1-cp312-cp312-manylinux_2_28_x86_64.whl")
    assert pins_of(later, "3.12", "amd64", before) == before
    assert pins_of(later, "3.12", "amd64") != before


def test_every_file_of_a_base_fits_a_python_of_that_version_only() -> None:
    assert wheel_fits("a-1-cp312-cp312-manylinux_2_28_x86_64.whl", "3.12", "amd64") is not None
    assert wheel_fits("a-1-cp312-cp312-manylinux_2_28_x86_64.whl", "3.13", "amd64") is None
    assert wheel_fits("a-1-cp39-abi3-manylinux2014_x86_64.whl", "3.13", "amd64") is not None
    assert wheel_fits("a-1-cp312-cp312-manylinux_2_34_x86_64.whl", "3.12", "amd64") is None
    assert wheel_fits("not a wheel", "3.12", "amd64") is None
    assert len(tag_order("3.12", "amd64")) == len(set(tag_order("3.12", "amd64").values()))


@pytest.mark.parametrize("version", ["2.8.0", "2.13.0+cpu", "1.0rc1", "2!1.0.post1"])
def test_a_stub_is_an_installable_wheel_of_a_version_that_no_index_can_have(
    tmp_path: Path, version: str
) -> None:
    constraints = write_stubs(tmp_path, {"Some_Package": version})
    (path,) = tmp_path.iterdir()
    assert constraints == f"some-package=={stub_version(version)}\n"
    assert is_stub(stub_version(version))
    assert Version(stub_version(version)).public == Version(version).public
    with zipfile.ZipFile(path) as archive:
        metadata = archive.read(f"some_package-{stub_version(version)}.dist-info/METADATA")
    assert f"Version: {stub_version(version)}".encode() in metadata


def test_a_base_package_with_a_version_that_is_none_is_left_out(tmp_path: Path) -> None:
    assert write_stubs(tmp_path, {"odd": "0.1-git-dirty+??"}) == "\n"
    assert list(tmp_path.iterdir()) == []
