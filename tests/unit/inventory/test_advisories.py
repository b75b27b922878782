"""Advisories in OSV's form, joined with what an image has."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from slipway.core import UsageError
from slipway.inventory import read_advisories
from slipway.records import ImageInventory, SystemPackage


def advisory(ecosystem: str, name: str, *events: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "id": "X-1",
        "summary": "a  hole",
        "affected": [
            {
                "package": {"ecosystem": ecosystem, "name": name},
                "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
            }
        ],
        **more,
    }


def image(version: str = "2.8.0", **more: Any) -> ImageInventory:
    fields = {"distribution": "debian 12", "manager": "dpkg", "system": ()} | more
    return ImageInventory(python={"torch": version}, config={}, layers=(), **fields)


def lines(folder: Path, document: dict[str, Any], inventory: ImageInventory) -> list[str]:
    (folder / "a.json").write_text(json.dumps(document))
    return [str(each) for each in read_advisories(folder, [inventory])[0]]


def test_a_version_between_introduced_and_fixed_is_affected(tmp_path: Path) -> None:
    events = ({"introduced": "2.0"}, {"fixed": "2.9.0"}, {"introduced": "2.11"})
    document = advisory("PyPI", "Torch", *events, aliases=["CVE-1"])
    expected = ["python torch 2.8.0: X-1, CVE-1 (fixed in 2.9.0) a hole"]
    assert lines(tmp_path, document, image()) == expected
    turned = advisory("PyPI", "Torch", *reversed(events), aliases=["CVE-1"])
    assert lines(tmp_path, turned, image()) == expected
    for version in ("1.9", "2.9.0", "2.10.0"):
        assert lines(tmp_path, document, image(version)) == []
    assert lines(tmp_path, document, image("2.11")) == [
        "python torch 2.11: X-1, CVE-1 (no fixed version) a hole"
    ]


def test_the_last_affected_version_is_affected_and_the_next_is_not(tmp_path: Path) -> None:
    document = advisory("PyPI", "torch", {"introduced": "0"}, {"last_affected": "2.8.0"})
    assert len(lines(tmp_path, document, image())) == 1
    assert lines(tmp_path, document, image("2.8.1")) == []


def test_listed_versions_withdrawn_advisories_and_commits(tmp_path: Path) -> None:
    affected = {"package": {"ecosystem": "PyPI", "name": "torch"}, "versions": ["2.8.0"]}
    assert len(lines(tmp_path, {"id": "X", "affected": [affected]}, image())) == 1
    withdrawn = {"id": "X", "affected": [affected], "withdrawn": "2026-01-01T00:00:00Z"}
    assert lines(tmp_path, withdrawn, image()) == []
    commits = advisory("PyPI", "torch")
    commits["affected"][0]["ranges"] = [{"type": "GIT", "events": [{"introduced": "0"}]}]
    assert lines(tmp_path, commits, image()) == []


@pytest.mark.parametrize(
    ("distribution", "ecosystem", "affected"),
    [
        ("debian 12", "Debian:12", True),
        ("debian 12", "Debian:11", False),
        ("ubuntu 22.04", "Ubuntu:22.04:LTS", True),
    ],
)
def test_debian_advisories_name_the_source_and_its_version(
    tmp_path: Path, distribution: str, ecosystem: str, affected: bool
) -> None:
    libssl = SystemPackage("libssl3", "3.0.11-1+b1", "amd64", "openssl", "3.0.11-1~deb12u2")
    document = advisory(ecosystem, "openssl", {"introduced": "0"}, {"fixed": "3.0.11-1"})
    told = lines(tmp_path, document, image(distribution=distribution, system=(libssl,)))
    expected = ["dpkg libssl3 3.0.11-1~deb12u2: X-1 (fixed in 3.0.11-1) a hole"]
    assert told == (expected if affected else [])


def test_rpm_advisories_name_the_package_with_its_epoch(tmp_path: Path) -> None:
    package = SystemPackage("openssl-libs", "1:3.0-1", "x86_64", "openssl", "1:3.0-1")
    document = advisory("AlmaLinux:9", "openssl-libs", {"introduced": "0"}, {"fixed": "1:3.0-2"})
    inventory = image(distribution="almalinux 9.4", manager="rpm", system=(package,))
    assert len(lines(tmp_path, document, inventory)) == 1


def test_archives_of_advisories_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        document = advisory("PyPI", "torch", {"introduced": "0"})
        archive.writestr("X-1.json", json.dumps(document))
    both = read_advisories(tmp_path, [image(), image("3")])
    assert [len(each) for each in both] == [1, 1]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b"[1]"), ("a.json", b'{"affected": 1}'), ("a.json", b"{"), ("all.zip", b"no")],
)
def test_what_is_no_advisory_is_said_with_its_file(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        read_advisories(tmp_path, [image()])


def test_a_folder_without_advisories_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \.json and no \.zip"):
        read_advisories(tmp_path, [image()])
