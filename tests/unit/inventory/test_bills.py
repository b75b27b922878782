"""Bills of materials: what is in them, and that they read back as what they were made from."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from slipway.core import SlipwayError, anonymous
from slipway.inventory import (
    BilledImage,
    LayeredImage,
    open_layered_image,
    read_bill,
    run_settings,
    write_bill,
)
from slipway.records import ImageInventory, SystemPackage
from tests.support.oci_bases import base_tar, write_base

LIBSTDC = SystemPackage("libstdc++6", "12.2.0-14+b1", "amd64", "gcc-12", "12.2.0-14")
ZLIB = SystemPackage("zlib1g", "1:1.2.13", "amd64", "zlib", "1:1.2.13")
BASE = ImageInventory(
    "debian 12", "dpkg", {"torch": "2.13.0+cpu", "numpy": "1"}, (LIBSTDC, ZLIB), {}, ()
)
OURS = dataclasses.replace(BASE, python={**BASE.python, "numpy": "2", "deepspeed": "0.19.8"})
BILLED = BilledImage(
    name="one-cell",
    repository="127.0.0.1:5055/team/Image",
    digest=f"sha256:{'1' * 64}",
    created="2026-01-02T03:04:05.678Z",
    base_name="pytorch:2.13",
    base_digest=f"sha256:{'2' * 64}",
    hashes={"deepspeed": "3" * 64},
    tools={"s5cmd": ("2.3.0", "4" * 64)},
)


@pytest.fixture
def image(tmp_path: Path) -> LayeredImage:
    write_base(tmp_path, [base_tar({"a": b""})])
    with open_layered_image(f"oci:{tmp_path}", anonymous) as opened:
        return opened


def document(**changes: Any) -> dict[str, Any]:
    inventory = dataclasses.replace(OURS, **changes)
    return json.loads(write_bill(BILLED, inventory, BASE))  # type: ignore[no-any-return]


def test_packages_have_urls_that_scanners_know() -> None:
    urls = {
        entry["name"]: entry["externalRefs"][0]["referenceLocator"]
        for entry in document()["packages"]
        if "externalRefs" in entry
    }
    assert urls == {
        "one-cell": f"pkg:oci/image@sha256:{'1' * 64}?repository_url=127.0.0.1:5055%2Fteam%2FImage",
        "torch": "pkg:pypi/torch@2.13.0%2Bcpu",
        "numpy": "pkg:pypi/numpy@2",
        "deepspeed": "pkg:pypi/deepspeed@0.19.8",
        "libstdc++6": "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bb1"
        "?arch=amd64&distro=debian-12&upstream=gcc-12%4012.2.0-14",
        "zlib1g": "pkg:deb/debian/zlib1g@1:1.2.13"
        "?arch=amd64&distro=debian-12&upstream=zlib%401:1.2.13",
        "s5cmd": "pkg:generic/s5cmd@2.3.0",
    }


def test_what_the_base_has_unchanged_is_the_bases() -> None:
    bill = document()
    names = {entry["SPDXID"]: entry["name"] for entry in bill["packages"]}
    contains: dict[str, set[str]] = {"SPDXRef-image": set(), "SPDXRef-base": set()}
    for each in bill["relationships"]:
        if each["relationshipType"] == "CONTAINS":
            contains[each["spdxElementId"]].add(names[each["relatedSpdxElement"]])
    assert contains == {
        "SPDXRef-image": {"numpy", "deepspeed", "s5cmd"},
        "SPDXRef-base": {"torch", "libstdc++6", "zlib1g"},
    }
    checksums = {e["name"]: e["checksums"] for e in bill["packages"] if "checksums" in e}
    assert set(checksums) == {"deepspeed", "s5cmd"}


def test_packages_that_were_added_are_the_images_with_their_hashes() -> None:
    jq = SystemPackage("jq", "1.6-2", "amd64", "jq", "1.6-2")
    moved = dataclasses.replace(ZLIB, version="1:1.3", source_version="1:1.3")
    added = {(p.name, p.version, p.architecture): str(n) * 64 for n, p in ((5, jq), (6, moved))}
    billed = dataclasses.replace(BILLED, packages=added)
    inventory = dataclasses.replace(OURS, system=(jq, LIBSTDC, moved))
    bill = json.loads(write_bill(billed, inventory, BASE))
    entries = {entry["SPDXID"]: entry for entry in bill["packages"]}
    found = {
        (entry["name"], entry["versionInfo"]): (
            each["spdxElementId"],
            [checksum["checksumValue"] for checksum in entry.get("checksums", ())],
        )
        for each in bill["relationships"]
        if each["relationshipType"] == "CONTAINS"
        for entry in [entries[each["relatedSpdxElement"]]]
        if entry["SPDXID"].startswith("SPDXRef-dpkg-")
    }
    assert found == {
        ("jq", "1.6-2"): ("SPDXRef-image", ["5" * 64]),
        ("zlib1g", "1:1.3"): ("SPDXRef-image", ["6" * 64]),
        (LIBSTDC.name, LIBSTDC.version): ("SPDXRef-base", []),
    }


def test_identifiers_are_those_that_spdx_takes_and_each_stands_once() -> None:
    twins = (ZLIB, dataclasses.replace(ZLIB, architecture="i386"))
    bill = document(system=(LIBSTDC, *twins))
    identifiers = [entry["SPDXID"] for entry in bill["packages"]]
    assert len(set(identifiers)) == len(identifiers) == 9
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", each) for each in identifiers)
    assert bill["creationInfo"]["created"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    "inventory",
    [
        OURS,
        dataclasses.replace(OURS, unknown=("Python distributions: hidden",), python={}),
        dataclasses.replace(
            OURS,
            system=None,
            distribution="",
            manager="",
            unknown=("packages of the distribution: unreadable",),
        ),
        dataclasses.replace(
            OURS,
            distribution="amzn 2023",
            manager="rpm",
            system=(SystemPackage("openssl-libs", "1:3.2-1", "x86_64", "openssl", "1:3.2-1"),),
        ),
    ],
)
def test_a_bill_reads_back_as_what_it_was_made_from(
    image: LayeredImage, inventory: ImageInventory
) -> None:
    raw = write_bill(BILLED, inventory, BASE)
    layers = tuple((part["digest"], part["size"]) for part in image.layers)
    expected = dataclasses.replace(inventory, config=run_settings(image.config), layers=layers)
    assert read_bill(raw, image) == expected


def test_a_bill_of_others_is_not_read_and_a_damaged_one_is_said(image: LayeredImage) -> None:
    foreign = document()
    foreign["creationInfo"]["creators"] = ["Tool: syft"]
    assert read_bill(json.dumps(foreign).encode(), image) is None
    for damaged in (b"{}", b"[]", b"x", json.dumps(document() | {"packages": [1]}).encode()):
        with pytest.raises(SlipwayError, match="cannot be read"):
            read_bill(damaged, image)
