"""A job's script, written where it is submitted, and submitted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from slipway.cluster.script import MARK, JobScript, make_script
from slipway.cluster.slurm.head_node import Answer, HeadNode
from slipway.cluster.slurm.job_facts import JobFacts
from slipway.cluster.slurm.job_log import HOPELESS, explain_wait
from slipway.cluster.slurm.jobs import find_job
from slipway.cluster.slurm.submissions import Submission, save_submission
from slipway.cluster.slurm_job import ScriptRequest
from slipway.core import Project, SlipwayError, UsageError, did_you_mean, say
from slipway.matrix import Image

# FOLDER NAME MARK SCRIPT VARIABLES... and the script on stdin: everything is looked at before
# anything is written, and what Slurm refuses leaves no new file.
_SUBMIT = r"""
command -v sbatch >/dev/null || { echo "sbatch: not found" >&2; exit 127; }
cd -- "$1" || exit 64
there=
if [ -e "$2" ]; then
    there=1
    grep -qF -- "$3" "$2" || exit 65
fi
if [ -n "$4" ] && [ ! -e "$4" ]; then exit 66; fi
name=$2
shift 4
for variable; do
    eval "[ -n \"\${$variable+set}\" ]" || { echo "$variable"; exit 67; }
done
cat >".$name.$$" && chmod 755 ".$name.$$" && mv -f -- ".$name.$$" "$name" || exit 68
pwd
sbatch --parsable "$name" || { code=$?; [ -n "$there" ] || rm -f -- "$name"; exit "$code"; }
"""
_PARTITIONS = "sinfo --noheader --format=%R | sort -u"
#: How soon Slurm says why a job can never begin.
_FIRST_LOOK_S = 1.5


@dataclass(frozen=True)
class SubmitPlace:
    """Where a job is submitted: on which head node, and in which folder of it ("": this one)."""

    head: HeadNode
    folder: str = ""


def submit_job(
    root: Path,
    name: str,
    request: ScriptRequest,
    place: SubmitPlace,
    *,
    current_build_id: Callable[[Image], str],
    sqsh: str = "",
) -> str:
    """Write the script for image `name` into the folder and submit it; the job's number.

    Raises SlipwayError, with nothing submitted, for what cannot work.
    """
    made = make_script(root, name, request, current_build_id=current_build_id, sqsh=sqsh)
    if made.is_recipe:
        raise UsageError(
            "a recipe is submitted by the recipes' own launcher",
            cure=f"`./inv slurm.script {name} --flavour recipes` writes the script for it.",
        )
    head = place.head
    folder = place.folder or ("" if head.ssh else str(Path.cwd()))
    if not folder:
        raise UsageError(
            "--folder is missing: with --ssh it says where on the cluster the job is submitted",
            cure="On storage that all nodes share: SCRIPT is there, and the log will be.",
        )
    if not PurePosixPath(folder).is_absolute():
        raise UsageError(
            f"--folder {folder!r}: an absolute path on the cluster is needed",
            cure="Where the job is submitted and its log lies: on storage that all nodes share.",
        )
    for note in made.notes:
        say(f"note: {note}")
    answer = head.run_script(
        _SUBMIT,
        *(folder, made.file_name, MARK, _script_file(request)),
        *(text for text in request.env if "=" not in text),
        data=made.data,
    )
    _require_submitted(answer, head, folder, made, request)
    # With the cluster's name behind the number, in a federation; what a site adds stands before.
    folder, number = (["", *answer.out.splitlines()])[-2:]
    number = number.partition(";")[0]
    if not re.fullmatch(r"[1-9]\d*", number, re.ASCII):
        raise SlipwayError(
            f"sbatch on {head.name} told no number of a job: {answer.complaint}",
            cure="`./inv slurm.queue` shows whether it took the job all the same.",
        )
    say(f"wrote {folder}/{made.file_name} on {head.name}")
    project = Project.at(root)
    log = f"{folder}/{made.job_name}-{number}.out"
    submission = Submission(number, made.job_name, log, folder, head.ssh, int(time.time()))
    save_submission(project, submission)
    time.sleep(_FIRST_LOOK_S)
    job = find_job(head, number, project)
    if job.log:  # --sbatch output= may have put it elsewhere
        save_submission(project, replace(submission, log=job.log))
    _note_wait(job)
    say(f"next: ./inv slurm.logs {number}{head.flag} --follow")
    return number


def _script_file(request: ScriptRequest) -> str:
    """The training script as a path of the head node, where it is one for certain."""
    script = request.words[0]
    if not re.search(r"\.(py|sh)$", script) or script.startswith("/"):
        return ""  # a module, or a file of the image
    return f"{request.workdir}/{script}" if request.workdir else script


def _require_submitted(
    answer: Answer, head: HeadNode, folder: str, made: JobScript, request: ScriptRequest
) -> None:
    """Raise what went wrong on the head node, in words."""
    script = made.file_name
    if answer.code == 64:
        raise UsageError(f"there is no folder {folder} on {head.name}, or you may not enter it")
    if answer.code == 65:
        raise UsageError(
            f"{folder}/{script} on {head.name} was not written by this task",
            cure="Move it away, or submit in another --folder.",
        )
    if answer.code == 66:
        raise UsageError(
            f"{_script_file(request)} is not in {request.workdir or folder} on {head.name}",
            cure="SCRIPT starts in --folder, or in --workdir.",
        )
    if answer.code == 67:
        variable = answer.out.split()[-1]
        raise UsageError(
            f"--env {variable}: it is not set on {head.name}, from where the job would take it",
            cure=f"Give it a value (--env {variable}=VALUE), or export it there for every shell.",
        )
    if answer.code == 68:
        raise SlipwayError(f"cannot write {folder}/{script} on {head.name}: {answer.complaint}")
    if answer.code:
        raise SlipwayError(
            f"sbatch on {head.name}: {answer.complaint}",
            cure=_cure(answer, head, request),
        )


def _cure(answer: Answer, head: HeadNode, request: ScriptRequest) -> str | None:
    if "topology" in answer.err:
        return "`./inv cluster.check` there says what is wrong with the cluster's topology."
    if "partition" not in answer.err:
        return None
    names = head.run_script(_PARTITIONS).out.split()
    asked = [text.partition("=")[2] for text in request.sbatch if "partition=" in text]
    near = did_you_mean(asked[0], names) if asked else ""
    return f"--sbatch partition=NAME; there are {', '.join(names)}{near}."


def _note_wait(job: JobFacts) -> None:
    if job.state == "PENDING" and job.reason.partition(",")[0] in HOPELESS:
        say(f"note: job {job.id} waits for what does not come: {explain_wait(job)}")
    elif job.state == "PENDING":
        say(f"job {job.id} waits: {explain_wait(job) or 'Slurm has not looked at it yet'}")
