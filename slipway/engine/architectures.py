"""Which programs an engine can run: those of its own processors, and those that are emulated."""

from __future__ import annotations

import io
import struct
import tarfile
import uuid

from slipway.engine.client import Engine
from slipway.engine.containers import BARE, run_once
from slipway.engine.errors import EngineError
from slipway.engine.sdk_boundary import sdk_errors
from slipway.engine.transfer import import_rootfs

TRIAL_EXIT_CODE = 42
TRIAL_PATH = "/.slipway-trial"
_TIMEOUT_S = 120.0

# exit(42) as machine code: the system call's number and argument into registers, then the call.
_CODE = {
    "amd64": (62, b"\xbf\x2a\x00\x00\x00\xb8\x3c\x00\x00\x00\x0f\x05"),
    "arm64": (183, b"\x40\x05\x80\xd2\xa8\x0b\x80\xd2\x01\x00\x00\xd4"),
}


def trial_program(architecture: str) -> bytes | None:
    """A static ELF executable that exits with 42 (elf(5): one header, one segment, the code).

    None for an architecture of which no code is known.
    """
    if architecture not in _CODE:
        return None
    number, code = _CODE[architecture]
    base, header = 0x400000, 64 + 56
    size = header + len(code)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        *(2, number, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return elf + segment + code


def run_trial_image(engine: Engine, program: bytes) -> int:
    """The exit code of a program that is an image of its own. Raises EngineError."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(TRIAL_PATH.lstrip("/"))
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    buffer.seek(0)
    reference = f"slipway.local/trial:{uuid.uuid4().hex[:12]}"
    import_rootfs(engine, buffer, reference)
    try:
        return run_once(engine, reference, [TRIAL_PATH], BARE, timeout_s=_TIMEOUT_S).exit_code
    finally:
        with sdk_errors(engine, "removing the trial image"):
            engine.client.api.remove_image(reference, force=True)


def runs_architecture(engine: Engine, architecture: str) -> bool:
    """Whether a container of an image of this architecture can run.

    Another one than the engine's own can where its kernel has an emulator registered
    (binfmt_misc), which no API tells: a program of a few bytes is tried.
    """
    if engine.architecture == architecture:
        return True
    program = trial_program(architecture)
    if program is None:
        return False
    try:
        return run_trial_image(engine, program) == TRIAL_EXIT_CODE
    except EngineError:
        if not engine.answers():
            raise
        return False  # "exec format error" is all that it says
