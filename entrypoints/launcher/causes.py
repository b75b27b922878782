"""Why a job ended: exit codes, the one error type, and the text that SageMaker shows.

The codes are those of sysexits.h where one fits, so that they do not collide with the codes that
training scripts use (1, 2, and 128 + signal).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

OK = 0
FAILED = 1
USAGE = 64
PREFLIGHT = 70
UNRESOLVED = 71
NOTHING_FETCHED = 72
NO_SPACE = 73
FETCH_SHORT = 74
UPLOAD_UNVERIFIED = 75
GATE = 76
PEER = 77
HANG = 78
STOPPED = 143

#: SageMaker shows the first 1024 characters of /opt/ml/output/failure as FailureReason (AWS guide
#: "How Amazon SageMaker AI Processes Training Output").
FAILURE_CHARS = 1024


@dataclass(frozen=True)
class Cause:
    """One reason to end a job, as it travels between nodes.

    `kind` is a class of failure ("TrainingError", "PrefetchError", ...), `code` the exit code of
    the node that it happened on. `rank` is global; -1 where no rank is to blame. `age` is how many
    seconds ago it happened when it was sent: nodes' clocks differ, ages do not. `detail` is the
    traceback or the tool's last lines. `secondary` marks an error that a rank reports because
    another one went away ("Connection closed by peer").
    """

    kind: str
    message: str
    code: int = FAILED
    host: str = ""
    rank: int = -1
    age: float = 0.0
    detail: str = ""
    secondary: bool = False

    def headline(self) -> str:
        """Kind, message and place on one line."""
        where = f" on rank {self.rank}" if self.rank >= 0 else ""
        host = f" [host {self.host}]" if self.host else ""
        return f"{self.kind}: {self.message}{where}{host}"

    def text(self) -> str:
        """The failure file: the headline first, then as much of the detail's tail as fits."""
        head = self.headline()[:FAILURE_CHARS]
        room = FAILURE_CHARS - len(head) - 1
        tail = self.detail.strip()
        if not tail or room < 40:
            return head
        if len(tail) > room:
            tail = "..." + tail[-(room - 3) :]
        return f"{head}\n{tail}"

    def at(self, host: str) -> Cause:
        """The same cause, placed on `host` unless it already has a place."""
        return self if self.host else replace(self, host=host)

    def to_wire(self) -> dict[str, Any]:
        """A JSON object for another node."""
        return asdict(self)


def cause_from_wire(data: Mapping[str, Any]) -> Cause:
    """The other end of `Cause.to_wire`; ValueError when a peer sent something else."""
    try:
        return Cause(
            kind=str(data["kind"]),
            message=str(data["message"]),
            code=int(data["code"]),
            host=str(data["host"]),
            rank=int(data["rank"]),
            age=float(data["age"]),
            detail=str(data["detail"]),
            secondary=bool(data["secondary"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a cause: {error!r}") from error


class LaunchError(Exception):
    """An expected failure; becomes the failure file and the exit code, never a traceback."""

    def __init__(
        self, message: str, *, code: int = FAILED, kind: str = "LaunchError", detail: str = ""
    ) -> None:
        super().__init__(message)
        self.cause = Cause(kind=kind, message=message, code=code, detail=detail)

    @property
    def code(self) -> int:
        """The exit code that this failure asks for."""
        return self.cause.code


class CauseError(LaunchError):
    """A failure whose cause is known already: a rank's, a peer's, or the whole job's."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


class LaunchUsageError(LaunchError):
    """A wrong option or a job that says too little to be started; nothing was done."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=USAGE, kind="UsageError")


#: A rank that ended with 0 while others were in collectives: what their "connection closed" echoes.
RANK_ENDED = "RankEnded"


def root_cause(candidates: Sequence[Cause]) -> Cause | None:
    """The root cause: the oldest error that is not merely the echo of another one.

    Of mere echoes, the one nearest to the source is a rank that has left early.
    """
    return min(
        candidates,
        key=lambda cause: (
            cause.secondary,
            cause.kind != RANK_ENDED and cause.secondary,
            -cause.age,
        ),
        default=None,
    )
