"""Every option of the launcher, with its default and what it is for."""

from __future__ import annotations

from dataclasses import dataclass

ENV_PREFIX = "LAUNCH_"
HYPER_PREFIX = "launch_"


@dataclass(frozen=True)
class Option:
    """One option. `many` may be repeated (in a variable: one a line, or separated by blanks)."""

    name: str
    default: str
    help: str
    flag: bool = False
    many: bool = False
    choices: tuple[str, ...] = ()
    number: bool = False

    @property
    def env(self) -> str:
        """Its environment variable."""
        return ENV_PREFIX + self.name.upper().replace("-", "_")

    @property
    def hyper(self) -> str:
        """Its hyperparameter."""
        return HYPER_PREFIX + self.name.replace("-", "_")


OPTIONS = (
    Option(
        "runner",
        "auto",
        "how ranks start: torchrun, deepspeed (--no_ssh) or plain python; "
        "auto is python for .sh scripts, else torchrun; toolkit hands over to "
        "sagemaker-training",
        choices=("auto", "torchrun", "deepspeed", "python", "toolkit"),
    ),
    Option("script", "", "the training script, where it is not on the command line"),
    Option("nproc", "auto", "processes per node; auto: one per GPU (python runner: one)"),
    Option(
        "port",
        "29500",
        "rank 0's rendezvous port (several nodes); one node uses a free port",
        number=True,
    ),
    Option("gate-port", "29499", "port on which the launchers of all nodes meet", number=True),
    Option("hosts", "", "local only: the nodes' names or addresses, separated by commas"),
    Option("node-rank", "0", "local only: this node's place in --hosts", number=True),
    Option("job", "", "job name where the platform gives none"),
    Option(
        "max-restarts",
        "0",
        "torchrun's own restarts of failed ranks; with --spares the launcher's, on all nodes",
        number=True,
    ),
    Option(
        "spares",
        "0",
        "of the nodes, how many wait; one takes the place of a node that is lost or hangs",
        number=True,
    ),
    Option(
        "grace",
        "100",
        "seconds that ranks get between SIGTERM and SIGKILL (SageMaker: of 120)",
        number=True,
    ),
    Option("dns-wait", "900", "seconds to wait for the other nodes to appear", number=True),
    Option(
        "local-dir",
        "",
        "folder on a disk of this node for scratch and caches; default: of TMPDIR, NVMe disks, "
        "/tmp and /var/tmp the one with the most free space that is not memory",
    ),
    Option("log-dir", "", "where each rank's output is kept; default: under the job's local dir"),
    Option(
        "prefetch",
        "",
        "S3=DIR: fetch this prefix once per node before ranks start; repeatable",
        many=True,
    ),
    Option("checkpoint-dir", "", "where the script writes checkpoints"),
    Option(
        "checkpoint-uri", "", "S3 prefix for checkpoints, uploaded while training by every node"
    ),
    Option(
        "checkpoint-complete",
        "auto",
        "what makes a checkpoint complete: auto, latest, trainer_state, dcp, marker:NAME, "
        "glob:PATTERN",
    ),
    Option("checkpoint-interval", "10", "seconds between looks for new checkpoints", number=True),
    Option(
        "resume",
        "off",
        "auto: bring the newest complete checkpoint and name it in LAUNCH_RESUME_FROM; "
        "or a checkpoint's name",
    ),
    Option(
        "upload",
        "",
        "DIR=S3: upload from node 0 when training has succeeded; repeatable",
        many=True,
    ),
    Option("upload-workers", "8", "parallel transfers while training", number=True),
    Option("pre-cmd", "", "shell command on every node before anything is fetched; may fail"),
    Option(
        "preflight",
        "fast",
        "checks before ranks start; full adds GEMM and all-reduce",
        choices=("off", "fast", "full"),
    ),
    Option("preflight-timeout", "180", "seconds for the full preflight's ranks", number=True),
    Option(
        "env-profile",
        "auto",
        "NCCL and EFA variables by instance type",
        choices=("auto", "none"),
    ),
    Option("instance-type", "", "where the platform does not tell, as on Slurm: ml.p5.48xlarge"),
    Option(
        "wait-report",
        "30",
        "seconds for which ranks wait for another one until that is reported",
        number=True,
    ),
    Option(
        "hang-timeout",
        "600",
        "seconds without progress of the rank that others wait for until it counts as hung; "
        "0: never",
        number=True,
    ),
    Option(
        "on-hang",
        "report",
        "what to do about a hang: report it, or stop the job with 78",
        choices=("report", "stop"),
    ),
    Option(
        "done-file",
        "",
        "each rank writes DONE_FILE.RANK when its work is done; errors at exit then do not count",
    ),
    Option("allow-opt-ml-model", "", "allow output and checkpoints under /opt/ml/model", flag=True),
    Option("dry-run", "", "print what would be done (as `launch plan`) and do nothing", flag=True),
    Option("json", "", "machine-readable result on stdout", flag=True),
)
