"""`launch once-per-node -- CMD`: the first rank of a node runs it, the others wait for its result.

Without it every rank downloads the same file into the same place, and some find half of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher import transfer
from launcher.causes import UsageError


def state_dir(env: Mapping[str, str]) -> Path:
    """Where results are kept: for this launch, else for this run of torchrun, else for the job."""
    if env.get("LAUNCH_SCRATCH"):
        return Path(env["LAUNCH_SCRATCH"], "once")
    names = ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TRAINING_JOB_NAME", "SLURM_JOB_ID")
    scope = "-".join(env.get(name, "") for name in (*names, "SLURM_RESTART_COUNT"))
    digest = hashlib.sha256(f"{os.getuid()} {scope}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"launch-once-{digest}")


def run(command: Sequence[str], env: Mapping[str, str]) -> int:
    """The command's exit code, whoever ran it. After a torchrun restart it runs anew."""
    if not command:
        raise UsageError("once-per-node needs a command: launch once-per-node -- CMD ARGS")
    attempt = env.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = hashlib.sha256(json.dumps([attempt, *command]).encode()).hexdigest()[:24]
    result = state_dir(env) / f"{key}.json"
    with transfer.locked(result.with_suffix(".lock")):
        if result.exists():
            return int(json.loads(result.read_text(encoding="utf-8"))["code"])
        code = subprocess.run(list(command), env=dict(env), check=False).returncode
        code = 128 - code if code < 0 else code
        beside = result.with_suffix(".tmp")
        beside.write_text(json.dumps({"command": list(command), "code": code}), encoding="utf-8")
        beside.replace(result)
        return code
