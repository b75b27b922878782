"""What is read of an image's layers: whiteouts, interpreters, package databases."""

from __future__ import annotations

import dataclasses
import io
import sqlite3
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest

from slipway.core import BadInputError, Event, Project, SlipwayError, anonymous, silent
from slipway.inventory import (
    LayerNotes,
    metadata_files,
    open_layered_image,
    read_inventory,
    read_package_database,
)
from slipway.inventory.rpm_database import rpm_packages
from slipway.records import (
    BaseLock,
    ImageInventory,
    SystemPackage,
    inventory_path,
    load_inventory,
    write_inventory,
)
from tests.support.oci_bases import base_tar, write_base

SITE = "opt/venv/lib/python3.12/site-packages"
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+b1
Description: GNU C Library
 Package: not-a-package

Package: gone
Status: deinstall ok config-files
Version: 1

Package: adduser
Status: hold ok installed
Architecture: all
Version: 3.134
"""
LIBC = SystemPackage("libc6", "2.36-9+b1", "amd64", "glibc", "2.36-9")
ADDUSER = SystemPackage("adduser", "3.134", "all", "adduser", "3.134")


def folders(*paths: str) -> dict[str, Any]:
    """The folders of paths, as a layer has them before."""
    return {
        "/".join(path.split("/")[:end]): None
        for path in paths
        for end in range(1, path.count("/") + 1)
    }


def distribution(name: str, version: str, site: str = SITE) -> dict[str, Any]:
    path = f"{site}/{name}-{version}.dist-info/METADATA"
    text = f"Name: {name}\nVersion: {version}\n\nThe text\nVersion: 9\n"
    return {**folders(path), path: text.encode()}


VENV = {**folders("opt/venv/bin/python"), "opt/venv/bin/python": "/usr/bin/python3"}


def inventory(folder: Path, *layers: dict[str, Any], interpreter: str = "") -> ImageInventory:
    write_base(folder / "image", [base_tar(layer) for layer in layers])
    with open_layered_image(f"oci:{folder / 'image'}", anonymous) as image:
        return read_inventory(image, LayerNotes(folder / "cache"), silent, interpreter)


NEEDS = """\
Package: tool
Status: install ok installed
Maintainer: somebody
Architecture: amd64
Version: 1
Depends: libc6 (>= 2.36),
 libtwo | libthree,
\tlibfour
Provides: a-tool (= 1)
Conffiles:
 /etc/tool 0123
Description: a tool
 Depends: nothing
"""


def test_what_a_resolver_starts_from_has_all_that_packages_need_of_each_other(
    tmp_path: Path,
) -> None:
    layer = {**folders("var/lib/dpkg/status"), "var/lib/dpkg/status": NEEDS.encode()}
    write_base(tmp_path / "image", [base_tar(layer)])
    notes = LayerNotes(tmp_path / "cache")
    with open_layered_image(f"oci:{tmp_path / 'image'}", anonymous) as image:
        # Nothing is streamed that was not asked for, and what was read once is known.
        assert read_package_database(image, notes, silent, stream=False) is None
        found = read_package_database(image, notes, silent)
        assert read_package_database(image, notes, silent, stream=False) == found
    assert found is not None
    assert found.manager == "dpkg"
    assert found.content.decode().splitlines() == [
        "Package: tool",
        "Status: install ok installed",
        "Architecture: amd64",
        "Version: 1",
        "Depends: libc6 (>= 2.36),",
        " libtwo | libthree,",
        "\tlibfour",
        "Provides: a-tool (= 1)",
    ]


def test_an_image_without_a_package_manager_has_no_database(tmp_path: Path) -> None:
    write_base(tmp_path / "image", [base_tar({"etc": None, "etc/os-release": b"ID=scratch\n"})])
    with open_layered_image(f"oci:{tmp_path / 'image'}", anonymous) as image:
        assert read_package_database(image, LayerNotes(tmp_path / "cache"), silent) is None


def test_what_the_last_layer_leaves_is_what_is_there(tmp_path: Path) -> None:
    image = inventory(
        tmp_path,
        VENV | distribution("torch", "2.8.0") | distribution("kept", "1"),
        distribution("Torch", "2.9.0")
        | {f"{SITE}/.wh.torch-2.8.0.dist-info": b"", "var/lib/dpkg/status": STATUS.encode()},
        {"etc/os-release": b'ID=debian\nVERSION_ID="12"\n'},
    )
    assert image.python == {"kept": "1", "torch": "2.9.0"}
    assert image.system == (ADDUSER, LIBC)
    assert (image.distribution, image.manager, image.unknown) == ("debian 12", "dpkg", ())
    assert len(image.layers) == 3
    assert image.config["Entrypoint"] == ["bash", "-m", "start.sh"]


@pytest.mark.parametrize(
    ("step", "title"),
    [
        ({"created_by": "/bin/sh -c #(nop) COPY file:1 in / "}, "COPY file:1 in /"),
        (
            {"created_by": "RUN pip install x # buildkit", "comment": "buildkit.dockerfile.v0"},
            "pip install x",
        ),
        ({"created_by": "RUN installer", "comment": "addon: wheel 9"}, "addon: wheel 9"),
        ({"created_by": "x" * 100}, "x" * 77 + "..."),
        ({}, ""),
    ],
)
def test_a_layer_is_titled_by_what_made_it(
    tmp_path: Path, step: dict[str, str], title: str
) -> None:
    history = [{"created_by": "ENV A=b", "empty_layer": True}, step]
    write_base(tmp_path, [base_tar({"a": b""})], more={"history": history})
    with open_layered_image(f"oci:{tmp_path}", anonymous) as image:
        assert list(image.layer_titles.values()) == [title]


def test_a_history_that_does_not_fit_gives_no_titles(tmp_path: Path) -> None:
    write_base(tmp_path, [base_tar({"a": b""})], more={"history": [{}, {}]})
    with open_layered_image(f"oci:{tmp_path}", anonymous) as image:
        assert image.layer_titles == {}


@pytest.mark.parametrize("hidden", [f"{SITE}/.wh..wh..opq", "opt/.wh.venv"])
def test_hidden_folders_hide_what_was_in_them(tmp_path: Path, hidden: str) -> None:
    image = inventory(tmp_path, VENV | distribution("torch", "1"), {hidden: b""})
    assert image.python == {}


def test_packages_of_another_interpreter_are_not_counted(tmp_path: Path) -> None:
    debian = "usr/lib/python3/dist-packages"
    layer = VENV | distribution("torch", "1") | distribution("apt", "2", debian)
    layer |= distribution("vendored", "3", f"{SITE}/torch/_vendor/site-packages")
    layer |= {"usr/bin/python3": b"", "usr/bin/python3.11": b""}
    layer |= distribution("local", "4", "usr/local/lib/python3.11/dist-packages")
    layer |= distribution("other", "5", "usr/local/lib/python3.9/site-packages")
    assert inventory(tmp_path, layer).python == {"torch": "1"}
    system = inventory(tmp_path, layer, interpreter="/usr/bin/python3").python
    assert system == {"apt": "2", "local": "4"}


def test_hard_links_to_a_cache_in_the_layer_are_followed(tmp_path: Path) -> None:
    cache = "root/.cache/uv/archive-v0/x/torch-1.dist-info/METADATA"
    link = tarfile.TarInfo(f"{SITE}/torch-1.dist-info/METADATA")
    link.type, link.linkname = tarfile.LNKTYPE, cache
    buffer = io.BytesIO(base_tar(VENV | {cache: b"Name: torch\nVersion: 1\n"}))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        tar.addfile(link)
    write_base(tmp_path / "image", [buffer.getvalue()])
    with open_layered_image(f"oci:{tmp_path / 'image'}", anonymous) as image:
        assert read_inventory(image, LayerNotes(tmp_path), silent).python == {"torch": "1"}


def test_a_layer_is_read_once_whatever_image_it_is_of(tmp_path: Path) -> None:
    first = VENV | distribution("torch", "1")
    inventory(tmp_path, first)
    events: list[Event] = []
    write_base(tmp_path / "image", [base_tar(first), base_tar(distribution("new", "2"))])
    with open_layered_image(f"oci:{tmp_path / 'image'}", anonymous) as image:
        again = read_inventory(image, LayerNotes(tmp_path / "cache"), events.append)
        lowest = read_inventory(image, LayerNotes(tmp_path / "cache"), events.append, layers=1)
    assert [event.kind for event in events] == ["start", "done"]
    assert (again.python, lowest.python) == ({"torch": "1", "new": "2"}, {"torch": "1"})


def test_what_cannot_be_told_is_said_and_not_taken_for_nothing(tmp_path: Path) -> None:
    seen = {"opt/venv/pyvenv.cfg": b"include-system-site-packages = true\n"}
    image = inventory(
        tmp_path, VENV | distribution("torch", "1") | seen | {"var/lib/rpm/Packages": b"hash"}
    )
    assert (image.python, image.system) == ({}, None)
    assert [text.partition(":")[0] for text in image.unknown] == [
        "Python distributions",
        "packages of the distribution",
    ]


def test_a_list_of_packages_that_is_too_large_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_files, "TEXT_MAX", len(STATUS) - 1)
    image = inventory(tmp_path, {"var/lib/dpkg/status": STATUS.encode()})
    assert image.system is None
    assert image.unknown == (
        "packages of the distribution: dpkg's list is larger than any that is read",
    )


def header(**values: tuple[int, str | int]) -> bytes:
    """An rpm header as the database keeps it: name=(tag, value)."""
    index, store = b"", b""
    for tag, value in values.values():
        if isinstance(value, int):
            store += b"\0" * (-len(store) % 4)
            index += struct.pack(">IIII", tag, 4, len(store), 1)
            store += struct.pack(">I", value)
        else:
            index += struct.pack(">IIII", tag, 6, len(store), 1)
            store += value.encode() + b"\0"
    return struct.pack(">II", len(values), len(store)) + index + store


def database(folder: Path, *headers: bytes) -> bytes:
    with sqlite3.connect(folder / "db") as connection:
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(h,) for h in headers])
    connection.close()
    return (folder / "db").read_bytes()


OPENSSL = header(
    name=(1000, "openssl-libs"),
    version=(1001, "3.2.2"),
    release=(1002, "1.amzn2023"),
    epoch=(1003, 1),
    arch=(1022, "x86_64"),
    source=(1044, "openssl-3.2.2-1.amzn2023.src.rpm"),
)
KEY = header(name=(1000, "gpg-pubkey"), version=(1001, "d832c631"), release=(1002, "1"))


def test_rpms_are_read_with_epoch_and_source_and_keys_are_no_packages(tmp_path: Path) -> None:
    expected = SystemPackage(
        "openssl-libs", "1:3.2.2-1.amzn2023", "x86_64", "openssl", "1:3.2.2-1.amzn2023"
    )
    raw = database(tmp_path, OPENSSL, KEY)
    assert rpm_packages(raw) == (expected,)
    image = inventory(tmp_path, {"usr/lib/sysimage/rpm/rpmdb.sqlite": raw})
    assert (image.manager, image.system) == ("rpm", (expected,))


@pytest.mark.parametrize(
    "damage",
    [
        OPENSSL[:40],
        struct.pack(">II", 1 << 30, 0) + OPENSSL[8:],
        struct.pack(">II", 1, 1 << 30) + OPENSSL[8:],
        OPENSSL.replace(
            struct.pack(">IIII", 1000, 6, 0, 1), struct.pack(">IIII", 1000, 6, 9999, 1)
        ),
        b"",
    ],
)
def test_a_damaged_header_is_no_package(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(SlipwayError, match="rpm's database cannot be read"):
        rpm_packages(database(tmp_path, damage))


def test_what_is_no_database_is_said() -> None:
    with pytest.raises(SlipwayError, match="rpm's database cannot be read"):
        rpm_packages(b"SQLite format 3\0" + b"x" * 5000)


def test_an_inventory_reads_back_for_its_digest_and_for_no_other(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path)
    lock = BaseLock("b", digest="sha256:1", config={"Env": ["A=b"]}, packages={"torch": "1"})
    recorded = ImageInventory(
        "debian 12",
        "dpkg",
        {"torch": "1"},
        (ADDUSER, LIBC),
        {"Env": ["A=b"]},
        (("sha256:2", 5),),
        ("Python distributions: unknown",),
    )
    assert load_inventory(project, lock) is None
    write_inventory(project, lock, recorded)
    assert load_inventory(project, lock) == recorded
    assert load_inventory(project, dataclasses.replace(lock, digest="sha256:3")) is None
    inventory_path(project, "b").write_text('{"digest": "sha256:1", "system": ["one"]}')
    with pytest.raises(BadInputError, match="not an inventory"):
        load_inventory(project, lock)
