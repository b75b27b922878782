"""What to make of the way in which ranks have ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launcher import causes, events
from launcher.causes import STOPPED, Cause
from launcher.peers import COLLECTING
from launcher.ranks.rank_commands import RankLayout


def cause_of_cut(halted: Cause | None, hung: Cause | None, outcome: RanksEnd) -> Cause:
    """Why ranks were cut short: a hang, the job's verdict, or what this node's own ranks said."""
    own = causes.root_cause([cause for cause in outcome.causes if not cause.secondary])
    if hung is not None:
        return hung
    assert halted is not None, "ranks are cut short for a reason"
    if halted is not COLLECTING:
        return halted
    return own or halted


def cause_of_echo(echo: Cause, outcome: RanksEnd) -> Cause:
    """For a failure that only echoes another: ranks of this node that had ended before, if any."""
    seen = [*outcome.early, *([] if echo is COLLECTING else [echo])]
    return causes.root_cause(seen) or echo


def finished_before_failure(done: Path | None, ranks: RankLayout, outcome: RanksEnd) -> bool:
    """Whether every rank here said that its work was done before something failed at exit.

    "CUDA error: driver shutting down" after a finished training is the usual case.
    """
    here = range(ranks.first_rank, ranks.first_rank + ranks.nproc)
    if done is None or not all(Path(f"{done}.{rank}").exists() for rank in here):
        return False
    said = [cause.headline() for cause in outcome.causes]
    events.emit("warning", text="ranks failed after their work was done", causes=said)
    return True


def cause_of_bad_stop(outcome: RanksEnd, grace: int) -> Cause:
    """A stop after which the ranks did not end well: what was not saved."""
    first = causes.root_cause([cause for cause in outcome.causes if not cause.secondary])
    if outcome.killed:
        text = f"ranks were killed {grace} s after SIGTERM"
    elif first is not None:
        text = f"while stopping: {first.headline()}"
    else:
        text = "SIGTERM ended the ranks: the script does not handle it, so nothing was saved"
    return Cause("Stopped", text, STOPPED)


@dataclass(frozen=True)
class RanksEnd:
    """How this node's ranks ended. `code` is the runner's (first non-zero).

    `early` names the ranks that ended with 0 before others here failed, or all were stopped.
    """

    code: int
    causes: tuple[Cause, ...] = ()
    killed: bool = False
    early: tuple[Cause, ...] = ()
