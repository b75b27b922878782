"""The launcher's options for a job, checked when it is written: it may wait for long. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slipway.cluster import launcher_tables
from slipway.errors import UsageError

UPLOAD_SECONDS = 15  # entrypoints/launcher/main_job.py: what follows the ranks' grace
SPARE_SECONDS = 30
#: Options of `launch local`, and what follows "--".
NOT_FOR_SLURM = frozenset({"hosts", "node-rank", "job", "script"})


def complete(
    texts: Sequence[str], instance_type: str, signal: int, launcher: Path
) -> dict[str, str | None]:
    """What the user gave as NAME=VALUE, and what follows from the job; None is a bare flag.

    `signal` are the seconds from the signal to the time limit. Raises UsageError.
    """
    longest = signal - UPLOAD_SECONDS - SPARE_SECONDS
    theirs = _given(texts, launcher)
    grace = theirs.get("grace")
    if grace is not None and int(grace) > longest:
        raise UsageError(
            f"--launch grace={grace}: with --signal {signal} ranks have at most {longest} s",
            cure=f"--signal {int(grace) + signal - longest} or more.",
        )
    return {"instance-type": instance_type, "grace": str(longest), **theirs}


def flags(options: Mapping[str, str | None]) -> tuple[str, ...]:
    """As words of `launch`."""
    return tuple(f"--{n}" if value is None else f"--{n}={value}" for n, value in options.items())


def _given(texts: Sequence[str], launcher: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for text in texts:
        name, equals, value = text.removeprefix("--").partition("=")
        option = launcher_tables.option(launcher, name)
        if name in NOT_FOR_SLURM:
            raise UsageError(f"--launch {name}: Slurm says that itself")
        if not equals and not option.flag:
            raise UsageError(f"--launch {text!r}: expected {name}=VALUE")
        launcher_tables.check(option, value)
        if option.many and name in found:
            value = f"{found[name]} {value}"
        found[name] = value if equals else None
    return found
