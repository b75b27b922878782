"""Small wheels, indexes and bases for the tests of the lock."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from slipway.matrix import Addon, Base, Image, Registry
from slipway.matrix.model import Facts, Family

FAMILY = Family("f", "apt", "/opt/venv/bin/python", "/", "root")


def wheel(
    folder: Path,
    name: str,
    version: str,
    requires: Iterable[str] = (),
    *,
    tag: str = "py3-none-any",
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """A wheel that pip installs: one module of the distribution's name, and metadata."""
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    content = {
        f"{stem}.py": f"VERSION = {version!r}\n".encode(),
        **(files or {}),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{path},,\n" for path in content) + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**content, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(member), data)  # dated 1980: same bytes every time
    return path


def sdist(folder: Path, name: str, version: str, requires: Iterable[str] = ()) -> Path:
    """An sdist whose metadata is static (PEP 643), so that nothing has to be run to read it."""
    import tarfile

    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    project = f'[project]\nname = "{name}"\nversion = "{version}"\n'
    project += f"dependencies = {list(requires)!r}\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member, text in (("PKG-INFO", metadata), ("pyproject.toml", project)):
            info = tarfile.TarInfo(f"{stem}/{member}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def sha256(path: Path) -> str:
    """ "sha256:..." of a file, as locks spell it."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def base(
    name: str = "base",
    *,
    python: str = "3.12",
    torch: str = "2.8.0",
    carries: Mapping[str, str | None] | None = None,
    moves: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    family: Family = FAMILY,
) -> Base:
    """A base with few facts."""
    facts = Facts(torch=torch, python=python, os="ubuntu22.04", device="cpu")
    return Base(
        name,
        registry,
        "repository",
        "tag",
        "grammar",
        family,
        "sagemaker",
        facts,
        carries or {},
        moves=moves or {},
    )


def addon(name: str, version: str, *more: str, action: str = "install") -> Addon:
    """An add-on that asks for exactly its version, and for `more`."""
    requirements = (f"{name}=={version}", *more)
    return Addon(name, action, version, "because", requirements)  # type: ignore[arg-type]


def image(on: Base, *addons: Addon, name: str = "image") -> Image:
    """A cell of the matrix."""
    return Image(name, "group", on, "sagemaker", addons, 100)
