"""One container, run to its end: the proof that layers, runtime and disk work together.

It needs no shell in the image and no network: a program of a few bytes is bound into a container
of an image that is there, or made an image of its own where there is none.
"""

from __future__ import annotations

import io
import platform
import struct
import tarfile
import uuid
from pathlib import Path

from slipway.core import write_atomic
from slipway.engine import (
    BARE,
    ContainerOptions,
    Engine,
    EngineError,
    import_rootfs,
    inspect_image,
    run_once,
    sdk_errors,
)
from slipway.storage.errors import StorageError

_EXIT_CODE = 42
_PROGRAM = "/.slipway-trial"
_TIMEOUT_S = 120.0

# exit(42) as machine code: the system call's number and argument into registers, then the call.
_CODE = {
    "x86_64": (62, b"\xbf\x2a\x00\x00\x00\xb8\x3c\x00\x00\x00\x0f\x05"),
    "aarch64": (183, b"\x40\x05\x80\xd2\xa8\x0b\x80\xd2\x01\x00\x00\xd4"),
}
_DOCKER_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def trial_program(machine: str) -> bytes:
    """A static ELF executable that exits with 42 (elf(5): one header, one segment, the code)."""
    number, code = _CODE[machine]
    base, header = 0x400000, 64 + 56
    size = header + len(code)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(2, number, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return elf + segment + code


def run_trial_container(engine: Engine, folder: Path) -> str:
    """Run the trial container; returns the image that it used. Raises StorageError.

    `folder` is a place on this machine where the program can lie meanwhile.
    """
    machine = platform.machine()
    if machine not in _CODE:
        raise StorageError(f"no trial container is known for {machine} processors")
    image = _image(engine, _DOCKER_NAMES[machine])
    try:
        if image is None:
            return _run_own(engine, trial_program(machine))
        return _run_in(engine, image, trial_program(machine), folder)
    except EngineError as error:
        raise StorageError(f"no container runs: {error.what}", where=error.where) from error


def _image(engine: Engine, architecture: str) -> str | None:
    """The image with the most layers that this machine can run."""
    best: tuple[int, str] | None = None
    with sdk_errors(engine, "looking for an image to try"):
        for listed in engine.client.api.images():
            inspection = inspect_image(engine, listed["Id"])
            layers = len((inspection.get("RootFS") or {}).get("Layers") or ())
            usable = (inspection.get("Os"), inspection.get("Architecture")) == (
                "linux",
                architecture,
            )
            if usable and layers and (best is None or layers > best[0]):
                best = (layers, str(listed["Id"]))
    return best[1] if best else None


def _run_in(engine: Engine, image: str, binary: bytes, folder: Path) -> str:
    path = folder / "trial"
    write_atomic(path, binary, mode=0o755)
    try:
        done = run_once(
            engine,
            image,
            [_PROGRAM],
            ContainerOptions(entrypoint=(), mounts={path: _PROGRAM}),
            timeout_s=_TIMEOUT_S,
        )
    finally:
        path.unlink()
    _expect(done.exit_code, image)
    return image


def _run_own(engine: Engine, binary: bytes) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(_PROGRAM.lstrip("/"))
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
    buffer.seek(0)
    reference = f"slipway.local/trial:{uuid.uuid4().hex[:12]}"
    import_rootfs(engine, buffer, reference)
    try:
        done = run_once(engine, reference, [_PROGRAM], BARE, timeout_s=_TIMEOUT_S)
    finally:
        with sdk_errors(engine, "removing the trial image"):
            engine.client.api.remove_image(reference, force=True)
    _expect(done.exit_code, reference)
    return "an image of its own"


def _expect(exit_code: int, image: str) -> None:
    if exit_code != _EXIT_CODE:
        raise StorageError(
            f"the trial container ended with {exit_code} instead of {_EXIT_CODE}", where=image
        )
