"""Jobs that were submitted from here: what is still known of them when Slurm has forgotten them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from slipway.core import Project, write_atomic


@dataclass(frozen=True)
class Submission:
    """One job, and where its log is."""

    id: str
    name: str
    log: str
    folder: str
    ssh: str  # "" for this machine
    submitted: int = 0  # seconds since 1970; 0 where an older version noted it


def _file(project: Project, ssh: str, number: str) -> Path:
    """Two clusters count their jobs alike."""
    place = hashlib.sha256(ssh.encode()).hexdigest()[:8] if ssh else "here"
    return project.slurm_jobs / f"{place}-{number}.json"


def save_submission(project: Project, submission: Submission) -> None:
    """Note it. A number that Slurm uses anew is the newer job's."""
    path = _file(project, submission.ssh, submission.id)
    write_atomic(path, json.dumps(asdict(submission), indent=2) + "\n")


def load_submission(project: Project, ssh: str, number: str) -> Submission | None:
    """What was noted of a job; None where nothing was, or not by this version."""
    try:
        return Submission(**json.loads(_file(project, ssh, number).read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
