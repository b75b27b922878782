"""Containers of an image: one at rest to look into, and one started as its platform starts it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

import docker.types
import requests
from docker.errors import NotFound
from testinfra.backend.base import (  # type: ignore[import-untyped]
    BaseBackend,
    CommandResult,
)

from slipway.core import SlipwayError, this_process
from slipway.engine import OWNER_LABEL, Engine, remove_container, sdk_errors

SCRIPT = "train.py"
FOLDERS = ("/opt/ml/input/data", "/opt/ml/model", "/opt/ml/output/data")
"""Empty when a job starts."""
RESULTS = ("/opt/ml/output", "/opt/ml/model")
"""What SageMaker looks at after a job."""
_INSTANCE, _GROUP = "ml.c5.xlarge", "homogeneousCluster"

HOST = "algo-1"
"""What SageMaker calls the first host of a job."""

_LIFETIME_S = "7200"  # of a container at rest, should nobody be left to remove it
_PATHS_A_CALL = 500


@dataclass(frozen=True)
class CompletedCommand:
    """How a command ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class LaunchedJob:
    """How a start of the image ended. `log` is stdout and stderr, `files` what was collected."""

    exit_code: int
    log: str
    files: Mapping[str, bytes]


@contextlib.contextmanager
def resting_container(engine: Engine, image: str, *, gpu: bool = False) -> Iterator[str]:
    """A container of `image` that does nothing, without network; its id. Removed at the end."""
    api = engine.client.api
    devices = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if gpu else None
    with sdk_errors(engine, f"starting a container of {image}"):
        container = str(
            api.create_container(
                image,
                entrypoint=["sleep"],
                command=[_LIFETIME_S],
                labels={OWNER_LABEL: str(this_process())},
                host_config=api.create_host_config(network_mode="none", device_requests=devices),
            )["Id"]
        )
    try:
        with sdk_errors(engine, f"starting a container of {image}"):
            api.start(container)
        yield container
    finally:
        with sdk_errors(engine, f"removing a container of {image}"):
            remove_container(engine, container)


def execute_in(
    engine: Engine, container: str, argv: Sequence[str], *, user: str = ""
) -> CompletedCommand:
    """Run a command, word for word and without a shell, in a running container."""
    api = engine.client.api
    with sdk_errors(engine, f"running {argv[0]} in a container"):
        started = api.exec_create(container, list(argv), user=user)["Id"]
        stdout, stderr = api.exec_start(started, demux=True)
        code = api.exec_inspect(started)["ExitCode"]
    return CompletedCommand(int(code), stdout or b"", stderr or b"")


def probe_container(
    engine: Engine, container: str, python: str, script: str, *arguments: str
) -> dict[str, Any]:
    """Run a script of slipway.verify.inside with the container's `python`; what it printed.

    Isolated, and without writing bytecode: looking must not change what is looked at.
    """
    source = resources.files("slipway.verify.inside").joinpath(f"{script}.py").read_text("utf-8")
    done = execute_in(engine, container, [python, "-I", "-B", "-c", source, *arguments])
    if done.exit_code != 0:
        output = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise SlipwayError(f"{python} failed in the image (exit code {done.exit_code}): {output}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def file_states(
    engine: Engine, container: str, python: str, paths: Sequence[str]
) -> dict[str, list[str] | None]:
    """Hash, mode and owner of files in a running container."""
    states: dict[str, list[str] | None] = {}
    for start in range(0, len(paths), _PATHS_A_CALL):
        part = paths[start : start + _PATHS_A_CALL]
        states |= probe_container(engine, container, python, "files", *part)
    return states


def container_contents(
    engine: Engine, container: str, python: str, paths: Sequence[str]
) -> dict[str, bytes]:
    """The contents of files in a running container."""
    contents: dict[str, bytes] = {}
    for start in range(0, len(paths), _PATHS_A_CALL):
        part = probe_container(
            engine, container, python, "contents", *paths[start : start + _PATHS_A_CALL]
        )
        contents |= {path: base64.b64decode(text) for path, text in part.items()}
    return contents


@dataclass(frozen=True)
class LaunchRequest:
    """A job: its command, its surroundings, and the seconds in which it has to end.

    `files` and empty `folders` are put into the container before it starts; the files below
    `collect` are read after its end.
    """

    command: Sequence[str]
    files: Mapping[str, bytes]
    folders: Sequence[str]
    env: Mapping[str, str]
    collect: Sequence[str]
    timeout_s: float


def launch_job(engine: Engine, image: str, request: LaunchRequest) -> LaunchedJob:
    """Start `image` through its own ENTRYPOINT and wait for its end. Raises TimeoutError.

    One host of a SageMaker job: its name is algo-1, which resolves; there is no other network.
    """
    api = engine.client.api
    with sdk_errors(engine, f"starting {image}"):
        container = api.create_container(
            image,
            command=list(request.command),
            hostname=HOST,
            environment=dict(request.env),
            labels={OWNER_LABEL: str(this_process())},
            host_config=api.create_host_config(
                network_mode="none", extra_hosts={HOST: "127.0.0.1"}
            ),
        )["Id"]
        try:
            if request.files or request.folders:
                api.put_archive(container, "/", _archive(request.files, request.folders))
            api.start(container)
            try:
                code = int(api.wait(container, timeout=math.ceil(request.timeout_s))["StatusCode"])
            except (requests.ReadTimeout, requests.ConnectionError) as error:
                if not engine.answers():
                    raise
                log = api.logs(container).decode(errors="replace")
                raise TimeoutError(
                    f"it did not end within {request.timeout_s:g} s:\n{log}"
                ) from error
            log = api.logs(container).decode(errors="replace")
            collected: dict[str, bytes] = {}
            for path in request.collect:
                collected |= _collect(engine, container, path)
            return LaunchedJob(code, log, collected)
        finally:
            remove_container(engine, container)


def _archive(files: Mapping[str, bytes], empty: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        paths = [*files, *(f"{folder}/x" for folder in empty)]
        folders = {parent for path in paths for parent in PurePosixPath(path).parents}
        for folder in sorted(folders):
            entry = tarfile.TarInfo(str(folder).lstrip("/") or ".")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, data in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _collect(engine: Engine, container: str, path: str) -> dict[str, bytes]:
    try:
        chunks, _ = engine.client.api.get_archive(container, path)
    except NotFound:
        return {}
    parent = PurePosixPath(path).parent
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        for entry in tar:
            stream = tar.extractfile(entry) if entry.isreg() else None
            if stream is not None:
                contents[str(parent / entry.name)] = stream.read()
    return contents


class SdkBackend(BaseBackend):  # type: ignore[misc]
    """Runs testinfra's commands in a running container; like `docker exec`, without ENTRYPOINT."""

    NAME = "slipway"

    def __init__(self, engine: Engine, container: str) -> None:
        super().__init__(container[:12])
        self._engine = engine
        self._container = container

    def get_encoding(self) -> str:
        """UTF-8: testinfra would ask a python3 in the container for its locale."""
        return "utf-8"

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a shell command; `args` replace its %s, each as one word."""
        del kwargs
        line = self.get_command(command, *args)
        done = execute_in(self._engine, self._container, ["/bin/sh", "-c", line])
        return self.result(done.exit_code, self.encode(line), done.stdout, done.stderr)

    def run_words(self, *words: str) -> CommandResult:
        """Run a command without any shell, its words as they are."""
        done = execute_in(self._engine, self._container, words)
        line = self.encode(" ".join(words))
        return self.result(done.exit_code, line, done.stdout, done.stderr)


RESOURCES = {
    "current_host": HOST,
    "current_instance_type": _INSTANCE,
    "current_group_name": _GROUP,
    "hosts": [HOST],
    "instance_groups": [
        {"instance_group_name": _GROUP, "instance_type": _INSTANCE, "hosts": [HOST]}
    ],
    "network_interface_name": "eth0",
}


def job_files(script: str, hyperparameters: Mapping[str, Any]) -> dict[str, bytes]:
    """Path -> content of a job that runs `script`. Hyperparameters are JSON inside strings."""
    given = {"sagemaker_program": SCRIPT, **hyperparameters}
    config = {
        "hyperparameters": {name: json.dumps(value) for name, value in given.items()},
        "inputdataconfig": {},
        "resourceconfig": RESOURCES,
    }
    return {
        f"/opt/ml/code/{SCRIPT}": script.encode(),
        **{
            f"/opt/ml/input/config/{name}.json": json.dumps(value).encode()
            for name, value in config.items()
        },
    }
