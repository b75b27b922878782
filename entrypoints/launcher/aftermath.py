"""What to make of the way in which ranks have ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from launcher import diagnose, events, transfer
from launcher.causes import STOPPED, Cause
from launcher.gate import COLLECTING
from launcher.runners import Layout
from launcher.supervise import Outcome

MODEL_WARNING_BYTES = 1 << 30


def hard_cause(halted: Cause | None, hung: Cause | None, outcome: Outcome) -> Cause:
    """Why ranks were cut short: a hang, the job's verdict, or what this node's own ranks said."""
    own = diagnose.first([cause for cause in outcome.causes if not cause.secondary])
    if hung is not None:
        # The ranks have just been made to write their stacks, and died of it.
        return replace(hung, detail=hung.detail or (own.detail if own else ""))
    assert halted is not None, "ranks are cut short for a reason"
    return own if own is not None and halted is COLLECTING else halted


def done_anyway(done: Path | None, ranks: Layout, outcome: Outcome) -> bool:
    """Whether every rank here said that its work was done before something failed at exit.

    "CUDA error: driver shutting down" after a finished training is the usual case.
    """
    here = range(ranks.first_rank, ranks.first_rank + ranks.nproc)
    if done is None or not all(Path(f"{done}.{rank}").exists() for rank in here):
        return False
    said = [cause.headline() for cause in outcome.causes]
    events.emit("warning", text="ranks failed after their work was done", causes=said)
    return True


def stopped_badly(outcome: Outcome, grace: int) -> Cause:
    """A stop after which the ranks did not end well: what was not saved."""
    first = diagnose.first([cause for cause in outcome.causes if not cause.secondary])
    if outcome.killed:
        text = f"ranks were killed {grace} s after SIGTERM"
    elif first is not None:
        text = f"while stopping: {first.headline()}"
    else:
        text = "SIGTERM ended the ranks: the script does not handle it, so nothing was saved"
    return Cause("Stopped", text, STOPPED)


def warn_of_model(model: Path) -> None:
    """A large /opt/ml/model costs hours when the job is over."""
    size = sum(transfer.local_files(model).values())
    if size > MODEL_WARNING_BYTES:
        events.emit(
            "warning",
            text=f"{model} holds {size / 1e9:.1f} GB, which SageMaker now packs into one archive; "
            "--upload takes it to S3 as it is",
        )
