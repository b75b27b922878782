"""Images, a container and a volume with all that a copy can lose, and how they look inside."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

from slipway.engine import BARE, Engine, import_rootfs, run_once
from tests.support.tiny import rootfs_tar

LOWER, UPPER = "slip/lower:1", "slip/upper:1"
VOLUME, WORKER = "precious", "worker"

# cap_net_raw+ep, as setcap(8) writes it: version 2, little-endian (linux/capability.h).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

CHANGE = (
    "rm /opt/deleted /opt/folder/hidden && rm -r /opt/replaced && mkdir /opt/replaced"
    " && echo new > /opt/replaced/new"
)
WORK = "echo precious > /data/file; echo mine > /opt/mine; rm /opt/also-deleted; echo done"
LOOK = "ls /opt /opt/folder /opt/replaced; cat /opt/linked /opt/link"


def rootfs() -> bytes:
    """The tiny root file system with some files in /opt."""
    buffer = io.BytesIO(rootfs_tar())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for name in ("deleted", "also-deleted", "folder/hidden", "replaced/old", "linked", "able"):
            entry = tarfile.TarInfo(f"opt/{name}")
            data = name.encode()
            entry.size, entry.mode, entry.mtime = len(data), 0o640, 1_600_000_000
            if name == "able":
                entry.pax_headers = {
                    "SCHILY.xattr.security.capability": CAPABILITY.decode("latin1"),
                    "SCHILY.xattr.user.note": "kept",
                }
            tar.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("opt/link")
        link.type, link.linkname = tarfile.LNKTYPE, "opt/linked"
        tar.addfile(link)
    return buffer.getvalue()


def fill(engine: Engine) -> None:
    """Two images, the upper with whiteouts and a replaced folder; a container that has worked."""
    api = engine.client.api
    import_rootfs(engine, io.BytesIO(rootfs()), LOWER, changes=["CMD /bin/sh"])
    quiet = api.create_host_config(network_mode="none", init=False)
    changed = api.create_container(LOWER, ["/bin/sh", "-c", CHANGE], host_config=quiet)["Id"]
    api.start(changed)
    assert api.wait(changed)["StatusCode"] == 0
    name, tag = UPPER.split(":")
    api.commit(changed, name, tag)
    api.remove_container(changed)
    api.create_volume(VOLUME)
    bound = api.create_host_config(network_mode="none", init=False, binds=[f"{VOLUME}:/data"])
    worker = api.create_container(
        UPPER, ["/bin/sh", "-c", WORK], name=WORKER, volumes=["/data"], host_config=bound
    )["Id"]
    api.start(worker)
    assert api.wait(worker)["StatusCode"] == 0


def run_sleeper(engine: Engine, name: str = "sleeper") -> str:
    """A container that runs until it is stopped, with the volume; returns its id."""
    api = engine.client.api
    host = api.create_host_config(network_mode="none", init=False, binds=[f"{VOLUME}:/data"])
    sleeper = api.create_container(
        UPPER, ["/bin/sleep", "1000"], name=name, volumes=["/data"], host_config=host,
        stop_timeout=0,
    )["Id"]  # fmt: skip
    api.start(sleeper)
    return str(sleeper)


def seen(engine: Engine) -> dict[str, object]:
    """What a user sees: names, ids, and what is inside."""
    api = engine.client.api
    inside = run_once(engine, UPPER, ["/bin/sh", "-c", LOOK], BARE, timeout_s=60)
    assert inside.exit_code == 0, inside.stderr
    return {
        "images": sorted((i["Id"], *(i["RepoTags"] or ())) for i in api.images()),
        "volumes": sorted(v["Name"] for v in api.volumes()["Volumes"]),
        "containers": sorted((c["Id"], c["Names"][0]) for c in api.containers(all=True)),
        "inside": inside.stdout.decode().split(),
        "said": api.logs(WORKER),
        "changed": sorted((c["Path"], c["Kind"]) for c in api.diff(WORKER)),
    }


EXPECTED_INSIDE = [
    *("/opt:", "able", "also-deleted", "folder", "link", "linked", "replaced"),
    *("/opt/folder:", "/opt/replaced:", "new", "linkedlinked"),
]


def works(engine: Engine) -> None:
    """The container starts again, on its volume."""
    engine.client.api.start(WORKER)
    # It deletes a file that it has deleted before, which fails: that much it remembers.
    assert engine.client.api.wait(WORKER)["StatusCode"] == 0


def fingerprint(root: Path, *patterns: str) -> dict[str, tuple[object, ...]]:
    """Everything about the tree, or those in it that match: rights, times, xattrs, bytes, links."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for pattern in patterns or (".",):
        tops = sorted(root.glob(pattern)) if pattern != "." else [root]
        assert tops, f"nothing matches {pattern} in {root}"
        for top in tops:
            for path in sorted([top, *top.rglob("*")]):
                found[str(path.relative_to(root))] = _one(path, root, inodes)
    return found


def _one(path: Path, root: Path, inodes: dict[int, str]) -> tuple[object, ...]:
    status = path.lstat()
    names = os.listxattr(path, follow_symlinks=False)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}
    content: object = None
    if stat.S_ISREG(status.st_mode):
        content = (status.st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    elif stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif not stat.S_ISDIR(status.st_mode):
        content = status.st_rdev
    linked = inodes.setdefault(status.st_ino, str(path.relative_to(root)))
    times = status.st_mtime_ns
    return (
        oct(status.st_mode), status.st_uid, status.st_gid, times, str(attributes), content, linked
    )  # fmt: skip
