"""Runs in a container of a base: one wheel out of one sdist, without network.

    PYTHON build_wheel.py SDIST WHEELS DESTINATION

WHEELS is a folder with pip and what the sdist builds with. Stdlib only, Python 3.9 and newer.
The folder that it builds in has one name always: compilers write paths into what they make.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

BUILD = Path("/tmp/slipway-build")  # noqa: S108 - alone in a container that is thrown away


def main() -> None:
    """Unpack, build, and leave the wheel in DESTINATION."""
    sdist, wheels, destination = map(Path, sys.argv[1:])
    BUILD.mkdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(BUILD)  # noqa: S202 - the lock vouches for it, and its code runs next
    (source,) = BUILD.iterdir()
    pip = next(wheels.glob("pip-*.whl"))
    command = [sys.executable, f"{pip}/pip", "--isolated", "--disable-pip-version-check", "wheel"]
    command += ["--no-index", "--no-deps", "--no-cache-dir", "--find-links", str(wheels)]
    command += ["--wheel-dir", str(destination), str(source)]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
