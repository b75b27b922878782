from __future__ import annotations

import re

from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.expectations import CheckedImage
from slipway.verify.plugin import RunPython


def report(text: str) -> dict[str, str]:
    """`ds_report` as values: `name ... value` lines (deepspeed/env_report.py)."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return dict(re.findall(r"^(\w[\w /]*?) \.{3,} (.*)$", plain, re.MULTILINE))


def test_deepspeed_is_imported_with_the_version_that_is_stated(
    run_python: RunPython, subject: CheckedImage
) -> None:
    printed = run_python("import deepspeed; print('VERSION', deepspeed.__version__)")
    version = re.search(r"VERSION (\S+)", printed)
    assert version, printed
    assert version[1].partition("+")[0] == subject.addon("deepspeed")["version"]


def test_ds_report_can_be_read_and_agrees_with_the_facts(host: Host, subject: CheckedImage) -> None:
    done = host.run("ds_report")
    assert done.rc == 0, done.stderr
    found = report(done.stdout)
    assert found["torch version"].partition("+")[0] == subject.facts["torch"]
    assert found["deepspeed info"].split(",")[0] == subject.addon("deepspeed")["version"]


def test_the_deepspeed_command_is_on_path(host: Host) -> None:
    assert host.run("command -v deepspeed").rc == 0
