"""The image's PATH where a login shell, or whoever starts the launcher, gives another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.platforms.image_record import SYSTEM_PATH, merged_path, recorded_path

SHELL = Path(__file__).parents[3] / "entrypoints" / "image_path.sh"
LAUNCH = SHELL.with_name("launch")
IMAGE = "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOGIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PATHS = [
    (IMAGE, IMAGE),
    (LOGIN, IMAGE),
    ("/usr/bin:/bin", IMAGE),
    ("", IMAGE),
    # What a user puts in front stays there, whatever is missing behind it.
    (f"/my/bin:{IMAGE}", f"/my/bin:{IMAGE}"),
    (f"/my/bin:{LOGIN}", f"/my/bin:{IMAGE}"),
    ("/root/.local/bin:/usr/games:/bin", f"/root/.local/bin:{IMAGE}:/usr/games"),
    # Somebody who names all of it has chosen the order.
    (f"{LOGIN}:/opt/venv/bin", f"{LOGIN}:/opt/venv/bin"),
]


def in_shell(shell: str, command: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [shell, "-c", f'. "$0"; {command}', str(SHELL)], env=env, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("given", "wanted"), PATHS)
def test_the_images_folders_are_on_path_and_the_users_stay_in_front(
    given: str, wanted: str
) -> None:
    assert merged_path(given, IMAGE) == wanted
    assert merged_path(given, "") == given


WORDS = st.sampled_from([*SYSTEM_PATH.split(":"), "/a b", "/*", "/opt/venv/bin", "/x", "[y]"])
LISTS = st.lists(WORDS, min_size=1, max_size=6).map(":".join)


@settings(max_examples=60)
@given(LISTS, LISTS, st.sampled_from(["sh", "bash"]))
def test_login_shells_and_the_launcher_decide_alike(given: str, own: str, shell: str) -> None:
    env = {"PATH": "/usr/bin:/bin", "GIVEN": given, "OWN": own}
    assert in_shell(shell, 'slipway_merged "$GIVEN" "$OWN"', env) == merged_path(given, own)


@given(LISTS, LISTS)
def test_nothing_recorded_is_missing_and_nothing_given_is_lost(given: str, own: str) -> None:
    merged = merged_path(given, own).split(":")
    assert set(own.split(":")) <= set(merged)
    assert set(given.split(":")) <= set(merged)
    users = [e for e in given.split(":") if e not in own.split(":") and e not in SYSTEM_PATH]
    assert [entry for entry in merged if entry in users] == users


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(
    ("started", "now", "wanted"),
    [
        (IMAGE, LOGIN, IMAGE),
        ("/my/bin:/bin", LOGIN, f"/my/bin:{IMAGE}"),  # enroot start -e PATH=...
        (IMAGE, f"/profile/bin:{LOGIN}", f"/profile/bin:{IMAGE}"),  # what a profile has added
        (f"/child/bin:{IMAGE}", LOGIN, f"/child/bin:{IMAGE}"),  # an image made from this one
        (LOGIN, LOGIN, IMAGE),
    ],
)
def test_a_login_shell_finds_the_images_programs(
    shell: str, started: str, now: str, wanted: str
) -> None:
    env = {"PATH": started, "SLIPWAY_PATH": IMAGE}
    assert in_shell(shell, f"PATH={now}; slipway_login_path", env) == wanted


def test_outside_of_an_image_a_login_shells_path_stays(tmp_path: Path) -> None:
    assert in_shell("sh", f"PATH={LOGIN}; slipway_login_path", {"PATH": "/usr/bin"}) == LOGIN
    assert recorded_path({}, (tmp_path / "none",)) == ""


def test_an_emptied_environment_is_made_up_for_by_its_copies(tmp_path: Path) -> None:
    enroot, docker = tmp_path / "environment", tmp_path / "environ"
    enroot.write_text(f"A=1\nSLIPWAY_PATH={IMAGE}\nNOT_SLIPWAY_PATH=x\n")
    docker.write_bytes(f"A=b\nc\0SLIPWAY_PATH={IMAGE}\0".encode())
    for copy in (enroot, docker):
        assert recorded_path({}, (tmp_path / "none", copy)) == IMAGE
    assert recorded_path({"SLIPWAY_PATH": "/x"}, (enroot,)) == "/x"


def test_launch_starts_with_the_recorded_interpreter_whatever_path_is(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho recorded\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "SLIPWAY_PYTHON": str(python), "SLIPWAY_PATH": f"/own:{LOGIN}"}
    done = subprocess.run(
        [LAUNCH, "plan", "local", "--", "/etc/passwd"], env=env, capture_output=True, text=True
    )
    assert done.stdout.startswith("recorded\n"), done.stderr
    assert f'/shims:/own:{LOGIN}"' in done.stdout
