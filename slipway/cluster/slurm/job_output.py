"""What a job has told so far, for its report: Slurm's times, and its log or what matters of it."""

from __future__ import annotations

from pathlib import Path

from slipway.cluster.job_reading import JobNotBegunError, JobReading
from slipway.cluster.slurm.head_node import HeadNode
from slipway.cluster.slurm.job_facts import JobFacts
from slipway.cluster.slurm.job_log import explain_wait
from slipway.cluster.slurm.jobs import find_job
from slipway.core import Project, SlipwayError

MOST_BYTES = 256 << 20
"""Of a log that comes by ssh; the launcher's events, the ranks' JSON lines and what the script says
of the .sqsh alone come."""

LONGEST_LINE = 256 << 10
_PATIENCE_S = 300.0

# Bars that are drawn anew all the time are events, too.
_FILTER_LOG = rf"""
[ -f "$1" ] && [ -r "$1" ] || exit 3
grep -aE 'launch: \{{|\[r[0-9]+\] \{{|^[^ ]+: [0-9,.]+ MB in [0-9.]+ s: ' -- "$1" |
    grep -avF '"event": "progress"' | cut -b -{LONGEST_LINE} | head -c {MOST_BYTES}
"""


def read_slurm_job(head: HeadNode, number: str, project: Project) -> JobReading:
    """A job of a cluster, whether it waits, runs or has ended.

    Raises SlipwayError for one that nobody knows, and where its log is not to be read.
    """
    facts = find_job(head, number, project)
    source = f"Slurm job {number} on {head.name}: {facts.log or 'no log is known'}"
    submitted, started = float(facts.submitted), float(facts.start)
    if not head.ssh:
        path = Path(facts.log)
        if not facts.log or not path.is_file():
            raise _no_log(head, facts)
        return JobReading(facts.name, source, path, (), submitted, started)
    answer = head.run_script(_FILTER_LOG, facts.log, timeout=_PATIENCE_S) if facts.log else None
    if answer is None or answer.code == 3:
        raise _no_log(head, facts)
    data = answer.out.encode()
    cut = len(data) >= MOST_BYTES
    return JobReading(facts.name, source, None, data.split(b"\n"), submitted, started, cut)


def _no_log(head: HeadNode, facts: JobFacts) -> SlipwayError:
    """A job that waits has none yet; otherwise it lies where this machine does not see it."""
    if facts.state == "PENDING":
        return JobNotBegunError(
            f"job {facts.id} has not begun: {explain_wait(facts) or 'it waits'}",
            cure="Its log is made by its first node.",
        )
    return SlipwayError(
        f"the log of job {facts.id} is not on {head.name}: {facts.log or 'unknown'}",
        cure="It has to be on storage that the head node shares; where you have it as a file, "
        "`./inv report --job FILE` reads that.",
    )
