"""What a bill of materials is made of: the base's packages, less what goes, with what comes."""

from __future__ import annotations

from slipway.pipeline.targets.image_documents import _with_packages
from slipway.records import PackageFile, SystemLock, SystemPackage


def package(name: str, version: str, architecture: str = "amd64") -> SystemPackage:
    return SystemPackage(name, version, architecture, name, version)


def file(name: str, version: str) -> PackageFile:
    return PackageFile(name, version, "amd64", name, version, "debian", "p", "0" * 64, 1)


BASE = (package("libc", "1"), package("libc", "1", "i386"), package("old", "1"))


def test_layers_bring_move_and_remove_packages_one_after_the_other() -> None:
    lower = SystemLock("k", "lower", (), "", (file("jq", "1"), file("libc", "2")))
    upper = SystemLock("l", "upper", (), "", (file("jq", "2"), file("rival", "1")), ("old",))
    assert _with_packages(BASE, [lower, upper]) == (
        package("jq", "2"),
        package("libc", "1", "i386"),
        package("libc", "2"),
        package("rival", "1"),
    )


def test_of_a_base_that_cannot_be_told_nothing_is_told() -> None:
    assert _with_packages(None, [SystemLock("k", "a", (), "", (file("jq", "1"),))]) is None
    assert _with_packages(BASE, []) == BASE
