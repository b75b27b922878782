"""Configuration files of Docker, containerd and enroot: one setting changes, all else stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slipway.core import UsageError
from slipway.storage import enroot_conf
from slipway.storage.docker import config_files, systemd
from slipway.storage.move.changes import edit_file
from tests.support.storage.records import through_json

FILE = Path("/etc/docker/daemon.json")
NEW = Path("/opt/dlami/nvme/docker/data-root")

NVIDIA = """\
{
    "runtimes": {
        "nvidia": {
            "args": [],
            "path": "nvidia-container-runtime"
        }
    },
    "default-runtime": "nvidia",
    "log-opts": {"max-size": "10m"}
}
"""


def test_other_keys_their_order_and_the_indentation_stay() -> None:
    text = config_files.with_data_root(NVIDIA, FILE, NEW)
    assert list(json.loads(text)) == ["runtimes", "default-runtime", "log-opts", "data-root"]
    assert json.loads(text)["runtimes"] == json.loads(NVIDIA)["runtimes"]
    assert text.startswith('{\n    "runtimes": {\n        "nvidia"')


@pytest.mark.parametrize("text", ["", "  \n", "{}"])
def test_an_empty_configuration_gets_only_the_data_root(text: str) -> None:
    assert json.loads(config_files.with_data_root(text, FILE, NEW)) == {"data-root": str(NEW)}


def test_the_old_name_of_the_setting_goes() -> None:
    text = config_files.with_data_root('{"graph": "/old", "debug": true}', FILE, NEW)
    assert json.loads(text) == {"debug": True, "data-root": str(NEW)}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n  "debug": true\n}\n{\n  "data-root": "/x"\n}\n', 4),  # a script appended to it
        ('{\n  "debug": true,}\n', 2),  # the comma to newer Pythons, the brace to older ones
        ("{\n  'debug': true\n}\n", 2),
        ("[]", 1),
    ],
)
def test_what_is_not_a_json_object_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(UsageError) as refused:
        config_files.with_data_root(text, FILE, NEW)
    assert refused.value.where == f"{FILE}:{line}"


ROOT = 'root = "/new/root"'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"version = 2\n{ROOT}\n"),
        (
            'disabled_plugins = ["cri"]\n\n#root = "/var/lib/containerd"\n#state = "/run/x"\n',
            f'disabled_plugins = ["cri"]\n\n{ROOT}\n#state = "/run/x"\n',
        ),
        ("version = 2\n\n[plugins]\n", f"version = 2\n{ROOT}\n\n[plugins]\n"),
        ("root = '/a' # here\nversion = 2\n", f"{ROOT}\nversion = 2\n"),
        ('[grpc]\n  address = "/x"\n', f'{ROOT}\n[grpc]\n  address = "/x"\n'),
        (
            'version = 2\n[proxy_plugins.x]\n  root = "/not/this"\n',
            f'version = 2\n{ROOT}\n[proxy_plugins.x]\n  root = "/not/this"\n',
        ),
        ('# root = "/a"\nroot = "/b"\n', f'# root = "/a"\n{ROOT}\n'),
    ],
)
def test_containerds_root_is_set_wherever_it_was(before: str, after: str) -> None:
    assert config_files.with_containerd_root(before, Path("/new/root")) == after
    assert config_files.configured_root(after) == "/new/root"
    assert config_files.with_containerd_root(after, Path("/new/root")) == after


SHIPPED = """\
#ENROOT_RUNTIME_PATH        ${XDG_RUNTIME_DIR}/enroot
#ENROOT_CACHE_PATH          ${XDG_CACHE_HOME}/enroot

# Options passed to mksquashfs to produce container images.
#ENROOT_SQUASH_OPTIONS      -comp lzo -noD -exit-on-error
#ENROOT_ROOTFS_WRITABLE     no
"""


def test_enroot_settings_take_the_place_of_the_commented_out_line() -> None:
    text = enroot_conf.conf_with_values(SHIPPED, {"ENROOT_RUNTIME_PATH": "/x/user-$(id -u)"})
    first = text.splitlines()[0]
    assert first.split() == ["ENROOT_RUNTIME_PATH", "/x/user-$(id", "-u)"]
    assert text.splitlines()[1:] == SHIPPED.splitlines()[1:]


def test_of_two_enroot_lines_the_first_one_counts_and_the_other_is_put_out_of_force() -> None:
    text = enroot_conf.conf_with_values(
        "ENROOT_X_PATH=/a\nENROOT_X_PATH /b\n", {"ENROOT_X_PATH": "/c"}
    )
    assert enroot_conf.conf_value(text, "ENROOT_X_PATH") == "/c"
    assert text.splitlines()[1] == "#ENROOT_X_PATH /b"


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ("-comp lzo -noI -noD", "-comp lzo -noI -noD -exit-on-error"),
        ("-comp zstd -exit-on-error -b 1M", "-comp zstd -exit-on-error -b 1M"),
    ],
)
def test_squash_options_that_somebody_set_get_or_keep_exit_on_error(
    options: str, after: str
) -> None:
    text = enroot_conf.conf_with_values(f"ENROOT_SQUASH_OPTIONS  {options}\n", {})
    assert enroot_conf.conf_value(text, "ENROOT_SQUASH_OPTIONS") == after


def test_enroots_own_squash_options_stay_enroots_own() -> None:
    assert enroot_conf.conf_with_values(SHIPPED, {}) == SHIPPED


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [
        (["--data-root=/x"], {"data-root": "/x"}),
        (["--data-root", "/x", "--debug"], {"data-root": "/x", "debug": ""}),
        (["-g", "/x"], {"data-root": "/x"}),
        (["-g/x"], {"data-root": "/x"}),
        (["-H", "fd://", "--containerd=/c.sock"], {"host": "fd://", "containerd": "/c.sock"}),
        (["--debug", "--tls=false"], {"debug": "", "tls": "false"}),
        (["-c", "/etc/c.toml"], {"config": "/etc/c.toml"}),
    ],
)
def test_flags_are_read_as_pflag_reads_them(arguments: list[str], parsed: dict[str, str]) -> None:
    assert config_files.parse_flags(arguments) == parsed


@pytest.mark.parametrize(
    ("config", "arguments", "both"),
    [
        ({"data-root": "/x"}, ["-g", "/y"], ("data-root",)),
        ({"hosts": ["tcp://x"]}, ["-H", "fd://"], ("hosts",)),
        ({"log-opts": {}}, ["--log-opt", "max-size=1m"], ("log-opts",)),
        ({"runtimes": {}}, ["--add-runtime", "x=/y"], ()),
        ({"data-root": "/x", "debug": True}, ["--log-level=info"], ()),
    ],
)
def test_what_is_a_flag_and_a_key_is_found(
    config: dict[str, object], arguments: list[str], both: tuple[str, ...]
) -> None:
    assert config_files.conflicting_flags(config, config_files.parse_flags(arguments)) == both


def test_a_drop_in_waits_for_its_disk_and_for_who_mounts_it() -> None:
    text = systemd.drop_in(Path("/opt/dlami/nvme"), tmp=Path("/opt/dlami/nvme/t"), dlami=True)
    assert text.splitlines()[1:] == [
        "[Unit]",
        "RequiresMountsFor=/opt/dlami/nvme",
        "After=dlami-nvme.service",
        "Wants=dlami-nvme.service",
        "",
        "[Service]",
        'Environment="DOCKER_TMPDIR=/opt/dlami/nvme/t"',
        "ExecStartPre=/usr/bin/timeout 120 /bin/sh -c "
        '"until findmnt --mountpoint /opt/dlami/nvme >/dev/null; do sleep 1; done"',
    ]


def test_an_edit_goes_back_byte_for_byte_and_keeps_mode_and_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "daemon.json"
    real.write_text(NVIDIA)
    real.chmod(0o640)
    link.symlink_to(real)
    edit = edit_file("docker", link, b"{}\n")
    edit.apply()
    edit.apply()
    assert real.read_text() == "{}\n"
    assert through_json(edit) == edit
    edit.revert()
    assert real.read_text() == NVIDIA
    assert real.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()


def test_going_back_later_keeps_what_others_wrote_since(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"data-root": "/old", "debug": true}')
    after = config_files.with_data_root(path.read_text(), path, NEW).encode()
    edit = edit_file("docker", path, after)
    edit.apply()
    assert edit.back().after == b'{"data-root": "/old", "debug": true}'
    path.write_text(json.dumps({**json.loads(after), "hosts": ["unix:///x"]}))
    back = edit.back()
    assert json.loads(back.after or b"") == {
        "data-root": "/old",
        "debug": True,
        "hosts": ["unix:///x"],
    }
    back.apply()
    back.revert()
    assert "hosts" in json.loads(path.read_text())
    assert json.loads(path.read_text())["data-root"] == str(NEW)


def test_going_back_takes_away_what_was_not_there(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    edit = edit_file("docker", path, b'{"data-root": "/new"}')
    edit.apply()
    path.write_text('{"data-root": "/new", "debug": true}')
    assert json.loads(edit.back().after or b"") == {"debug": True}
