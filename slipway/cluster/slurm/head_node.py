"""The edge to a cluster: commands on its head node, this machine or one that ssh reaches."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass

from slipway.core import SlipwayError, UsageError, error_text, printable

#: Where Slurm's commands are on clusters whose login shells alone put them into PATH: HyperPod and
#: ParallelCluster (/opt/slurm), Slurm's own default prefix, Bright.
SLURM_FOLDERS = (
    *("/opt/slurm/bin", "/usr/local/bin", "/usr/local/slurm/bin"),
    "/cm/shared/apps/slurm/current/bin",
)

# Messages are recognised, so they are in English; times are in seconds since 1970.
_PRELUDE = f"""
PATH=$PATH:{":".join(SLURM_FOLDERS)} LC_ALL=C SLURM_TIME_FORMAT=%s
export PATH LC_ALL SLURM_TIME_FORMAT
"""
CONNECT_S = 15
_SPEAKER = re.compile(r"^[\w-]+: (?:error|fatal): ")
_NOT_FOUND = 127
_SHOWN = 60  # characters of an answer that is none
_SSH_FAILED = 255
_HOST = re.compile(r"[A-Za-z0-9_][\w.@:%+\[\]-]*", re.ASCII)
_NO_CONTROLLER = ("Unable to contact slurm controller", "Unable to establish controller machine")
_NO_SETTINGS = ("Could not establish a configuration source", "Unable to process configuration")


@dataclass(frozen=True)
class Answer:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What it complained of, on one line."""
        lines = [_SPEAKER.sub("", line).strip() for line in self.err.splitlines()]
        told = printable("; ".join(filter(None, lines[-2:])))
        if told or self.code:
            return told or f"exit code {self.code}"
        first = printable(self.out.strip().partition("\n")[0])[:_SHOWN]
        return f"it answers {first!r}" if first else "it answers nothing"


class HeadNode:
    """Where Slurm's commands run.

    `ssh` is a host as ssh takes it, with the user's own configuration and keys; "" is this machine.
    Raises UsageError for what is no name of a host.
    """

    def __init__(self, ssh: str = "") -> None:
        if ssh and not _HOST.fullmatch(ssh):
            raise UsageError(f"--ssh {ssh!r} is no name of a host")
        self.ssh = ssh

    @property
    def name(self) -> str:
        """For a sentence."""
        return self.ssh or "this machine"

    @property
    def flag(self) -> str:
        """What reaches it again, after a command that is shown: " --ssh HOST"."""
        return f" --ssh {self.ssh}" if self.ssh else ""

    def run_script(
        self, script: str, *words: str, data: bytes = b"", timeout: float = 60
    ) -> Answer:
        """Run a script of sh(1) with `words` as its arguments and `data` on its stdin.

        Raises SlipwayError where the machine, Slurm or its controller cannot be reached; other
        failures are the answer's.
        """
        command = ["/bin/sh", "-c", _PRELUDE + script, "sh", *words]
        if self.ssh:
            options = ["-o", f"ConnectTimeout={CONNECT_S}"]
            command = ["ssh", *options, "--", self.ssh, f"exec {shlex.join(command)}"]
        try:
            ended = subprocess.run(
                command, input=data, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SlipwayError(
                f"{self.name} has not answered within {timeout:.0f} s",
                cure="`sinfo` there shows whether Slurm answers at all.",
            ) from error
        except OSError as error:
            raise SlipwayError(f"cannot run {command[0]}: {error_text(error)}") from error
        out, err = (part.decode(errors="replace") for part in (ended.stdout, ended.stderr))
        answer = Answer(ended.returncode, out, err)
        self._check(answer)
        return answer

    def run(self, *words: str, timeout: float = 60) -> Answer:
        """Run one command; see `run_script`."""
        return self.run_script('exec "$@"', *words, timeout=timeout)

    def _check(self, answer: Answer) -> None:
        if self.ssh and answer.code == _SSH_FAILED:
            raise SlipwayError(
                f"ssh {self.ssh}: {answer.complaint}",
                cure=f"`ssh {self.ssh} true` has to work first: host, user and key are those of "
                "your own ssh configuration.",
            )
        if answer.code == _NOT_FOUND and "not found" in answer.err:
            raise SlipwayError(
                f"there is no Slurm on {self.name}: {answer.complaint}",
                cure="Run this on the head node of the cluster, or name it: --ssh HOST.",
            )
        if answer.code and any(words in answer.err for words in _NO_CONTROLLER):
            raise SlipwayError(
                f"Slurm's controller does not answer on {self.name}: {answer.complaint}",
                cure="`scontrol ping` names it; `systemctl status slurmctld` there says why.",
            )
        if answer.code and any(words in answer.err for words in _NO_SETTINGS):
            raise SlipwayError(
                f"Slurm has no configuration on {self.name}: {answer.complaint}",
                cure="Run this on the head node of the cluster, or name it: --ssh HOST.",
            )
