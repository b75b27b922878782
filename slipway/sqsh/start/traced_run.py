"""A command in an image, every read of which is noted.

Run as ``python -m slipway.sqsh.start.traced_run IMAGE OUTPUT WORD...`` by `trace_start`, in
namespaces of its own: it serves the image through FUSE, runs the command there as root of the
namespace, and writes the trace. The image is read-only; /tmp is memory, as enroot has it, and
/proc, /sys and /dev are the machine's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from slipway.core import SlipwayError
from slipway.sqsh.start.fuse_connection import FuseConnection
from slipway.sqsh.start.recorded_image import RecordedImage
from slipway.sqsh.start.start_trace import StartTrace, make_trace, read_trace, trace_text
from slipway.squashfs import open_image

_LOOP_AHEAD_KB = 4096

_CURE = (
    "It needs /dev/fuse and, as an ordinary user, namespaces (sysctl user.max_user_namespaces), as"
    " enroot does."
)


def trace_start(image: Path, command: Sequence[str]) -> StartTrace:
    """Run `command` in the .sqsh `image` and note what it reads. Its output is passed on.

    Raises SlipwayError where it fails, or where this machine lets nobody mount.
    """
    if not os.access(image, os.R_OK) or not image.is_file():
        raise SlipwayError("there is no such file, or it is not readable", where=str(image))
    namespaces = ["unshare", "--mount", "--propagation", "private"]
    if not _may_mount():
        namespaces += ["--user", "--map-root-user"]
    with tempfile.TemporaryDirectory(prefix="slipway-start-") as folder:
        output = Path(folder) / "trace"
        worker = [sys.executable, "-m", __name__, str(image.resolve()), str(output), *command]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([*namespaces, *worker], env=environment, check=False)
        if done.returncode or not output.is_file():
            raise SlipwayError(
                f"{shlex.join(command)} ended with {done.returncode} in {image}", cure=_CURE
            )
        return read_trace(output)


def _may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN, which root in a container may lack."""
    status = Path("/proc/self/status").read_text()
    (effective,) = (line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & 1 << 21)


def main() -> None:
    """Serve, run, write."""
    image, output, *command = sys.argv[1:]
    with open_image(Path(image)) as opened:
        files = RecordedImage(opened)
        root = Path(tempfile.mkdtemp(prefix="slipway-root-"))
        try:
            with FuseConnection(files, root):
                _read_far_ahead(root)
                _mount_around(root)
                done = subprocess.run(
                    [_tool("chroot"), str(root), *command], env=_environment(root), check=False
                )
        finally:
            root.rmdir()  # nothing that removes what is below: /dev was mounted there
    if done.returncode:
        raise SystemExit(done.returncode if done.returncode > 0 else 128 - done.returncode)
    trace = make_trace(shlex.join(command), files.reads, files.sizes)
    Path(output).write_text(trace_text(trace))


def _read_far_ahead(root: Path) -> None:
    """Let the kernel read as far ahead as it does on a loop device, where this process may say so.

    A kernel that mounts a .sqsh waits for all that it reads ahead, which is then a part of a start.
    squashfuse reads 128 KiB ahead, as this mount does otherwise.
    """
    device = root.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if os.access(setting, os.W_OK):
        setting.write_text(str(_LOOP_AHEAD_KB))


def _tool(name: str) -> str:
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise SystemExit(f"{name} is not on this machine")
    return program


def _mount_around(root: Path) -> None:
    mount = _tool("mount")
    for name in ("proc", "sys", "dev"):
        if (root / name).is_dir():
            subprocess.run([mount, "--rbind", f"/{name}", str(root / name)], check=True)
    if (root / "tmp").is_dir():
        subprocess.run([mount, "-t", "tmpfs", "tmpfs", str(root / "tmp")], check=True)


def _environment(root: Path) -> dict[str, str]:
    """As enroot's: what the image says, and a home."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    path = root / "etc/environment"
    if path.is_file():
        for line in path.read_text("utf-8", "surrogateescape").splitlines():
            name, equals, value = line.partition("=")
            if equals:
                environment[name] = value
    return {**environment, "HOME": "/tmp"}  # noqa: S108 - the container's own


if __name__ == "__main__":
    main()
