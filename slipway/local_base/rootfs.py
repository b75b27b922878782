"""The root file system of the local base: Debian packages only, by mmdebstrap."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from slipway.core import (
    Event,
    OnEvent,
    Owner,
    Project,
    SlipwayError,
    mounts_under,
    read_mount_table,
    redact,
    sha256_file,
    this_process,
    write_atomic,
)
from slipway.local_base import apt
from slipway.local_base.sparse_members import write_out_sparse_members
from slipway.wheels import host_acquire_settings

CODENAME = "bookworm"
SHARED_KIND = "root-file-systems"

# How a run of mmdebstrap leaves nothing of this host in the root file system: not its mirror, its
# proxy, its logins, its name or its name server. The text is constant; $1 is the root.
_LOGINS = 'cp -a /etc/apt/auth.conf* "$1/etc/apt/" 2>/dev/null || true'
_FORGET = (
    'rm -rf "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/auth.conf*'
    ' "$1/etc/apt/apt.conf.d/99mmdebstrap"'
    ' "$1"/var/log/apt "$1"/var/log/*.log "$1"/var/cache/debconf/*-old'
    ' && : > "$1/etc/resolv.conf" && echo localhost > "$1/etc/hostname"'
    ' && chmod 644 "$1/etc/resolv.conf" "$1/etc/hostname"'
    ' && echo "# add a Debian mirror here" > "$1/etc/apt/sources.list"'
)

_STAGE = re.compile(r"I: (?P<text>(?:running apt|downloading|extracting|installing|creating).*)")


def rootfs_packages(project: Project) -> tuple[str, ...]:
    """What images/local/packages.txt lists."""
    lines = (project.local_base / "packages.txt").read_text("utf-8").splitlines()
    names = (line.partition("#")[0].strip() for line in lines)
    return tuple(name for name in names if name)


def rootfs_id(project: Project) -> str:
    """Hash over what decides the root file system, Debian's own updates left out."""
    trimmed = sha256_file(project.local_base / "dpkg.cfg")
    recipe = [CODENAME, *sorted(rootfs_packages(project)), trimmed, _FORGET]
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()


def rootfs_is_there() -> bool:
    """Whether this host can make the root file system itself."""
    return shutil.which("mmdebstrap") is not None


def rootfs_status(project: Project, on_event: OnEvent, log: Path) -> bytes:
    """dpkg's list in the root file system of this machine, which is made where it is not there.

    Raises SlipwayError, also on a host that cannot make it itself.
    """
    if not rootfs_is_there():
        raise SlipwayError(
            "what is installed in the local base is not known: its root file system is made by "
            "mmdebstrap, and this machine has none",
            cure="Run this where it is (Debian, Ubuntu: `apt-get install mmdebstrap`).",
        )
    with tarfile.open(make_rootfs(project, on_event, log)) as tar:
        for member in tar:
            if posixpath.normpath(member.name) == "var/lib/dpkg/status":
                stream = tar.extractfile(member)
                assert stream is not None
                return stream.read()
    raise SlipwayError("the root file system has no list of packages", where=str(log))


def make_rootfs(project: Project, on_event: OnEvent, log: Path) -> Path:
    """A tar of the root file system, made once for each list of packages.

    Machines that share a folder (SLIPWAY_SHARED) share it there.

    Sources, proxies, certificates and logins are the host's own where it is the same Debian, else
    mmdebstrap's default mirror. Raises SlipwayError with the end of the log.
    """
    path = project.cache / "rootfs" / f"{CODENAME}-{rootfs_id(project)[:16]}.tar"
    if _is_whole(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_rootfs(path.parent)
    shared = project.shared
    claim = shared.claim(SHARED_KIND, path.stem) if shared else None
    with claim or contextlib.nullcontext():
        _digest_file(path).unlink(missing_ok=True)
        if shared and claim is None and (part := shared.part(SHARED_KIND, path.stem)):
            for file in (path, _digest_file(path)):  # in this order: no digest, no file
                shutil.copyfile(part / file.name, file)
            if _is_whole(path):
                return path
        _make_tar(project, path, on_event, log)
        if claim:
            with tempfile.TemporaryDirectory(prefix=".publish-", dir=path.parent) as folder:
                for file in (path, _digest_file(path)):
                    Path(folder, file.name).hardlink_to(file)
                claim.publish(Path(folder))
    return path


def _make_tar(project: Project, path: Path, on_event: OnEvent, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    work = path.parent / f".{this_process()}.partial"
    work.mkdir(exist_ok=True)
    try:
        tar = work / "rootfs.tar"
        _mmdebstrap(project, work, tar, on_event, log)
        with tar.open("rb") as stream:
            os.fsync(stream.fileno())
        _digest_file(path).unlink(missing_ok=True)
        tar.replace(path)
        write_atomic(_digest_file(path), f"{sha256_file(path)}\n")
    finally:
        _remove(work)


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _is_whole(path: Path) -> bool:
    """Whether a kept tar is what was made; one that is damaged or unknown is made anew."""
    try:
        return _digest_file(path).read_text().strip() == sha256_file(path)
    except (OSError, UnicodeDecodeError):
        return False


def remove_stale_rootfs(folder: Path) -> None:
    """Remove what killed runs left; what a living process is at work in stays."""
    for left in folder.glob(".*.partial"):
        owner = Owner.parse(left.name.removeprefix(".").removesuffix(".partial"))
        if owner is None or owner.is_gone:
            _remove(left)


def _remove(folder: Path) -> None:
    """Remove a folder unless something is mounted below it: that would be the host's /sys or /dev.

    mmdebstrap mounts them as root. It runs in a mount namespace of its own here, which ends with
    it, so that this happens only where the kernel does not grant one.
    """
    if not mounts_under(read_mount_table(), folder.resolve()):
        shutil.rmtree(folder)


def _own_mounts() -> list[str]:
    """A prefix that runs a command in a mount namespace of its own; empty where there is none."""
    prefix = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return []  # without root mmdebstrap makes its own namespaces
    probe = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if probe.returncode == 0 else []


def _mmdebstrap(project: Project, work: Path, tar: Path, on_event: OnEvent, log: Path) -> None:
    settings = work / "apt.conf"
    settings.write_text(host_acquire_settings() + apt.proxy_settings(os.environ))
    command = [*_own_mounts(), "mmdebstrap", "--variant=minbase", "--mode=auto", "--format=tar"]
    command.append(f"--include={','.join(rootfs_packages(project))}")
    command.append(f"--dpkgopt={project.local_base / 'dpkg.cfg'}")
    command += [f"--aptopt={settings}", f"--setup-hook={_LOGINS}", f"--customize-hook={_FORGET}"]
    command += [CODENAME, str(tar)]
    listed, stanzas = apt.split_entries(apt.host_sources(CODENAME))
    for file, text in ((work / "host.list", listed), (work / "host.sources", stanzas)):
        if text:
            file.write_text(text)
            command.append(str(file))
    # mmdebstrap unpacks below TMPDIR: the default may be small, or mounted without devices.
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=work) as unpacked:
        Path(unpacked).chmod(0o755)
        _run(command, {**_environment(os.environ), "TMPDIR": unpacked}, on_event, log)
    write_out_sparse_members(tar)


def _environment(host: Mapping[str, str]) -> dict[str, str]:
    """What packages' own scripts get to see: Debian's Python compiles its modules in there, and
    would do it as this host's variables say (PYTHONPYCACHEPREFIX)."""
    return {name: value for name, value in host.items() if not name.startswith("PYTHON")}


def _run(command: list[str], environment: dict[str, str], on_event: OnEvent, log: Path) -> None:
    task, tail = "root file system", ["no output"]
    on_event(Event("start", task))
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout
        try:
            for line in process.stdout:
                file.write(redact(line))
                tail = [*tail, line.strip()][-6:]
                if stage := _STAGE.match(line):
                    on_event(Event("progress", task, stage["text"].rstrip(".")))
            status = process.wait()
        except BaseException:
            process.terminate()  # it removes what it unpacked, and unmounts
            process.wait()
            raise
    if status != 0:
        on_event(Event("failed", task))
        errors = [line for line in tail if line.startswith("E:")] or tail
        raise SlipwayError(
            f"mmdebstrap could not make the root file system: {' '.join(errors)}",
            where=str(log),
            cure="Check that `apt-get update` works on this host, its sources and its proxy.",
        )
    on_event(Event("done", task))
