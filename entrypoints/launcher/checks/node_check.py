"""Run the preflight: probe this node, judge it, and for `full` let the ranks measure."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from launcher import plan as plans
from launcher.causes import PREFLIGHT, Cause, CauseError, root_cause
from launcher.checks import probe
from launcher.checks.preflight import FAIL, INFO, OK, Check, NodeFacts, judge_facts
from launcher.context import SAGEMAKER, SLURM
from launcher.data import S3
from launcher.instances import find_instance
from launcher.plan import Plan
from launcher.platforms import RESTRICTIONS, apply_changes
from launcher.ranks import (
    TORCHRUN,
    USER_PYTHON,
    RankLayout,
    RankProgram,
    RankSupervisor,
    build_rank_commands,
)
from launcher.stop_request import StopRequest

#: A GPU this far below its neighbours' median is throttled or ill.
SLOW_SHARE = 0.7


def quick_checks(plan: Plan, halt: StopRequest) -> list[Check]:
    """The checks that take no GPU time."""
    context, data = plan.context, plan.data
    kind, nodes = plans.instance_type(context), context.topology.nodes
    capability, ecc = probe.gpu_health() if plan.gpus.count else (None, None)
    devices = probe.efa_devices(kind, nodes, halt.sleep)
    directory = data.checkpoint_dir
    s3 = S3(context.env, halt) if data.uris else None
    facts = NodeFacts(
        instance_type=kind,
        nodes=nodes,
        platform=context.platform,
        gpus=plan.gpus.count,
        gpus_restricted=plan.gpus.source in RESTRICTIONS,
        capability=capability,
        ecc_errors=ecc,
        efa_devices=devices,
        efa_provider=probe.efa_provider(devices is not None),
        memlock_unlimited=probe.memlock_unlimited(),
        shm_bytes=probe.shm_bytes(),
        checkpoint_dir=str(directory or ""),
        checkpoint_mounted=(
            probe.is_mounted(directory) if directory and context.platform == SLURM else None
        ),
        checkpoint_uri=data.checkpoint_uri,
        sagemaker_sync=probe.sagemaker_sync(context.ml) if context.platform == SAGEMAKER else "",
        s3_errors=probe.s3_errors(s3, data.uris, context.topology.node_rank) if s3 else {},
        clock_skew=probe.clock_skew(context.env) if s3 else None,
        image=context.env.get("SLIPWAY_BUILD_ID", ""),
        args=context.args,
    )
    return judge_facts(facts)


def measured_checks(
    plan: Plan, ranks: RankLayout, halt: StopRequest, timeout: float
) -> list[Check]:
    """GEMM and all-reduce on all ranks of the job, started as training will be.

    Raises LaunchError 70 naming the rank that did not come, or the first that failed.
    """
    out = plans.fresh_directory(plan, plan.log_dir.with_name(f"{plan.log_dir.name}-preflight"))
    commands = build_rank_commands(
        TORCHRUN,
        ranks,
        RankProgram(str(USER_PYTHON / "rank_benchmark.py")),
        python=plan.context.python,
        log_dir=out,
    )
    env = {
        **apply_changes(plan.context.env, plan.changes),
        "LAUNCH_PREFLIGHT_DIR": str(out),
    }
    late = Cause("PreflightError", f"no result within {timeout:g} s", PREFLIGHT)
    inner = StopRequest()

    def give_up() -> None:
        inner.request(halt.cause or late, hard=True)

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    running = RankSupervisor(
        commands, env=env, cwd=plan.context.cwd, log_dir=out, first_rank=ranks.first_rank
    )
    timer.start()
    try:
        with halt.telling(give_up):
            running.start()
            outcome = running.wait(inner, 0)
    finally:
        timer.cancel()
    halt.check()
    if inner.cause is late:
        raise blame(ranks, out, timeout)
    if outcome.code != 0:
        cause = root_cause(outcome.causes)
        assert cause is not None, "a non-zero outcome has a cause"
        raise CauseError(replace(cause, kind="PreflightError", code=PREFLIGHT))
    return judge_node(_results(out), plans.instance_type(plan.context), ranks.nodes)


def blame(ranks: RankLayout, out: Path, timeout: float) -> CauseError:
    """For a preflight without result: the rank of this node that did not come, if one did not."""
    here = range(ranks.first_rank, ranks.first_rank + ranks.nproc)
    absent = [rank for rank in here if not (out / f"arrived.{rank}").exists()]
    if absent:
        text = f"did not come to the first all-reduce within {timeout:g} s"
        cause = Cause("PreflightError", text, PREFLIGHT, rank=absent[0])
    else:
        text = f"all ranks here waited {timeout:g} s for others in the first all-reduce"
        cause = Cause("PreflightError", text, PREFLIGHT, secondary=True)
    return CauseError(cause)


def _results(out: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("result.*.json"))]


def judge_node(results: Sequence[dict[str, object]], kind: str, nodes: int) -> list[Check]:
    """What the figures say: first against the neighbours, then against the type's floors."""
    instance = find_instance(kind)
    slowest = instance.gemm_floor if instance else 0
    # Between nodes, and with nobody to add up with, bandwidth says nothing about NVLink.
    floor = instance.nvlink_floor if instance and nodes == 1 and len(results) > 1 else 0
    speeds = [float(str(row["teraflops"])) for row in results]
    rows = []
    for row, speed in zip(results, speeds):
        name = f"rank {row['rank']}"
        bandwidth = float(str(row["busbw_gbs"]))
        seen = (
            f"{row['device']}: {speed:g} TFLOP/s sustained{_load_state(row)}, "
            f"all-reduce {bandwidth:g} GB/s"
        )
        if not row["finite"]:
            rows.append(Check(name, FAIL, f"{seen}; a matrix product holds NaN or infinity"))
        elif not row["sum_right"]:
            rows.append(Check(name, FAIL, f"{seen}; an all-reduce gave a wrong sum"))
        elif row["device"] != "cpu" and speed < SLOW_SHARE * sorted(speeds)[len(speeds) // 2]:
            rows.append(Check(name, FAIL, f"{seen}; far slower than its neighbours"))
        elif speed < slowest:
            rows.append(Check(name, FAIL, f"{seen}; a healthy {kind} passes {slowest} TFLOP/s"))
        elif bandwidth < floor:
            rows.append(Check(name, FAIL, f"{seen}; a healthy {kind} passes {floor} GB/s"))
        else:
            rows.append(Check(name, OK, seen))
    return rows


#: Bits of clocks_event_reasons.active (nvml.h, nvmlClocksEventReason...).
_HELD_BACK = {
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


def _load_state(row: Mapping[str, object]) -> str:
    """`` (690 of 700 W, 1410 of 1980 MHz, 61 C, held back by: power limit)``."""
    if "watts" not in row:
        return ""
    text = (
        f" ({row['watts']} of {row['watts_limit']} W, {row['sm_mhz']} of {row['sm_mhz_most']} MHz, "
        f"{row['celsius']} C"
    )
    try:
        bits = int(str(row["held_back"]), 16)
    except ValueError:
        return f"{text})"
    reasons = [name for bit, name in _HELD_BACK.items() if bits & bit]
    return f"{text}, held back by: {', '.join(reasons)})" if reasons else f"{text})"


def timed(began: float) -> Check:
    """How long the preflight took."""
    return Check("time", INFO, f"{time.monotonic() - began:.1f} s")
