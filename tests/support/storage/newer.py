"""A Docker with the containerd image store, beside whatever is installed.

Debian 12's 20.10 has no such store. The packages of the next Debian release are fetched from the
mirror that this machine's apt is configured for, verified by apt, and only unpacked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

_RELEASE = "trixie"
_PACKAGES = ("docker.io", "containerd")
_FIRST_WITH_STORE = 25


def _installed() -> int:
    text = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+)\.", text.stdout)
    assert found, text.stdout
    return int(found[1])


def search_path(folder: Path, path: str) -> str:
    """A PATH on which dockerd and containerd have the containerd image store."""
    if _installed() >= _FIRST_WITH_STORE:
        return path
    root = folder / "root"
    if not root.exists():
        _fetch(folder)
    return f"{root}/usr/sbin:{root}/usr/bin:{path}"


def _fetch(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("state/lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True)
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(SIGNED_BY) $(SUITE) $(CODENAME)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    mirror = next(line.split()[0] for line in targets.splitlines() if line.endswith("bookworm"))
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={keyring}] {mirror} {_RELEASE} main\n")
    options = {
        "Dir::State": folder / "state",
        "Dir::State::lists": folder / "state/lists",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *_PACKAGES], check=True, cwd=folder / "debs")
    partial = folder / "root.partial"
    for package in sorted((folder / "debs").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(partial)], check=True)
    for name in ("state", "cache", "debs"):
        shutil.rmtree(folder / name)
    partial.rename(folder / "root")
