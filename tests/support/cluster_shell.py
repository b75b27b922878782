"""Run a generated script through bash, with a cluster's commands replaced by recorders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Steps that enter a container are recorded with their environment and end with $STEP_CODE;
#: others run here, as on node $NODE (0), except the last look at the nodes, which ends with
#: $NODES_DEAD.
SRUN = """#!/bin/bash
number=$(ls "$RECORD" | wc -l)
printf '%s\\0' "$@" >"$RECORD/$number-srun"
if [[ " $* " == *" --overlap "* ]]; then exit "${NODES_DEAD:-0}"; fi
container=
while [[ $1 == --* ]]; do
    [[ $1 != --container-image=* ]] || container=yes
    shift
done
if [[ $container ]]; then
    env -0 >"$RECORD/$number-env"
    [[ -z $SEND ]] || kill -s "$SEND" "$PPID"
    exit "${STEP_CODE:-0}"
fi
SLURM_NODEID=${NODE:-0} exec "$@"
"""

#: Whether a container starts from its file: $UNPACK 1 where it does not, and $UNPACK_SAID is said.
ENROOT = """#!/bin/bash
if [[ "${*: -1}" == /bin/true ]]; then
    ((!${UNPACK:-0})) || echo "${UNPACK_SAID-Command not found: squashfuse}" >&2
    exit "${UNPACK:-0}"
fi
if [[ $1 == list ]]; then
    printf '%s\\n' ${CONTAINERS-}
    exit
fi
number=$(ls "$RECORD" | wc -l)
printf '%s\\0' "$@" >"$RECORD/$number-enroot-$1"
if [[ $1 == start ]]; then
    env -0 >"$RECORD/$number-env"
    exit "${STEP_CODE:-0}"
fi
"""

OTHER = """#!/bin/bash
number=$(ls "$RECORD" | wc -l)
printf '%s\\0' "$@" >"$RECORD/$number-${0##*/}"
"""


@dataclass(frozen=True)
class Done:
    """What a script did."""

    code: int
    said: str
    calls: tuple[tuple[str, tuple[str, ...]], ...]  # command, arguments
    env: dict[str, str]  # of the container's step

    def called(self, name: str) -> list[tuple[str, ...]]:
        """The arguments of each call of one command."""
        return [arguments for command, arguments in self.calls if command == name]

    @property
    def step(self) -> tuple[str, ...]:
        """The call that enters the container."""
        (found,) = (
            arguments
            for arguments in self.called("srun")
            if any(word.startswith("--container-image=") for word in arguments)
        )
        return found


class Shell:
    """A folder with the fake commands, and a .sqsh."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.work = root / "work"
        self.work.mkdir()
        for name, text in {"srun": SRUN, "enroot": ENROOT, "scontrol": OTHER}.items():
            self.put(name, text)
        self.runs = 0

    def put(self, name: str, text: str) -> None:
        """A command of this name, before all others."""
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, text: str, env: Mapping[str, str] | None = None, *, job: bool = True) -> Done:
        """Run a script as the batch shell of job 7 does, on this machine as its first node."""
        self.runs += 1
        record = self.root / f"record{self.runs}"
        record.mkdir()
        script = self.root / "job.sbatch"
        script.write_bytes(text.encode(errors="surrogateescape"))
        slurm = {
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NAME": "job",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_SUBMIT_DIR": str(self.work),
            "SLURMD_NODENAME": "n1",
        }
        done = subprocess.run(
            ["/bin/bash", str(script)],
            env={
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "LC_ALL": "C.UTF-8",
                "RECORD": str(record),
                "SEND": "",
                **(slurm if job else {}),
                **(env or {}),
            },
            cwd=self.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        calls, seen = [], {}
        for path in sorted(record.iterdir(), key=lambda path: int(path.name.split("-")[0])):
            words = _words(path.read_bytes())
            if path.name.endswith("-env"):
                seen = dict(word.split("=", 1) for word in words)
            else:
                calls.append((path.name.split("-")[1], tuple(words)))
        said = done.stdout.decode(errors="surrogateescape")
        return Done(done.returncode, said, tuple(calls), seen)


def _words(data: bytes) -> Sequence[str]:
    return data.decode(errors="surrogateescape").split("\0")[:-1]
