"""How the checks judge: complaints in logs, requirements, what runs inside an image."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from slipway.verify.findings import (
    Allowed,
    Distributions,
    dependency_problems,
    find_log_complaints,
    load_allowed,
)

CHECKOUT = Path(__file__).parents[3]
INSIDE = CHECKOUT / "slipway" / "verify" / "inside"
TODAY = date(2026, 1, 10)
PYTHON_3_12 = {
    "python_version": "3.12",
    "python_full_version": "3.12.1",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "implementation_version": "3.12.1",
    "platform_python_implementation": "CPython",
    "platform_release": "6.1",
    "platform_version": "1",
}


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-01 [ERROR] failed",
        "WARNING: deprecated",
        "a.py:1: DeprecationWarning: old",
        "ls: cannot access 'x': No such file or directory",
        "sagemaker-training-toolkit ERROR    Reporting",
        "FATAL: no GPU",
        "CRITICAL x",
    ],
)
def test_lines_that_complain_are_found(line: str) -> None:
    assert find_log_complaints(f"fine\n{line}\nfine\n", [], TODAY) == [line]


@pytest.mark.parametrize(
    "line", ["error_rate 0.1", "TERROR", "no warnings", "ERRORS_FOUND=0", "--warning-level 3", ""]
)
def test_words_that_only_look_like_it_are_not(line: str) -> None:
    assert find_log_complaints(line, [], TODAY) == []


def test_a_known_complaint_is_excused_until_its_review() -> None:
    known = Allowed("Setting accelerator to CPU", "no GPU here", date(2026, 1, 10))
    line = "[WARNING] Setting accelerator to CPU."
    assert find_log_complaints(line, [known], date(2026, 1, 10)) == []
    late = find_log_complaints(line, [known], date(2026, 1, 11))
    assert late == [f"{line}  (allowed until 2026-01-10: no GPU here)"]
    assert find_log_complaints("WARNING: another", [known], TODAY) == ["WARNING: another"]


def test_the_list_of_known_complaints_can_be_read_and_gives_reasons() -> None:
    for entry in load_allowed(CHECKOUT / "tests" / "image" / "allowed.yaml"):
        assert entry.because
        assert isinstance(entry.review_by, date)


def test_an_entry_of_the_list_is_pattern_reason_and_date(tmp_path: Path) -> None:
    path = tmp_path / "allowed.yaml"
    path.write_text("- {pattern: 'a+', because: it is so, review_by: 2027-01-01}\n")
    assert load_allowed(path) == (Allowed("a+", "it is so", date(2027, 1, 1)),)


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("{pattern: a, because: b}", TypeError),
        ("{pattern: '(', because: b, review_by: 2027-01-01}", re.error),
    ],
)
def test_an_entry_without_a_date_or_with_a_bad_pattern_is_an_error(
    tmp_path: Path, entry: str, error: type[Exception]
) -> None:
    (tmp_path / "allowed.yaml").write_text(f"- {entry}\n")
    with pytest.raises(error):
        load_allowed(tmp_path / "allowed.yaml")


def installed(*found: tuple[str, str, list[str]]) -> Distributions:
    listed = [{"name": n, "version": v, "requires": r} for n, v, r in found]
    return Distributions(PYTHON_3_12, listed)


@pytest.mark.parametrize(
    ("requires", "problem"),
    [
        ("other>=2", "a 1 requires other>=2, and 1.5 is installed"),
        ("missing", "a 1 requires missing, which is not installed"),
        ("Other_Thing>=1", "a 1 requires Other_Thing, which is not installed"),
        ("not a requirement !", "a 1 requires 'not a requirement !', which is not a requirement"),
    ],
)
def test_a_requirement_that_is_not_met_is_told(requires: str, problem: str) -> None:
    assert dependency_problems(installed(("a", "1", [requires]), ("other", "1.5", []))) == {problem}


@pytest.mark.parametrize(
    "requires",
    [
        "other>=1",
        "Other",
        "other[extra]>=1",
        "missing; extra == 'dev'",
        "missing; sys_platform == 'win32'",
        "missing; python_version < '3.9'",
        "pre>=1",
    ],
)
def test_a_requirement_that_is_met_or_does_not_apply_is_no_problem(requires: str) -> None:
    found = installed(("a", "1", [requires]), ("other", "1.5", []), ("Pre", "2.0rc1+cu130", []))
    assert dependency_problems(found) == set()


def test_names_are_compared_as_pip_compares_them() -> None:
    found = installed(("Foo.Bar_baz", "1", []), ("foo-bar-baz", "2", []))
    assert found.versions == {"foo-bar-baz": "1"}
    assert found.twice == {"foo-bar-baz"}


def inside(script: str, *arguments: str, path: Path | None = None) -> Any:
    """Run a script as it runs in an image; `path` is put where Python looks for packages."""
    code = (INSIDE / f"{script}.py").read_text()
    if path is not None:
        code = f"import sys; sys.path[:0] = [{str(path)!r}]\n" + code.replace(
            "from __future__ import annotations", ""
        )
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code, *arguments], check=True, capture_output=True
    )
    return json.loads(done.stdout)


def test_distributions_seen_from_inside_are_those_of_pip() -> None:
    seen = Distributions(**inside("distributions"))
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
    )
    listed = installed(*((d["name"], d["version"], []) for d in json.loads(pip.stdout)))
    assert seen.versions == listed.versions
    assert seen.environment["python_version"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert seen.environment.keys() == PYTHON_3_12.keys()


def test_a_file_is_owned_where_a_record_lists_it_as_it_is(tmp_path: Path) -> None:
    info = tmp_path / "thing-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: thing\nVersion: 1\n")
    (info / "direct_url.json").write_text('{"url": "https://me:password@index/thing"}')
    (tmp_path / "thing.py").write_text("1234")
    (tmp_path / "changed.py").write_text("12345")
    (tmp_path / "stranger.py").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "caf\udce9").write_text("")
    record = "thing.py,,4\nchanged.py,,4\nthing-1.dist-info/METADATA,,\n"
    (info / "RECORD").write_text(record + "thing-1.dist-info/direct_url.json,,\n")
    seen = inside("tree", str(tmp_path), path=tmp_path)
    owned = {str(Path(path).relative_to(tmp_path)): entry[3] for path, entry in seen.items()}
    assert owned == {
        "thing.py": True,
        "thing-1.dist-info/METADATA": True,
        "thing-1.dist-info/RECORD": False,
        "thing-1.dist-info/direct_url.json": False,
        "changed.py": False,
        "stranger.py": False,
        "link": False,
        "caf\udce9": False,
    }
    size, mtime, mode, _ = seen[str(tmp_path / "thing.py")]
    status = (tmp_path / "thing.py").stat()
    assert (size, mtime, mode) == (4, status.st_mtime_ns, status.st_mode)


def test_contents_are_read_byte_for_byte_and_links_are_not_followed(tmp_path: Path) -> None:
    data = bytes(range(256))
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "link").symlink_to("/does/not/exist")
    seen = inside("contents", str(tmp_path / "data"), str(tmp_path / "link"))
    assert [base64.b64decode(text) for text in seen.values()] == [data, b"/does/not/exist"]


@pytest.mark.parametrize("script", sorted(path.stem for path in INSIDE.glob("[a-z]*.py")))
def test_what_runs_inside_an_image_is_small_enough_for_a_command_line(script: str) -> None:
    # Linux takes at most 128 KiB for one argument (execve(2), MAX_ARG_STRLEN).
    assert len((INSIDE / f"{script}.py").read_bytes()) < 100_000


def test_an_ordinary_pytest_run_leaves_the_checks_of_images_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/image"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5, done.stdout  # pytest: no tests were collected
