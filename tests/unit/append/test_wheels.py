"""A wheel as files: where each goes, and what must not be followed.

That all of it is what pip leaves is held by tests/system/append/test_pip.py.
"""

from __future__ import annotations

import csv
import posixpath
from pathlib import Path

import pytest

from slipway.append.layer_files import ContentReader
from slipway.append.python_layout import PythonLayout
from slipway.append.wheel_files import InstalledWheel, install_wheel, versioned_scripts
from slipway.core import SlipwayError
from tests.support.wheels import make_wheel

VENV = PythonLayout("/opt/venv/bin/python", "3.12")
SITE = "opt/venv/lib/python3.12/site-packages"


def contents(wheel: InstalledWheel) -> dict[str, tuple[int, bytes]]:
    found = {}
    with ContentReader() as reader:
        for file in wheel.files:
            with reader.open(file) as stream:
                found[file.path] = (file.mode, stream.read())
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
