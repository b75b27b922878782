"""Root file systems to export, and trees on disk as values that can be compared."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

from slipway.engine import Engine

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
OLD = 1_600_000_000


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, **fields: object
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.mtime = kind, mode, OLD
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def odd_rootfs() -> bytes:
    """Everything that a file system can hold and that packers get wrong."""
    capability = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    folder, long = tarfile.DIRTYPE, "very-long-name-" * 15
    contents: list[tuple[tarfile.TarInfo, bytes]] = [
        (entry("etc", folder, 0o755), b""),
        (entry("etc/rc.local", tarfile.SYMTYPE, linkname="rc.d/rc.local"), b""),
        (entry("etc/fstab"), b"# the image's own\n"),
        (entry("etc/shadow", mode=0o000), b"secret"),
        (entry("dev", folder, 0o755), b""),
        (entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        (entry("opt", folder, 0o555), b""),
        (entry("opt/node", tarfile.BLKTYPE, devmajor=7, devminor=0), b""),
        (entry("opt/ping", mode=0o755, pax_headers=capability), b"elf"),
        (entry("opt/sudo", mode=0o4755), b"setuid"),
        (entry("opt/sticky", folder, 0o1777), b""),
        (entry("opt/user", uid=1000, gid=1000, uname="me", gname="me"), b"mine"),
        (entry("opt/fifo", tarfile.FIFOTYPE, 0o600), b""),
        (entry("opt/hard-1"), b"shared " * 1000),
        (entry("opt/hard-2", tarfile.LNKTYPE, linkname="opt/hard-1"), b""),
        (entry("opt/soft", tarfile.SYMTYPE, linkname="/etc/../opt/ping"), b""),
        (entry("opt/dangling", tarfile.SYMTYPE, linkname="x" * 300), b""),
        (entry("opt/empty"), b""),
        (entry("opt/block", mode=0o600), b"a" * (1 << 20)),
        (entry("opt/block-and-one"), os.urandom((1 << 20) + 1)),
        (entry("opt/sparse"), bytes(3 << 20) + b"end" + bytes(1 << 20)),
        (entry(f"opt/{long}", folder, 0o755), b""),
        (entry(f"opt/{long}/{long}"), b"long"),
        (entry("opt/caf\udce9"), b"latin-1 name"),
        (entry("opt/日本語"), b"utf-8 name"),
        (entry("opt/new\nline", folder, 0o755), b""),
        (entry("opt/new\nline/and 'quotes' $(id)"), b"quoted"),
    ]
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer,
        mode="w",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as tar:
        for info, data in contents:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def random_rootfs(files: int) -> bytes:
    """Files of 4 MiB that no compressor makes smaller."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(files):
            tar.addfile(entry(f"data-{number}", size=4 << 20), io.BytesIO(os.urandom(4 << 20)))
    return buffer.getvalue()


def xattrs(path: Path) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Path -> all that can be seen of it. Hard links show as the first path of their inode."""
    first: dict[int, bytes] = {}
    found: dict[bytes, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        relative = os.fsencode(path.relative_to(root))
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        folder = stat.S_ISDIR(status.st_mode)
        linked = None if folder else first.setdefault(status.st_ino, relative)
        found[relative] = (
            stat.S_IFMT(status.st_mode),
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            int(status.st_mtime),
            content,
            linked,
            xattrs(path),
        )
    return found


def unpack(sqsh: Path, destination: Path) -> Path:
    subprocess.run(
        ["unsquashfs", "-no-progress", "-quiet", "-xattrs", "-d", str(destination), str(sqsh)],
        check=True,
        capture_output=True,
    )
    return destination


def engine_rootfs(engine: Engine, reference: str, destination: Path) -> Path:
    """The same image by way of docker export and GNU tar: the oracle."""
    container = engine.client.api.create_container(reference, ["x"], network_disabled=True)["Id"]
    destination.mkdir()
    try:
        command = ["tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
        command += ["--warning=no-timestamp", "-C", str(destination)]
        tar = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert tar.stdin is not None
        for chunk in engine.client.api.export(container):
            tar.stdin.write(chunk)
        tar.stdin.close()
        assert tar.wait() == 0
    finally:
        engine.client.api.remove_container(container, v=True)
    return destination
