"""A wheel without compiled code out of an sdist, on this machine: no base has to be there.

pip builds it apart from what is installed here, with the locked build requirements and nothing
else, so that it is the one that a container of any base gives. What turns out to be compiled for
one Python is refused: that has to be built in the base.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import parse_wheel_filename

from slipway.core import SlipwayError, write_atomic
from slipway.records import BUILD_ENVIRONMENT

_TIMEOUT_S = 1800.0
_CURE = (
    "Build an image that has it with an engine once (`./inv build NAME`): its wheel stays in "
    ".slipway/cache/built and is used from there."
)


def build_pure_wheel(sdist: Path, tools: Sequence[Path], folder: Path, log: Path) -> Path:
    """The wheel, below the empty `folder`; the output is kept as `log`.

    Raises SlipwayError where it does not build, or is not for every Python and machine.
    """
    unpacked, wheels, out = folder / "sdist", folder / "tools", folder / "out"
    for path in (unpacked, wheels, out):
        path.mkdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    for tool in tools:
        (wheels / tool.name).symlink_to(tool.resolve())
    pip = next(tool for tool in tools if tool.name.startswith("pip-"))
    command = [sys.executable, f"{pip}/pip", "--isolated", "--disable-pip-version-check", "wheel"]
    command += ["--no-index", "--no-deps", "--no-cache-dir", "--find-links", str(wheels)]
    command += ["--wheel-dir", str(out), str(source)]
    paths = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder)}
    done = subprocess.run(
        command,
        env={**paths, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8", **BUILD_ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_TIMEOUT_S,
        check=False,
    )
    write_atomic(log, done.stdout)
    built = list(out.glob("*.whl"))
    if done.returncode != 0 or len(built) != 1:
        lines = done.stdout.decode(errors="replace").strip().splitlines()[-8:]
        raise SlipwayError(
            f"the wheel of {sdist.name} does not build without its base:\n"
            + "\n".join(f"  {line}" for line in lines),
            where=str(log),
            cure=_CURE,
        )
    tags = parse_wheel_filename(built[0].name)[3]
    if not all(tag.abi == "none" and tag.platform == "any" for tag in tags):
        raise SlipwayError(
            f"{sdist.name} is compiled for the Python of its base, so it has to be built there",
            cure=_CURE,
        )
    return built[0]
