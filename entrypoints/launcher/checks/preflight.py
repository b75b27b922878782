"""Is this node fit for the job? Judgements on probed facts; probing is in probe.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from launcher.causes import PREFLIGHT, LaunchError
from launcher.instances import find_instance
from launcher.platforms import named, truthy

OK, WARN, FAIL, INFO = "ok", "warn", "fail", "info"

#: SigV4 refuses requests that are further off (AWS General Reference, signing).
SKEW_SECONDS = 300
SHM_BYTES = 1 << 30
#: Where FP8 begins: Ada (8.9) and Hopper (9.0).
FP8_CAPABILITY = 8.9


@dataclass(frozen=True)
class Check:
    """One result: name, ok/warn/fail/info, and what was seen."""

    name: str
    level: str
    text: str


@dataclass(frozen=True)
class NodeFacts:
    """What probe.py found on this node. None: could not be found out, or does not apply."""

    instance_type: str = ""
    nodes: int = 1
    platform: str = "local"
    gpus: int = 0
    gpus_restricted: bool = False
    capability: float | None = None
    ecc_errors: int | None = None
    efa_devices: int | None = None
    efa_provider: bool | None = None
    memlock_unlimited: bool = True
    shm_bytes: int | None = None
    checkpoint_dir: str = ""
    checkpoint_mounted: bool | None = None
    checkpoint_uri: str = ""
    sagemaker_sync: str = ""
    s3_errors: Mapping[str, str] = field(default_factory=dict)
    clock_skew: float | None = None
    image: str = ""
    args: tuple[str, ...] = ()


def judge_facts(facts: NodeFacts) -> list[Check]:
    """All checks, in the order in which a person would ask."""
    return [
        *_about(facts),
        *_gpus(facts),
        *_efa(facts),
        *_memory(facts),
        *_checkpoints(facts),
        *_s3(facts),
        *_arguments(facts),
    ]


def _about(facts: NodeFacts) -> list[Check]:
    rows = [Check("instance", INFO, facts.instance_type or "type not told by the platform")]
    if facts.image:
        rows.append(Check("image", INFO, facts.image))
    return rows


def _gpus(facts: NodeFacts) -> list[Check]:
    instance = find_instance(facts.instance_type)
    if instance is None or not instance.gpus:
        rows = [Check("gpus", INFO, f"{facts.gpus} GPUs")]
    elif facts.gpus < instance.gpus and not facts.gpus_restricted:
        text = f"{facts.gpus} GPUs, but {facts.instance_type} has {instance.gpus}"
        rows = [Check("gpus", FAIL, text)]
    else:
        rows = [Check("gpus", OK, f"{facts.gpus} GPUs")]
    if facts.ecc_errors:
        text = f"{facts.ecc_errors} uncorrected memory errors since the last reset"
        rows.append(Check("gpu memory", FAIL, text))
    return rows


def _efa(facts: NodeFacts) -> list[Check]:
    instance = find_instance(facts.instance_type)
    if facts.nodes < 2 or instance is None or not instance.efa:
        return []
    found = facts.efa_devices or 0
    rows = []
    if found < instance.efa:
        text = (
            f"{found} EFA devices, but {facts.instance_type} has {instance.efa}: the job would run "
            "over TCP. Is the EFA security group rule there, and /dev/infiniband in the container?"
        )
        rows.append(Check("efa", FAIL, text))
    else:
        rows.append(Check("efa", OK, f"{found} devices"))
    if facts.efa_provider is False:
        rows.append(Check("fi_info", FAIL, "libfabric finds no efa provider"))
    if not facts.memlock_unlimited:
        text = "the locked-memory limit is not unlimited, which EFA needs (ulimit -l)"
        rows.append(Check("memlock", FAIL, text))
    return rows


def _memory(facts: NodeFacts) -> list[Check]:
    if facts.shm_bytes is None or not facts.gpus or facts.shm_bytes >= SHM_BYTES:
        return []
    text = f"shared memory is {facts.shm_bytes >> 20} MiB: DataLoader workers and NCCL may run out"
    return [Check("shm", WARN, text)]


def _checkpoints(facts: NodeFacts) -> list[Check]:
    rows = []
    if facts.checkpoint_mounted is False:
        text = f"{facts.checkpoint_dir} is not a mount: it would be lost with the container"
        rows.append(Check("checkpoints", WARN if facts.checkpoint_uri else FAIL, text))
    if facts.sagemaker_sync and facts.sagemaker_sync == facts.checkpoint_dir:
        text = (
            f"SageMaker, too, syncs {facts.checkpoint_dir}, complete or not, in competition with "
            "training traffic: leave CheckpointConfig out of the job"
        )
        rows.append(Check("checkpoint sync", WARN, text))
    return rows


def _s3(facts: NodeFacts) -> list[Check]:
    rows = [
        Check("s3 write", FAIL if error else OK, f"{uri}: {error}" if error else uri)
        for uri, error in facts.s3_errors.items()
    ]
    if facts.clock_skew is not None and abs(facts.clock_skew) > SKEW_SECONDS:
        text = f"this node's clock is {facts.clock_skew:.0f} s off; S3 refuses such requests"
        rows.append(Check("clock", FAIL, text))
    return rows


def _arguments(facts: NodeFacts) -> list[Check]:
    given = named(facts.args)
    rows = []
    if truthy(given.get("fp8", "")) and facts.capability and facts.capability < FP8_CAPABILITY:
        text = f"fp8 needs compute capability 8.9 or higher; these GPUs have {facts.capability}"
        rows.append(Check("fp8", FAIL, text))
    if facts.nodes > 1 and truthy(given.get("load_best_model_at_end", "")):
        text = (
            "load_best_model_at_end reads a checkpoint that other nodes may have written: it needs "
            "a shared output directory"
        )
        rows.append(Check("load_best_model_at_end", WARN, text))
    return rows


def checks_table(checks: Sequence[Check]) -> str:
    """The checks for people."""
    width = max((len(check.name) for check in checks), default=0)
    return "\n".join(f"{c.level:4}  {c.name:{width}}  {c.text}" for c in checks)


def require_fit(checks: Sequence[Check]) -> None:
    """LaunchError 70 with every failed check, when there is one."""
    failed = [check for check in checks if check.level == FAIL]
    if failed:
        text = "; ".join(f"{check.name}: {check.text}" for check in failed)
        raise LaunchError(text, code=PREFLIGHT, kind="PreflightError", detail=checks_table(checks))
