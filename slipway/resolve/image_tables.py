"""AWS's image tables, out of the newest `sagemaker-core` that the host's pip knows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import SlipwayError

PACKAGE = "sagemaker-core"
_FOLDER = "image_uri_config/"


@dataclass(frozen=True)
class ImageTables:
    """The tables of one release of the package, by name."""

    version: str
    tables: dict[str, dict[str, Any]]


def fetch_image_tables(version: str = "") -> ImageTables:
    """The tables of the newest release, or of `version`.

    Only the wheel itself is fetched, and nothing of it runs. Raises SlipwayError where pip cannot
    get it.
    """
    wanted = f"{PACKAGE}=={version}" if version else PACKAGE
    with tempfile.TemporaryDirectory(prefix="slipway-tables-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", folder]
        # The tables say the same on every Python, whatever the package itself runs on.
        command += ["--python-version", "3.12", wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise SlipwayError(
                f"{wanted} cannot be fetched: {lines[-1] if lines else done.stderr.strip()}",
                cure="Check the network, and index-url, proxy and cert of `pip config list`.",
            )
        return read_image_tables(wheels[0])


def read_image_tables(wheel: Path) -> ImageTables:
    """The tables of one wheel. Raises SlipwayError where it has none, as those of 1.x."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            tables = {
                Path(name).stem: json.loads(archive.read(name))
                for name in archive.namelist()
                if _FOLDER in name and name.endswith(".json")
            }
    except (zipfile.BadZipFile, ValueError) as error:
        raise SlipwayError(f"{wheel.name} cannot be read: {error}") from error
    if not tables:
        raise SlipwayError(
            f"{wheel.name} has no image tables",
            cure=f"{PACKAGE} has them since 2.0; what older pip indexes offer is too old.",
        )
    return ImageTables(wheel.name.split("-")[1], tables)
