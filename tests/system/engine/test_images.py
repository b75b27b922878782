"""One-shot containers: what they give, what they may touch, that they never stay."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slipway.core import Project, wait_until
from slipway.engine import (
    OWNER_LABEL,
    ContainerOptions,
    Engine,
    EngineError,
    find_image_id,
    inspect_image,
    remove_stale_containers,
    run_once,
)
from tests.support.engine_builds import sleeping


def _containers(engine: Engine) -> list[str]:
    listed = engine.client.api.containers(all=True, filters={"label": OWNER_LABEL})
    return [container["Id"] for container in listed]


def test_a_command_gives_its_exit_code_and_both_outputs_byte_for_byte(
    engine: Engine, tiny_base: str
) -> None:
    script = "dd if=/dev/zero bs=1 count=3 2>/dev/null; echo problem >&2; exit 7"
    result = run_once(engine, tiny_base, ["sh", "-c", script], timeout_s=60)
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"\0\0\0", b"problem\n")
    assert _containers(engine) == []


def test_environment_and_entrypoint_are_those_that_were_asked_for(
    engine: Engine, tiny_base: str
) -> None:
    result = run_once(
        engine,
        tiny_base,
        ["-c", 'echo "$A"'],
        ContainerOptions(entrypoint=["sh"], env={"A": "b  c"}),
        timeout_s=60,
    )
    assert result.stdout == b"b  c\n"


def test_mounts_are_read_only_unless_they_are_said_to_be_writable(
    engine: Engine, tiny_base: str, tmp_path: Path
) -> None:
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    for folder in (closed, opened):
        folder.mkdir()
        (folder / "in").write_text("seen")
    script = "cat /c/in /o/in; echo x > /o/out; echo x > /c/out"
    result = run_once(
        engine,
        tiny_base,
        ["sh", "-c", script],
        ContainerOptions(mounts={closed: "/c", opened: "/o"}, writable={opened}),
        timeout_s=60,
    )
    assert result.stdout == b"seenseen"
    assert b"Read-only file system" in result.stderr
    assert (opened / "out").read_text() == "x\n"
    assert not (closed / "out").exists()


def test_there_is_no_network_unless_it_is_asked_for(engine: Engine, tiny_base: str) -> None:
    seen = run_once(engine, tiny_base, ["ls", "/sys/class/net"], timeout_s=60)
    assert seen.stdout == b"lo\n"


def test_a_command_that_takes_too_long_is_an_error_and_is_gone(
    engine: Engine, tiny_base: str
) -> None:
    with pytest.raises(EngineError, match="did not end within 1 s"):
        run_once(engine, tiny_base, ["sleep", "4911"], timeout_s=1)
    assert _containers(engine) == []
    assert sleeping("4911") == []


def test_a_command_that_is_not_in_the_image_is_an_error_that_names_it(
    engine: Engine, tiny_base: str
) -> None:
    with pytest.raises(EngineError, match="no-such-program"):
        run_once(engine, tiny_base, ["no-such-program"], timeout_s=60)
    assert _containers(engine) == []


def test_an_image_that_is_not_there_has_no_id_and_no_description(engine: Engine) -> None:
    name = f"slipway.test/{uuid.uuid4().hex}:1"
    assert find_image_id(engine, name) is None
    with pytest.raises(EngineError, match=name):
        inspect_image(engine, name)


RUNNING = """
import sys
from pathlib import Path
from slipway.core import interrupts
from slipway.engine.client import connect
from slipway.engine.containers import run_once
from slipway.core.paths import Project

interrupts.handle_signals()  # as `inv` does
engine = connect(Project(Path(sys.argv[1]), Path(sys.argv[2])), "embedded")
try:
    run_once(engine, sys.argv[3], ["sleep", sys.argv[4]], timeout_s=600)
except KeyboardInterrupt:
    sys.exit(130)
"""


@contextmanager
def _running(project: Project, image: str, seconds: str) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [str(project.root), str(project.state), image, seconds]
    process = subprocess.Popen([sys.executable, "-c", RUNNING, *arguments], cwd=project.root)
    try:
        assert wait_until(lambda: bool(sleeping(seconds)), 60)
        yield process
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_ends_and_removes_the_container(
    engine: Engine, shared_project: Project, tiny_base: str
) -> None:
    with _running(shared_project, tiny_base, "4912") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert sleeping("4912") == []
    assert _containers(engine) == []


def test_containers_of_killed_runs_are_removed_and_those_of_living_ones_are_not(
    engine: Engine, shared_project: Project, tiny_base: str
) -> None:
    with (
        _running(shared_project, tiny_base, "4913") as killed,
        _running(shared_project, tiny_base, "4914") as living,
    ):
        killed.kill()
        killed.wait(60)
        assert remove_stale_containers(engine) == 1
        assert sleeping("4913") == []
        assert len(sleeping("4914")) == 1
        living.send_signal(signal.SIGINT)
        assert living.wait(60) == 130
    assert remove_stale_containers(engine) == 0
