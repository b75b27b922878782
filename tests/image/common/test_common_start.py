from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.sqsh.enroot_files import enroot_files
from slipway.sqsh.image_documents import ImageConfig
from slipway.verify.expectations import CheckedImage
from slipway.verify.plugin import Launch

NASTY = [
    "two words",
    "",
    "it's",
    'double "quotes"',
    "$HOME $(id) `id`",
    "* ? [a]",
    "back\\slash",
    "; exit 3",
    "line\nbreak",
    "tab\there",
    "naïve 日本語",
    "--flag=a b",
]


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in config.get("Env") or [])


def test_entrypoint_and_command_are_the_launchers(image_config: Mapping[str, Any]) -> None:
    assert image_config["Entrypoint"] == ["/opt/entrypoints/entrypoint.sh"]
    assert image_config["Cmd"] == ["/bin/bash"]


def test_working_directory_and_user_are_as_stated(
    image_config: Mapping[str, Any], subject: CheckedImage
) -> None:
    assert (image_config["WorkingDir"] or "/") == subject.workdir
    assert (image_config["User"] or "root") == subject.user


def test_the_environment_is_as_stated(
    image_config: Mapping[str, Any], subject: CheckedImage
) -> None:
    found = environment(image_config)
    stated = {
        name: value.replace("$PATH", found["PATH"]) for name, value in subject.environment.items()
    }
    assert {name: found.get(name) for name in stated} == stated


def test_the_image_changes_no_variable_of_its_base(
    image_config: Mapping[str, Any], base_config: Mapping[str, Any], subject: CheckedImage
) -> None:
    ours, theirs = environment(image_config), environment(base_config)
    changed = {name for name in theirs if ours.get(name) != theirs[name]}
    assert changed <= subject.environment.keys()


def test_no_network_tuning_is_baked_in(
    image_config: Mapping[str, Any], base_config: Mapping[str, Any]
) -> None:
    # pyxis lets an image's environment win over the job's: what is baked in cannot be corrected.
    new = environment(image_config).keys() - environment(base_config).keys()
    assert not [name for name in new if name.startswith(("NCCL_", "FI_", "OFI_", "RDMAV_"))]


def test_the_config_can_be_exported_for_enroot(image_config: Mapping[str, Any]) -> None:
    assert enroot_files(ImageConfig.from_inspect(image_config), "dockerd://image")


def test_the_launcher_is_there_and_on_path(host: Host) -> None:
    assert host.run("command -v launch").stdout.strip() == "/usr/local/bin/launch"
    for path in ("/opt/entrypoints/entrypoint.sh", "/opt/entrypoints/launch"):
        assert host.file(path).is_file
        assert host.file(path).mode & 0o111 == 0o111


@pytest.mark.parametrize("shell", ["sh -lc", "bash -lc"])
def test_programs_are_found_in_a_login_shell(host: Host, shell: str) -> None:
    """enroot starts commands through one, and /etc/profile sets PATH anew."""
    for program in ("launch", "python"):
        found = host.run(f"{shell} %s", f"command -v {program}")
        assert found.stdout == host.run("command -v %s", program).stdout
    plan = host.run(f"{shell} %s", "launch plan local --runner python -- -m this")
    assert f"{host.run('command -v python').stdout.strip()} -u -m this" in plan.stdout


def test_the_launcher_answers_through_the_entrypoint(launched: Launch) -> None:
    done = launched("launch", "help")
    assert done.exit_code == 0
    assert "usage: launch" in done.log


def test_arguments_reach_a_command_word_for_word(launched: Launch, subject: CheckedImage) -> None:
    code = "import json, sys; print('ARGUMENTS', json.dumps(sys.argv[1:]))"
    done = launched(subject.python, "-c", code, *NASTY)
    assert done.exit_code == 0, done.log
    line = next(line for line in done.log.splitlines() if line.startswith("ARGUMENTS "))
    assert json.loads(line.removeprefix("ARGUMENTS ")) == NASTY


@pytest.mark.parametrize("code", [0, 1, 42])
def test_the_exit_code_of_a_command_is_the_exit_code_of_the_container(
    launched: Launch, code: int
) -> None:
    assert launched("/bin/sh", "-c", f"exit {code}").exit_code == code


def test_the_default_command_ends_at_once_without_a_terminal(launched: Launch) -> None:
    assert launched().exit_code == 0
