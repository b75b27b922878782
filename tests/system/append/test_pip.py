"""What is laid out without an engine against the pip that engines' builds run: file by file."""

from __future__ import annotations

import hashlib
import io
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from slipway.append import AppendedBlobs, AppendRequest, append_image
from slipway.append.layer_files import ContentReader
from slipway.append.python_layout import PythonLayout
from slipway.append.wheel_files import install_wheel
from slipway.core import Project, anonymous
from slipway.engine import ContextFile
from slipway.inventory import open_layered_image
from slipway.records import BUILD, load_locks
from slipway.squashfs import decompressed_stream
from slipway.wheels import fetch_wheels
from tests.support.oci_bases import Tree, apply_layer, base_tar, write_base
from tests.support.wheels import make_wheel

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
LOCK = "local-sagemaker-cpu_sagemaker-training-5.1.4+sagemaker-pytorch-training-3.0.0"


class Environment:
    """A virtual environment with the pinned pip beside it."""

    def __init__(self, folder: Path, pip: Path) -> None:
        self.folder = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder], check=True)
        self.python = str(self.folder / "bin" / "python")
        with zipfile.ZipFile(pip) as wheel:
            wheel.extractall(folder / "pip", [n for n in wheel.namelist() if n.startswith("pip/")])
        self.pip = folder / "pip" / "pip"

    def install(self, wheels: Mapping[str, Path]) -> None:
        """As install_addons.py has it done."""
        pins = [
            f"{name}=={parse_wheel_filename(wheel.name)[1]}"
            f" --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
            for name, wheel in wheels.items()
        ]
        requirements = self.folder.with_name("requirements.txt")
        requirements.write_text("".join(pins))
        command = [self.python, str(self.pip), "--isolated", "install", "--no-deps", "--no-index"]
        command += ["--no-compile", "--no-cache-dir", "--quiet", "--require-hashes"]
        command += ["--root-user-action=ignore", "--no-warn-script-location"]
        for wheel in wheels.values():
            command += ["--find-links", str(wheel.parent)]
        subprocess.run([*command, "-r", str(requirements)], check=True, umask=0o022)

    def tree(self) -> dict[str, tuple[int, bytes] | None]:
        """Path from the root -> mode and content; None for a folder. Links are left out."""
        found: dict[str, tuple[int, bytes] | None] = {}
        for path in self.folder.rglob("*"):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found[str(path)[1:]] = (stat.S_IMODE(status.st_mode), path.read_bytes())
            elif stat.S_ISDIR(status.st_mode):
                found[str(path)[1:]] = None
        return found


@pytest.fixture(scope="module")
def pip(shared_project: Project) -> Path:
    pins = load_locks(shared_project).python[BUILD].pins
    wheels = fetch_wheels(shared_project, [pin for pin in pins if pin.name == "pip"], PYTHON)
    return wheels[0]


def test_real_wheels_are_laid_out_as_pip_does(
    shared_project: Project, pip: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path, pip)
    before = environment.tree()
    pins = [pin for pin in load_locks(shared_project).python[LOCK].pins if not pin.source]
    files = fetch_wheels(shared_project, pins, "3.11")
    # Every Python takes these; the compiled ones differ in nothing but their members' bytes.
    wheels = {
        pin.name: file for pin, file in zip(pins, files, strict=True) if "-none-any" in file.name
    }
    environment.install(wheels)
    after = environment.tree()
    theirs = {path: found for path, found in after.items() if found and path not in before}
    layout = PythonLayout(environment.python, PYTHON)
    ours = {}
    with ContentReader() as contents:
        for name, wheel in wheels.items():
            for file in install_wheel(wheel, name, layout).files:
                ours[file.path] = (file.mode, b"".join(contents.pieces(file)))
    assert sorted(ours) == sorted(theirs)
    assert [path for path in ours if ours[path] != theirs[path]] == []
    assert len(ours) > 1000


OLD = {
    "pkg/__init__.py": b"old = 1\n",
    "pkg/gone.py": b"",
    "pkg/sub/deep/x.py": b"",
    "pkg/sub/deep/x.txt": b"",
    "space/pkg.py": b"",
    "pkg-1.0.data/scripts/tool": b"#!python\nold\n",
    "pkg-1.0.data/data/share/pkg/a.txt": b"old",
    "pkg-1.0.data/data/share/pkg/b.txt": b"old",
    "pkg-1.0.data/headers/pkg.h": b"",
}
NEW = {
    "pkg/__init__.py": b"new = 1\n",
    "pkg/sub/other.py": b"",
    "space/newer.py": b"",
    "pkg-2.0.data/scripts/tool": b"#!python\nnew\n",
    "pkg-2.0.data/data/share/pkg/a.txt": b"new",
    "pkg/naïve, and long/" + "n" * 120 + ".txt": b"",
}


def test_a_replaced_wheel_leaves_what_pip_leaves(pip: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, pip)
    scripts = "[console_scripts]\nrun = pkg:main\nstays = pkg:main\n"
    old = make_wheel(tmp_path / "old", "pkg", OLD, entry_points=scripts)
    beside = make_wheel(tmp_path / "old", "beside", {"space/beside.py": b"", "tests/t.py": b"1"})
    environment.install({"pkg": old, "beside": beside})
    site = Path(environment.folder, "lib", f"python{PYTHON}", "site-packages")
    subprocess.run([environment.python, "-m", "compileall", "-q", site], check=True)
    (site / "pkg" / "sub" / "deep" / "nobodys.txt").write_bytes(b"")
    before = environment.tree()

    new = make_wheel(
        tmp_path / "new",
        "pkg",
        NEW,
        version="2.0",
        entry_points="[console_scripts]\nrun = pkg:start\n",
        executable=["pkg/sub/other.py"],
    )
    also = make_wheel(tmp_path / "new", "also", {"tests/u.py": b"", "pkg/sub/shared.py": b"a"})
    environment.install({"pkg": new, "also": also})
    expected = environment.tree()

    base = {path: None if found is None else found[1] for path, found in before.items()}
    write_base(tmp_path / "base", [base_tar(dict(sorted(base.items())))])
    installer = Path(__file__).parents[3] / "images" / "context" / "install_addons.py"
    pins = "".join(
        f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        for name, version, wheel in (("pkg", "2.0", new), ("also", "1.0", also))
    )
    request = AppendRequest(
        dockerfile="FROM x\n# --- pkg 2.0 ---\n"
        "RUN --mount=type=bind,source=python/pkg,target=/mnt "
        f'["{environment.python}", "-B", "/mnt/install_addons.py", "pkg", "--may-move", "pkg"]\n',
        context=(
            ContextFile("python/pkg/install_addons.py", installer),
            ContextFile("python/pkg/pkg.txt", pins.encode()),
            ContextFile(f"python/pkg/wheels/{new.name}", new),
            ContextFile(f"python/pkg/wheels/{also.name}", also),
        ),
        labels={},
        python=PYTHON,
        cache=tmp_path / "cache",
    )
    with open_layered_image(f"oci:{tmp_path / 'base'}", anonymous) as opened:
        image = append_image(opened, request, "test")
    tree: Tree = {}
    blobs = AppendedBlobs(image)
    for layer in image.manifest.json()["layers"]:
        plain = b"".join(decompressed_stream(blobs.blob_stream(layer["digest"])))
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            apply_layer(tree, tar)
    prefix = str(environment.folder)[1:] + "/"
    ours = {path: found for path, found in tree.items() if path.startswith(prefix)}
    assert sorted(ours) == sorted(expected)
    assert {path: found[4] for path, found in ours.items() if found[0] == "file"} == {
        path: found[1] for path, found in expected.items() if found
    }
    modes = {path: found[0] for path, found in expected.items() if found and path not in before}
    assert {path: ours[path][1] for path in modes} == modes
