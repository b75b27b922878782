from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.core import SlipwayError
from slipway.sqsh.enroot_files import (
    enroot_files,
    environment_file,
    fstab_file,
    quote_value,
    rc_script,
    unmountable_volumes,
)
from slipway.sqsh.image_documents import ImageConfig

UTF8 = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
# What an argument of a process can hold: anything but NUL.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def bash(script: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", script, "bash", *arguments], env=UTF8, check=True, capture_output=True
    )
    return done.stdout.decode().split("\0")[:-1]


@settings(max_examples=50)
@given(st.lists(words, min_size=1))
def test_bash_reads_every_quoted_word_back_as_it_was(given_words: list[str]) -> None:
    script = "printf '%s\\0' " + " ".join(quote_value(word) for word in given_words)
    assert bash(script) == given_words


@pytest.mark.parametrize(
    "word",
    [
        "",
        "/bin/bash",
        "two words",
        "it's",
        '$(id) `id` \\ " * ~ # & ; |',
        "tab\there",
        "line\nbreak",
        "esc\x1b[1m",
        "bell\a back\b feed\f return\r vertical\v",
        "del\x7f one\x01 quote' backslash\\ and\ttab",
        "naïve 日本語",
        "naïve\ttab",
        *(chr(code) for code in range(1, 128)),
    ],
)
def test_words_are_quoted_byte_for_byte_as_bash_does(word: str) -> None:
    assert [quote_value(word)] == bash("printf '%s\\0' \"${1@Q}\"", word)


def run_rc(config: ImageConfig, *arguments: str) -> list[str]:
    return bash(rc_script(config, "dockerd://x"), *arguments)


def test_rc_runs_entrypoint_and_command_without_arguments(tmp_path: Path) -> None:
    config = ImageConfig(
        entrypoint=("printf", "%s\\0"), cmd=("a b", "", "c'd"), working_dir=str(tmp_path)
    )
    assert run_rc(config) == ["a b", "", "c'd"]


def test_rc_replaces_the_command_by_arguments_and_keeps_the_entrypoint(tmp_path: Path) -> None:
    config = ImageConfig(entrypoint=("printf", "%s\\0"), cmd=("x",), working_dir=str(tmp_path))
    assert run_rc(config, "one two", "$three") == ["one two", "$three"]


def test_rc_runs_arguments_alone_where_there_is_no_entrypoint(tmp_path: Path) -> None:
    config = ImageConfig(cmd=("false",), working_dir=str(tmp_path))
    assert run_rc(config, "printf", "%s\\0", "x") == ["x"]


def test_rc_starts_a_shell_where_the_image_says_nothing() -> None:
    assert "    exec  '/bin/sh'\n" in rc_script(ImageConfig(), "dockerd://x")


def test_rc_starts_in_the_working_directory_and_makes_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "er"
    config = ImageConfig(cmd=("bash", "-c", 'printf "%s\\0" "$PWD"'), working_dir=str(folder))
    assert run_rc(config) == [str(folder)]


def test_a_working_directory_is_never_executed(tmp_path: Path) -> None:
    folder = tmp_path / '$(touch pwned) `touch pwned` "$HOME" \\'
    config = ImageConfig(cmd=("bash", "-c", 'printf "%s\\0" "$PWD"'), working_dir=str(folder))
    assert run_rc(config) == [str(folder)]
    assert [path.name for path in tmp_path.iterdir()] == ['$(touch pwned) `touch pwned` "$HOME" \\']


def test_a_label_cannot_leave_its_comment(tmp_path: Path) -> None:
    config = ImageConfig(
        cmd=("printf", "ok\\0"),
        working_dir=str(tmp_path),
        labels=(("key\ntouch pwned", "value\ntouch pwned\n"),),
    )
    assert run_rc(config) == ["ok"]
    assert list(tmp_path.iterdir()) == []


def test_rc_reads_as_enroot_writes_it() -> None:
    config = ImageConfig(
        entrypoint=("/opt/entrypoints/entrypoint.sh",),
        cmd=("/bin/bash",),
        working_dir="/workspace",
        labels=(("a.b", "1"), ("c", '{"x": "y z"}')),
    )
    assert rc_script(config, "dockerd://registry/image:tag") == (
        "# enroot-provenance: dockerd://registry/image:tag\n"
        "# a.b 1\n"
        '# c {"x": "y z"}\n'
        "\n"
        'mkdir -p "/workspace" 2> /dev/null\n'
        'cd "/workspace" && unset OLDPWD || exit 1\n'
        "\n"
        "if [ -s /etc/rc.local ]; then\n"
        "    . /etc/rc.local\n"
        "fi\n"
        "\n"
        "if [ $# -gt 0 ]; then\n"
        "    exec '/opt/entrypoints/entrypoint.sh' \"$@\"\n"
        "else\n"
        "    exec '/opt/entrypoints/entrypoint.sh' '/bin/bash'\n"
        "fi\n"
    )


def test_environment_has_one_line_for_each_variable_as_it_is() -> None:
    config = ImageConfig(env=("PATH=/a:/b", "EMPTY=", 'QUOTED="x y"', "NAME=naïve"))
    assert environment_file(config) == 'PATH=/a:/b\nEMPTY=\nQUOTED="x y"\nNAME=naïve\n'


def test_a_newline_in_a_variable_is_refused_by_name() -> None:
    with pytest.raises(SlipwayError, match=r"'MOTD'.*newline"):
        environment_file(ImageConfig(env=("A=1", "MOTD=hello\nLD_PRELOAD=/tmp/x.so")))


def test_volumes_are_bound_onto_themselves_in_order() -> None:
    config = ImageConfig.from_inspect({"Volumes": {"/z": {}, "/a": {}}})
    assert fstab_file(config) == (
        "${ENROOT_ROOTFS}/a /a none x-create=dir,bind,rw,nosuid,nodev\n"
        "${ENROOT_ROOTFS}/z /z none x-create=dir,bind,rw,nosuid,nodev\n"
    )


@pytest.mark.parametrize(
    "volume",
    [
        *("/a b", "/a\tb", "/a\nb", "/a\\040b", "/${HOME}", "data", "-x", "", "/../x", "/a/../b"),
        *("/proc/x", "/sys//x", "//proc/1/x", "/" + "a" * 256, "/" + "b" * 126 + "ü" * 65),
        *("/a" * 900, "/c\x1b"),
    ],
)
def test_a_volume_that_enroot_cannot_mount_is_left_out(volume: str) -> None:
    """enroot 4.1.2 fails at these or mounts another path: most by hand, some from its source."""
    config = ImageConfig.from_inspect({"Volumes": {volume: {}, "/ok": {}}})
    assert fstab_file(config) == (
        "${ENROOT_ROOTFS}/ok /ok none x-create=dir,bind,rw,nosuid,nodev\n"
    )
    assert unmountable_volumes(config) == (volume,)


@pytest.mark.parametrize(
    "volume",
    [
        *("/x#y", "/$HOME", "/a$b", '/a"b', "/a'b", "/a`b", "/a*", "/~", "/a;b", "/a,b", "/a:b"),
        *("/ü", "/", "//d", "/./c", "/data/", "/proc", "/proc/", "/process/x", "/tmp/x"),
        "/" + "a" * 255,
    ],
)
def test_a_volume_that_enroot_mounts_is_as_enroot_writes_it(volume: str) -> None:
    """By hand: enroot 4.1.2 mounts each of these where it belongs."""
    config = ImageConfig(volumes=(volume,))
    assert fstab_file(config) == (
        "${ENROOT_ROOTFS}" + f"{volume} {volume} none x-create=dir,bind,rw,nosuid,nodev\n"
    )


def test_nulls_in_a_config_mean_nothing_is_set() -> None:
    nulls = dict.fromkeys(["Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "Volumes"])
    assert ImageConfig.from_inspect(nulls) == ImageConfig() == ImageConfig.from_inspect({})


def test_all_files_that_enroot_writes_are_there() -> None:
    made = enroot_files(ImageConfig(env=("A=ü",)), "dockerd://x")
    assert made["etc/environment"] == "A=ü\n".encode()
    assert made["etc/fstab"] == b""
    assert sorted(made) == ["etc/environment", "etc/fstab", "etc/rc", "etc/rc.local"]
    assert all(line.startswith(b"#") for line in made["etc/rc.local"].splitlines())
