"""Files in other encodings, and set-ups of Docker that a move would break."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path

import pytest

from slipway.core import UsageError
from slipway.storage import Machine, StorageError
from slipway.storage.docker import setup_checks
from slipway.storage.docker.config_files import read_daemon_json, with_data_root
from slipway.storage.move.changes import FileEdit, edit_text
from slipway.storage.text_files import decode_text, read_text_file

TEXT = '{\n    "data-root": "/old",\n    "labels": [\n        "größe=1"\n    ]\n}\n'
ENCODED = {
    "utf-8": TEXT.encode(),
    "utf-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16 little": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "utf-16 big": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "latin-1 in a string": TEXT.encode("latin-1"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_daemon_json_is_changed_in_the_encoding_that_it_has(tmp_path: Path, name: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_bytes(ENCODED[name])
    assert read_daemon_json(path)["data-root"] == "/old"
    edit = edit_text("docker", path, lambda text: with_data_root(text, path, Path("/new")))
    edit.apply()
    encoding = {"utf-16 little": "utf-16-le", "utf-16 big": "utf-16-be"}.get(name, "utf-8")
    old, new = "/old".encode(encoding), "/new".encode(encoding)
    assert path.read_bytes() == ENCODED[name].replace(old, new)
    assert edit.back() == FileEdit("docker", path, edit.after, edit.before, edit.mode)
    # Somebody adds a key: the way back keeps it, and the encoding.
    now = decode_text(path.read_bytes(), path, wide=True)
    path.write_bytes(now.encode(now.text.replace('"labels"', '"debug": true, "labels"')))
    back = edit.back()
    assert back.after is not None
    told = json.loads(decode_text(back.after, path, wide=True).text)
    assert (told["data-root"], told["debug"]) == ("/old", True)


@pytest.mark.parametrize(
    ("data", "wide", "says", "line"),
    [
        (codecs.BOM_UTF8 + b'{\n"a": "\xff"}', True, "not UTF-8", 2),
        (codecs.BOM_UTF16_LE + b"{\0\n\0\x00\xd8", True, "not UTF-16-LE", 2),
        (codecs.BOM_UTF16_LE + "version = 2".encode("utf-16-le"), False, "UTF-16", 1),
    ],
)
def test_what_its_program_cannot_read_is_refused_by_line(
    tmp_path: Path, data: bytes, wide: bool, says: str, line: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=says) as refused:
        read_text_file(path, wide=wide)
    assert refused.value.where == f"{path}:{line}"


@pytest.mark.parametrize(
    "data",
    [
        *(b"{", b"[]", b"null", b'{"a": 1,}', b"{}{}", b"\x00\x01", b"[" * 100_000, b"\xef\xbb"),
        *(b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e400}', b'{"a": 1' + b"0" * 5000 + b"}"),
        '{"a": 1}'.encode("utf-32"),
    ],
)
def test_a_daemon_json_that_is_none_is_refused_by_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "daemon.json"
    path.write_bytes(data)
    with pytest.raises(UsageError) as refused:
        read_daemon_json(path)
    assert str(refused.value.where).startswith(f"{path}:")


def test_half_a_character_stays_the_escape_that_it_is(tmp_path: Path) -> None:
    text = '{\n  "labels": [\n    "\\ud800-\\udfff"\n  ]\n}\n'
    written = with_data_root(text, tmp_path, Path("/new"))
    assert '"\\ud800-\\udfff"' in written
    written.encode()


@pytest.mark.parametrize("kind", ["folder", "pipe", "circle of links", "below a file"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle of links":
        path.symlink_to(path)
    else:
        path.write_text("")
        path /= "daemon.json"
    with pytest.raises(UsageError, match="this cannot be read") as refused:
        read_daemon_json(path)
    assert refused.value.cure != "Use sudo."


def test_user_namespaces_are_refused_however_they_are_set() -> None:
    for security, settings in ((["name=userns"], {}), ([], {"userns-remap": "default"})):
        problem = setup_checks.userns_problem(security, settings)
        assert isinstance(problem, StorageError)
    assert setup_checks.userns_problem(["name=seccomp,profile=default"], {}) is None


def test_a_second_daemon_is_seen_by_what_it_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "etc/docker/daemon.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    (tmp_path / "second.json").write_text('{"data-root": "/data"}')
    (tmp_path / "third.json").write_text('{"containerd": "/run/c.sock"}')
    (tmp_path / "torn.json").write_text("{")
    lines = {
        10: ["dockerd"],
        11: ["dockerd", f"--config-file={config}"],
        12: ["dockerd", "--config-file=/other", "--data-root=/data"],
        13: ["dockerd", "--config-file=/other", "--containerd", "/run/c.sock"],
        14: ["dockerd", "--config-file=/other", "--data-root=/own"],
        15: ["vim", "dockerd"],
        16: ["dockerd", f"--config-file={tmp_path}/second.json"],
        17: ["dockerd", "--config-file=/other", "--data-root=/data/second"],
        18: ["dockerd", f"--config-file={tmp_path}/third.json"],
        19: ["dockerd", f"--config-file={tmp_path}/torn.json", "--data-root=/own"],
    }
    monkeypatch.setattr(setup_checks, "command_line", lambda pid: lines[pid])
    monkeypatch.setattr(setup_checks, "same_namespace", lambda pid: True)
    # 20: the daemon's own child before it becomes another program (fork, then exec)
    lines[20] = lines[11]
    monkeypatch.setattr(setup_checks, "descends_from", lambda pid, above: (pid, above) == (20, 99))

    def problem(*pids: int) -> StorageError | None:
        monkeypatch.setattr(
            setup_checks, "find_process", lambda matches: (p for p in pids if matches(p))
        )
        machine = Machine(tmp_path)
        return setup_checks.shared_daemon_problem(
            machine, 99, config, Path("/data"), Path("/run/c.sock")
        )

    assert problem(14, 15, 19, 20) is None
    shared = {10: "configuration", 11: "configuration", 12: "data-root", 13: "containerd"}
    for pid, what in {**shared, 16: "data-root", 17: "data-root", 18: "containerd"}.items():
        found = problem(14, pid)
        assert found is not None
        assert f"(pid {pid}) shares its {what}" in found.what


@pytest.mark.parametrize(
    ("shown", "refused"),
    [
        ({"ProtectSystem": "no", "User": "", "PrivateTmp": "no"}, False),
        ({}, False),  # an older systemd
        ({"ProtectSystem": "full"}, True),
        ({"RootDirectory": "/srv/root"}, True),
        ({"PrivateMounts": "yes"}, True),
        ({"User": "docker"}, True),
        ({"BindPaths": "/big:/var/lib/docker"}, True),
    ],
)
def test_a_unit_with_files_of_its_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, shown: dict[str, str], refused: bool
) -> None:
    monkeypatch.setattr(setup_checks, "show_unit", lambda unit, *names: shown)
    assert (setup_checks.unit_problem("docker.service") is not None) == refused


def test_the_variables_of_a_units_command_are_filled_in(tmp_path: Path) -> None:
    defaults = tmp_path / "etc/default/docker"
    defaults.parent.mkdir(parents=True)
    defaults.write_bytes(b'# \xfc\nDOCKER_OPTS="--data-root /big --debug"\nNAME=x\n')
    shown = {
        "ExecStart": "{ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd -H fd:// $DOCKER_OPTS "
        "--label=n=${NAME} $NONE ; ignore_errors=no ; start_time=[n/a] }",
        "Environment": 'NAME=y "OTHER=a b"',
        "EnvironmentFiles": "/etc/default/docker (ignore_errors=yes)\n",
    }
    assert setup_checks.unit_command(shown, Machine(tmp_path)) == [
        *("/usr/bin/dockerd", "-H", "fd://", "--data-root", "/big", "--debug", "--label=n=x"),
    ]
