"""A wheel as files: where each goes, and what must not be followed.

That all of it is what pip leaves is held by tests/system/append/test_pip.py.
"""

from __future__ import annotations

import csv
import posixpath
from pathlib import Path

import pytest

from slipway.append import wheel_layouts
from slipway.append.installation import marker_environment, unmet
from slipway.append.layer_files import ContentReader
from slipway.append.python_layout import PythonLayout
from slipway.append.wheel_files import InstalledWheel, install_wheel, versioned_scripts
from slipway.append.wheel_layouts import WheelLayouts
from slipway.core import SlipwayError
from tests.support.wheels import make_wheel

VENV = PythonLayout("/opt/venv/bin/python", "3.12")
SITE = "opt/venv/lib/python3.12/site-packages"


def contents(wheel: InstalledWheel) -> dict[str, tuple[int, bytes]]:
    found = {}
    with ContentReader() as reader:
        for file in wheel.files:
            found[file.path] = (file.mode, b"".join(reader.pieces(file)))
            assert len(found[file.path][1]) == file.size
    return found


def test_each_scheme_has_its_folder_and_scripts_name_the_interpreter(tmp_path: Path) -> None:
    wheel = make_wheel(
        tmp_path,
        "Odd-One",
        {
            "odd/__init__.py": b"",
            "odd/run.sh": b"#!/bin/sh\n",
            "odd/a,b.txt": b"x",
            "Odd_One-1.0.data/scripts/tool": b"#!python -E\nprint()\n",
            "Odd_One-1.0.data/scripts/plain": b"#!/bin/sh\n",
            "Odd_One-1.0.data/headers/odd.h": b"int x;",
            "Odd_One-1.0.data/data/share/odd.txt": b"text",
            "Odd_One-1.0.data/purelib/more.py": b"y = 1\n",
        },
        entry_points="[console_scripts]\nodd = odd:main.run [extra]\n",
        executable=["odd/run.sh", "Odd_One-1.0.data/scripts/plain"],
    )
    found = contents(install_wheel(wheel, "odd-one", VENV))
    modes = {path: mode for path, (mode, _) in found.items()}
    info = f"{SITE}/Odd_One-1.0.dist-info"
    assert modes == {
        f"{SITE}/odd/__init__.py": 0o644,
        f"{SITE}/odd/run.sh": 0o755,
        f"{SITE}/odd/a,b.txt": 0o644,
        f"{SITE}/more.py": 0o644,
        "opt/venv/bin/tool": 0o644,
        "opt/venv/bin/plain": 0o755,
        "opt/venv/bin/odd": 0o755,
        "opt/venv/share/odd.txt": 0o644,
        "opt/venv/include/site/python3.12/odd-one/odd.h": 0o644,
        f"{info}/METADATA": 0o644,
        f"{info}/WHEEL": 0o644,
        f"{info}/entry_points.txt": 0o644,
        f"{info}/INSTALLER": 0o644,
        f"{info}/REQUESTED": 0o644,
        f"{info}/RECORD": 0o644,
    }
    assert found["opt/venv/bin/tool"][1] == b"#!/opt/venv/bin/python\nprint()\n"
    script = found["opt/venv/bin/odd"][1].decode()
    assert script.startswith("#!/opt/venv/bin/python\n")
    assert "from odd import main\n" in script
    assert "sys.exit(main.run())" in script
    record = list(csv.reader(found[f"{info}/RECORD"][1].decode().splitlines()))
    paths = [row[0] for row in record]
    assert paths == sorted(posixpath.relpath(path, SITE) for path in modes)
    assert all(size for path, _, size in record if not path.endswith("/RECORD"))


def test_headers_of_a_plain_interpreter_lie_beside_its_own(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "odd", {"odd-1.0.data/headers/odd.h": b""})
    layout = PythonLayout("/opt/conda/bin/python", "3.11")
    paths = {file.path for file in install_wheel(wheel, "odd", layout).files}
    assert "opt/conda/include/python3.11/odd/odd.h" in paths


@pytest.mark.parametrize(
    "member", ["../up.py", "odd/../../up.py", "/etc/passwd", "odd-1.0.data/scripts/../../up"]
)
def test_a_member_that_leads_out_is_refused(tmp_path: Path, member: str) -> None:
    wheel = make_wheel(tmp_path, "odd", {member: b""})
    with pytest.raises(SlipwayError, match="leads out"):
        install_wheel(wheel, "odd", VENV)


@pytest.mark.parametrize(
    ("files", "entry_points", "reason"),
    [
        ({"odd-1.0.data/elsewhere/x": b""}, "", "no such scheme"),
        ({}, "[console_scripts]\nodd = odd\n", "no script"),
        ({}, "[console_scripts]\n../odd = odd:main\n", "no script"),
        ({"other-1.0.dist-info/METADATA": b""}, "", "2 folders"),
    ],
)
def test_what_pip_refuses_is_refused(
    tmp_path: Path, files: dict[str, bytes], entry_points: str, reason: str
) -> None:
    wheel = make_wheel(tmp_path, "odd", files, entry_points=entry_points)
    with pytest.raises(SlipwayError, match=reason):
        install_wheel(wheel, "odd", VENV)


def odd_wheel(folder: Path, text: bytes = b"x") -> Path:
    members = {
        "odd/__init__.py": text,
        "odd-1.0.data/scripts/tool": b"#!python\n",
        "odd-1.0.data/scripts/plain": b"#!/bin/sh\n",
    }
    scripts = "[console_scripts]\nodd = odd:main\n"
    return make_wheel(folder, "odd", members, requires=["a>=1"], entry_points=scripts)


def test_a_wheel_of_an_earlier_run_is_laid_out_as_it_was_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = odd_wheel(tmp_path)
    layouts = WheelLayouts(VENV, tmp_path / "notes")
    read = install_wheel(wheel, "odd", VENV)
    assert layouts.wheel(wheel, "odd") == read
    with monkeypatch.context() as patch:
        patch.delattr(wheel_layouts, "install_wheel")
        assert layouts.wheel(wheel, "odd") == read
    held = contents(read)
    moved = wheel.rename(tmp_path / "moved-1.0-py3-none-any.whl")
    assert contents(layouts.wheel(moved, "odd")) == held


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b'{"members": [[1]], "written": []}', b"\xff"])
def test_a_damaged_note_of_a_wheel_is_made_anew(tmp_path: Path, note: bytes) -> None:
    wheel = odd_wheel(tmp_path)
    layouts = WheelLayouts(VENV, tmp_path / "notes")
    read = layouts.wheel(wheel, "odd")
    (path,) = (tmp_path / "notes").iterdir()
    whole = path.read_bytes()
    path.write_bytes(note)
    assert layouts.wheel(wheel, "odd") == read
    assert path.read_bytes() == whole


def test_whatever_decides_how_a_wheel_lies_makes_a_note_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, notes = odd_wheel(tmp_path), tmp_path / "notes"
    for count, (path, name, layout) in enumerate(
        [
            (wheel, "odd", VENV),
            (wheel, "Odd", VENV),
            (wheel, "odd", PythonLayout(VENV.interpreter, "3.11")),
            (wheel, "odd", PythonLayout("/opt/conda/bin/python", "3.12")),
            (odd_wheel(tmp_path / "other", b"y"), "odd", VENV),
        ],
        1,
    ):
        assert WheelLayouts(layout, notes).wheel(path, name) == install_wheel(path, name, layout)
        assert len(list(notes.iterdir())) == count
    monkeypatch.setattr(wheel_layouts, "_rules", lambda: "another version of the code")
    WheelLayouts(VENV, notes).wheel(wheel, "odd")
    assert len(list(notes.iterdir())) == count + 1


ENVIRONMENT = marker_environment("3.12", "x86_64")


@pytest.mark.parametrize(
    ("requirement", "counts"),
    [
        ("there>=1", True),
        ("there>=1; python_version > '3'", True),
        ("there>=1; python_version < '3'", False),
        ('there>=1; extra == "more"', False),
        ("there>=1; python_version > '3' and extra == 'more'", False),
        ("there>=1; (python_version > '3') and extra=='more'", False),
        ("there>=1; extra == 'more' or python_version > '3'", True),
        ("there>=1; (extra == 'more' and os_name == 'nt') or python_version > '3'", True),
        ("extra==1", True),  # a distribution of this name
        ("there[extra]>=1", True),
    ],
)
def test_what_is_required_of_an_extra_is_required_of_nobody(requirement: str, counts: bool) -> None:
    problems = unmet({"odd": [requirement]}, {}, ENVIRONMENT)
    assert bool(problems) == counts


def test_a_file_that_is_no_wheel_is_said(tmp_path: Path) -> None:
    path = tmp_path / "odd-1.0-py3-none-any.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(SlipwayError, match="is not a wheel"):
        install_wheel(path, "odd", VENV)


def test_pips_own_scripts_have_the_names_of_this_python() -> None:
    console = {"pip": "pip:main", "pip3": "x:y", "pip3.9": "x:y", "pipx": "x:y", "odd": "o:m"}
    assert [name for name, _ in versioned_scripts(console, "3.12")] == [
        "pip",
        "pip3",
        "pip3.12",
        "pipx",
        "odd",
    ]


@pytest.mark.parametrize(
    "interpreter",
    ["/usr/bin/python3", "python", "/opt/venv/python", "/opt/a b/bin/python", "/x" * 70 + "/bin/p"],
)
def test_an_interpreter_whose_folders_are_not_known_is_refused(interpreter: str) -> None:
    with pytest.raises(SlipwayError):
        PythonLayout(interpreter, "3.12")
