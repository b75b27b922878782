"""What to make of the way in which ranks have ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from launcher import causes, events
from launcher.causes import STOPPED, Cause
from launcher.peers import COLLECTING
from launcher.ranks.rank_commands import RankLayout


def cause_of_cut(halted: Cause | None, hung: Cause | None, outcome: RanksEnd) -> Cause:
    """Why ranks were cut short: a hang, the job's verdict, or what this node's own ranks said."""
    own = causes.root_cause([cause for cause in outcome.causes if not cause.secondary])
    if hung is not None:
        # The ranks have just been made to write their stacks, and died of it.
        return replace(hung, detail=hung.detail or (own.detail if own else ""))
    assert halted is not None, "ranks are cut short for a reason"
    return own if own is not None and halted is COLLECTING else halted


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
    """How this node's ranks ended. `code` is the runner's (first non-zero)."""

    code: int
    causes: tuple[Cause, ...] = ()
    killed: bool = False
