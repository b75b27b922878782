"""Runs on a head node or a node, from stdin of its python3 (3.7 or newer), and changes nothing.

`python3 - head NAME` writes an empty file of that name into the home directory, for nodes to look
for; `python3 - node REQUEST` looks. Both print JSON: facts, and no opinion of them. A node's is cut
into lines "NODE NUMBER COUNT PART", because srun mixes the parts of longer lines.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import resource
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLUGSTACK_FOLDERS = (
    *("/etc/slurm", "/run/slurm/conf", "/var/spool/slurmd/conf-cache", "/opt/slurm/etc"),
    *("/var/spool/slurm/d/conf-cache", "/etc/slurm-llnl"),
)
#: enroot's own defaults (NVIDIA/enroot:doc/configuration.md).
ENROOT_PATHS = {
    "ENROOT_RUNTIME_PATH": "${XDG_RUNTIME_DIR:-/run}/enroot",
    "ENROOT_CACHE_PATH": "${XDG_CACHE_HOME:-$HOME/.cache}/enroot",
    "ENROOT_DATA_PATH": "${XDG_DATA_HOME:-$HOME/.local/share}/enroot",
    "ENROOT_TEMP_PATH": "${TMPDIR:-/tmp}",
}
NAMES_S = 4.0
PING_S = 6.0
LINE_CHARS = 400


def command_output(*words: str, timeout: float = 8.0) -> str:
    """What a command prints, errors included; "" where it can not be run."""
    try:
        ended = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.decode(errors="replace")


def file_text(path: str | Path) -> str | None:
    """A file's text; None where it can not be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None


def file_mode(path: str | Path) -> int:
    """What kind of file a path is, as stat(2) has it; 0 for one that is not to be reached."""
    try:
        return Path(path).stat().st_mode
    except OSError:
        return 0


def files_like(pattern: str) -> Iterator[Path]:
    """Paths that match, in order; `pattern` is absolute."""
    return iter(sorted(Path("/").glob(pattern.lstrip("/"))))


def plugstack_lines(path: Path, depth: int = 0) -> list[str]:
    """The lines of a plugstack.conf that load something, those of included files among them."""
    lines = []
    for line in (file_text(path) or "").splitlines():
        words = line.split("#")[0].split()
        if len(words) > 1 and words[0] == "include" and depth < 4:
            for included in files_like(str(path.parent / words[1])):
                lines += plugstack_lines(included, depth + 1)
        elif words:
            lines.append("{}: {}".format(path, " ".join(words)))
    return lines


def find_plugstack(named: str) -> list[str] | None:
    """The lines of the plugstack.conf in use; None where there is none."""
    conf = os.environ.get("SLURM_CONF")
    folders = [*([Path(conf).parent] if conf else []), *map(Path, PLUGSTACK_FOLDERS)]
    for path in (*([Path(named)] if named else []), *(f / "plugstack.conf" for f in folders)):
        if stat.S_ISREG(file_mode(path)):
            return plugstack_lines(path)
    return None


def mount_table() -> list[list[str]]:
    """(device numbers, mount point, type) of every mount, the innermost last."""
    rows = []
    for line in (file_text("/proc/self/mountinfo") or "").splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        if len(words) > 4 and rest:
            target = words[4].encode().decode("unicode_escape", "replace")
            rows.append([words[2], target, rest.split()[0]])
    return rows


def place_facts(path: str, mounts: list[list[str]]) -> dict[str, Any]:
    """Of a path, or of the nearest folder above that is there: its disk, and whether one may write.

    A network file system that is gone would block here: the caller has a limit.
    """
    existing = Path(path).absolute()
    while not file_mode(existing) and existing != existing.parent:
        existing = existing.parent
    real = str(existing.resolve())
    disk = os.statvfs(existing)
    mount = ["", "/", ""]
    for row in mounts:
        if real == row[1] or real.startswith(row[1].rstrip("/") + "/"):
            mount = row if len(row[1]) >= len(mount[1]) else mount
    return {
        "path": path,
        "existing": str(existing),
        "writable": os.access(existing, os.W_OK | os.X_OK),
        "mount": mount[1],
        "type": mount[2],
        "total": disk.f_blocks * disk.f_frsize,
        "free": disk.f_bavail * disk.f_frsize,
        "inodes": disk.f_files,
        "free_inodes": disk.f_favail,
    }


def other_disks(mounts: list[list[str]]) -> list[dict[str, Any]]:
    """Disks of the node's own that could hold what is on its root disk, each once."""
    seen = {device for device, target, _ in mounts if target == "/"}
    disks = []
    for device, target, kind in mounts:
        if (
            kind in ("ext4", "xfs", "btrfs")
            and device not in seen
            and stat.S_ISDIR(file_mode(target))
        ):
            seen.add(device)
            disks.append(place_facts(target, mounts))
    return disks


def enroot_paths() -> dict[str, str]:
    """enroot's folders for this user, from where enroot has them: environment, configuration."""
    paths = dict(ENROOT_PATHS)
    settings = Path("/etc/enroot/enroot.conf")
    for conf in (settings, *files_like("/etc/enroot/enroot.conf.d/*.conf")):
        for line in (file_text(conf) or "").splitlines():
            match = re.match(r"\s*(ENROOT_\w+_PATH)\s+(.*\S)", line)
            if match and match.group(1) in paths and conf.stat().st_uid == 0:
                paths[match.group(1)] = match.group(2)
    return {
        name: os.environ.get(name) or command_output("/bin/sh", "-c", f'printf %s "{text}"')
        for name, text in paths.items()
    }


def docker_root() -> str | None:
    """Where Docker keeps its data; None where there is no Docker."""
    if not shutil.which("dockerd"):
        return None
    try:
        settings = json.loads(file_text("/etc/docker/daemon.json") or "{}")
        return str(settings.get("data-root") or "/var/lib/docker")
    except (ValueError, AttributeError):
        return "/var/lib/docker"


def interfaces() -> dict[str, int]:
    """MTU of every interface to other machines that is up."""
    found = {}
    for folder in files_like("/sys/class/net/*"):
        name = folder.name
        if name == "lo" or re.match(r"docker|veth|br-|cni|flannel|virbr|tun|tap", name):
            continue
        mtu = file_text(folder / "mtu")
        if mtu and (file_text(folder / "operstate") or "").strip() != "down":
            found[name] = int(mtu)
    return found


def unresolved(names: list[str]) -> list[str]:
    """Names of nodes that this machine does not know; look-ups that hang count as such."""
    missing = set(names)

    def look_up(name: str) -> None:
        try:
            socket.getaddrinfo(name, None)
            missing.discard(name)
        except OSError:
            pass  # it stays in the list, which is what is told

    threads = [threading.Thread(target=look_up, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    until = time.time() + NAMES_S
    for thread in threads:
        thread.join(max(0.0, until - time.time()))
    return sorted(missing)


def os_release() -> str:
    """``ubuntu 22.04``."""
    text = file_text("/etc/os-release") or ""
    values = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)', text, re.MULTILINE))
    return " ".join(filter(None, (values.get("ID"), values.get("VERSION_ID"))))


def user_name(uid: int) -> str:
    """The user's name here, "" where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def hard_limit(name: int) -> int:
    """What a program may raise its limit to; -1 for unlimited."""
    _soft, hard = resource.getrlimit(name)
    return -1 if hard == resource.RLIM_INFINITY else hard


def first_number(path: str) -> int | None:
    """The number in a file of the kernel's."""
    text = (file_text(path) or "").strip()
    return int(text) if text.isdigit() else None


def machine_facts(plugstack: str) -> dict[str, Any]:
    """What head node and nodes tell alike."""
    mounts = mount_table()
    enroot = enroot_paths() if shutil.which("enroot") else {}
    places = {"root": "/", "tmp": "/tmp", "home": str(Path.home()), **enroot}  # noqa: S108 - asked about, not used
    docker = docker_root()
    if docker:
        places["docker"] = docker
    driver = re.search(r"Module\s+(\d[\d.]+)", file_text("/proc/driver/nvidia/version") or "")
    return {
        "time": time.time(),
        "host": socket.gethostname(),
        "user": user_name(os.getuid()),
        "uid": os.getuid(),
        "kernel": os.uname().release,
        "os": os_release(),
        "hyperpod": stat.S_ISDIR(file_mode("/opt/sagemaker_cluster")),
        "product": (file_text("/sys/devices/virtual/dmi/id/product_name") or "").strip(),
        "tools": [name for name in ("enroot", "squashfuse", "unsquashfs") if shutil.which(name)],
        "places": {name: place_facts(path, mounts) for name, path in places.items()},
        "disks": other_disks(mounts),
        "fuse": os.access("/dev/fuse", os.R_OK | os.W_OK),
        "user_namespaces": [
            first_number("/proc/sys/user/max_user_namespaces"),
            first_number("/proc/sys/kernel/unprivileged_userns_clone"),
            first_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        ],
        "memlock": hard_limit(resource.RLIMIT_MEMLOCK),
        "nofile": hard_limit(resource.RLIMIT_NOFILE),
        "interfaces": interfaces(),
        "efa": len(list(files_like("/sys/class/infiniband/*"))),
        "verbs": len(list(files_like("/dev/infiniband/uverbs*"))),
        "gpus": sum(bool(re.fullmatch(r"nvidia\d+", p.name)) for p in files_like("/dev/nvidia*")),
        "driver": driver.group(1) if driver else "",
        "plugstack": find_plugstack(plugstack),
    }


def topology_facts(folder: Path) -> dict[str, Any] | None:
    """The nodes that topology.yaml names, else those of topology.conf: where the first is there,
    Slurm 25.05 and newer does not look at the other (topology.yaml(5)). None without both."""
    for name, pattern in (
        ("topology.yaml", r"\bnodes:\s*[\"']?([^\s\"'}]+)"),
        ("topology.conf", r"^\s*(?:Switch|Block)Name=.*?\bNodes=(\S+)"),
    ):
        text = file_text(folder / name)
        if text is not None:
            text = re.sub(r"#.*", "", text)
            some = re.search(r"\b(flat|block):|^\s*BlockName=", text, re.M | re.I)
            nodes = [found.rstrip(",") for found in re.findall(pattern, text, re.M | re.I)]
            return {"file": name, "nodes": nodes, "names_all": some is None}
    return None


def head_facts(mark: str) -> dict[str, Any]:
    """This machine's, and what Slurm says of the cluster."""
    ping = command_output("scontrol", "ping", timeout=PING_S)
    up = " UP" in ping  # else each of the others would be waited for, too

    def show(*words: str) -> str:
        return command_output("scontrol", "show", *words) if up else ""

    config = show("config")
    values = dict(re.findall(r"^(\w+)\s*= (.*)$", config, re.MULTILINE))
    topology = topology_facts(Path(values.get("SLURM_CONF", "/")).parent)
    partitions = show("partitions", "--oneliner")
    in_topology = topology["nodes"] if topology else ()
    lists = {*in_topology, *re.findall(r" Nodes=(\S+)", partitions)}
    marked = True
    try:
        (Path.home() / mark).touch(0o600, exist_ok=False)
    except OSError:
        marked = False
    return {
        **machine_facts(values.get("PlugStackConfig", "")),
        "config": values,
        "nodes": show("nodes", "--oneliner"),
        "partitions": partitions,
        # Lists like n[1-4], as Slurm itself reads them.
        "lists": {text: show("hostnames", text).split() for text in lists},
        "ping": ping,
        "container_option": "--container-image" in command_output("srun", "--help"),
        "topology": topology,
        "marked": marked,
    }


def node_facts(request: dict[str, Any]) -> dict[str, Any]:
    """This node's, with what only it can answer."""
    try:
        in_home = {path.name for path in Path.home().iterdir()}
    except OSError:
        in_home = set()
    return {
        **machine_facts(request["plugstack"]),
        "name": os.environ.get("SLURMD_NODENAME", ""),
        # Listed first: NFS clients keep in mind what was not there.
        "home_shared": request["mark"] in in_home,
        "unresolved": unresolved(request["names"]),
        "files": {
            path: Path(path).stat().st_size if stat.S_ISREG(file_mode(path)) else -1
            for path in request["files"]
        },
    }


def main() -> None:
    """Print the facts."""
    role, argument = sys.argv[1:3]
    if role == "head":
        sys.stdout.write(json.dumps(head_facts(argument)) + "\n")
        return
    facts = node_facts(json.loads(argument))
    text = json.dumps(facts)
    parts = [text[at : at + LINE_CHARS] for at in range(0, len(text), LINE_CHARS)]
    for number, part in enumerate(parts):
        sys.stdout.write("{} {} {} {}\n".format(facts["name"], number, len(parts), part))


if __name__ == "__main__":
    main()
