"""The small commands: preflight by itself, and verified transfers by hand."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launcher import context as contexts
from launcher import init, plan, toolkit
from launcher.causes import (
    FETCH_SHORT,
    NOTHING_FETCHED,
    OK,
    PREFLIGHT,
    UPLOAD_UNVERIFIED,
    CauseError,
    LaunchError,
    LaunchUsageError,
)
from launcher.checks import (
    FAIL,
    INFO,
    WARN,
    Check,
    checks_table,
    measured_checks,
    package_versions,
    quick_checks,
    timed,
)
from launcher.data import (
    S3,
    TransferResult,
    differences,
    directory_lock,
    fetch_prefix,
    local_files,
    map_keys,
    s3_uri,
    send_directory,
    sizes,
    skipped_rows,
)
from launcher.options import LaunchOptions
from launcher.platforms import make_place, small_scratch
from launcher.ranks import RankLayout
from launcher.stop_request import StopRequest


def preflight_here(flags: Mapping[str, str], words: Sequence[str], env: Mapping[str, str]) -> int:
    """Print all checks of this node; 70 when one fails. `--preflight full` measures its GPUs."""
    platform = contexts.detect_platform(env)
    # Nothing is started, so a script is not needed; this file stands in for it.
    script = list(words) or [str(Path(__file__).resolve())]
    made = plan.plan_launch(contexts.gather_context(platform, flags, script, env))
    began = time.monotonic()
    checks = [*_environment(made), *quick_checks(made, StopRequest())]
    if made.context.settings.text("preflight") == "full":
        # A child so that a rank that hangs is killed whatever happens.
        return init.run_as_init(lambda: _measured(made, checks, began))
    return _report(made, checks, began)


def _environment(made: plan.Plan) -> list[Check]:
    versions = package_versions(made.context.python, made.context.env)
    text = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    context = made.context
    theirs = toolkit.toolkit_wanted(context.env, context.hyperparameters)
    rows = [Check("versions", INFO, text or "no Python with packages")]
    if context.platform == contexts.SAGEMAKER:
        runs = "sagemaker-training" if theirs else "the launcher's own runners"
        rows.append(Check("train", INFO, f"the `train` command runs {runs}"))
    return rows + [Check("environment", WARN, text) for text in made.warnings]


def _measured(made: plan.Plan, checks: list[Check], began: float) -> int:
    single = RankLayout(
        node_rank=0,
        procs=(max(1, made.gpus.count),),
        hosts=(made.context.topology.host,),
        master="127.0.0.1",
        port=plan.free_port(),
        run_id="preflight",
    )
    timeout = float(made.context.settings.number("preflight-timeout"))
    try:
        checks = [*checks, *measured_checks(made, single, StopRequest(), timeout)]
    except CauseError as error:
        checks = [*checks, Check("all-reduce", FAIL, error.cause.headline())]
    return _report(made, checks, began)


def _report(made: plan.Plan, checks: list[Check], began: float) -> int:
    checks = [*checks, timed(began)]
    if made.context.settings.on("json"):
        rows = [{"name": c.name, "level": c.level, "text": c.text} for c in checks]
        print(json.dumps({"host": made.context.topology.host, "checks": rows}, indent=1))
    else:
        print(checks_table(checks))
    return PREFLIGHT if any(check.level == FAIL for check in checks) else OK


def _prefetch(source: str, target: str, settings: LaunchOptions, env: Mapping[str, str]) -> int:
    return _moved(
        fetch_prefix(S3(env, StopRequest()), s3_uri(source), Path(target)),
        settings,
    )


def _upload(source: str, target: str, settings: LaunchOptions, env: Mapping[str, str]) -> int:
    sent = send_directory(S3(env, StopRequest()), Path(source), s3_uri(target))
    for row in skipped_rows(sent.skipped):
        print(f"launch: not uploaded: {row}", file=sys.stderr)
    if not sent.files:
        raise LaunchUsageError(f"there is nothing in {source}")
    count, size = len(sent.files), sum(sent.files.values())
    return _moved(TransferResult(count, size, count), settings)


def _moved(moved: TransferResult, settings: LaunchOptions) -> int:
    if settings.on("json"):
        print(json.dumps({"files": moved.files, "bytes": moved.size, "copied": moved.copied}))
    else:
        print(f"{moved.files} files, {moved.size} bytes; {moved.copied} copied, all verified")
    return OK


def _verify(source: str, target: str, settings: LaunchOptions, env: Mapping[str, str]) -> int:
    s3 = S3(env, StopRequest())
    outward = target.startswith("s3://")
    here = Path(source if outward else target)
    there = sizes(s3.listing(s3_uri(target if outward else source)))
    if not outward:
        paths = map_keys(there, here)
        there = {str(path.relative_to(here)): there[key] for key, path in paths.items()}
    local = local_files(here)
    if not (local if outward else there):
        raise LaunchError(f"there is nothing in {source}", code=NOTHING_FETCHED)
    wrong = differences(*((local, there) if outward else (there, local)))
    if settings.on("json"):
        print(json.dumps({"files": len(local if outward else there), "wrong": wrong}))
    else:
        print("\n".join(wrong) or "every file is there with its size")
    if not wrong:
        return OK
    print(f"launch: {len(wrong)} files differ", file=sys.stderr)
    return UPLOAD_UNVERIFIED if outward else FETCH_SHORT


TRANSFERS: dict[str, Callable[[str, str, LaunchOptions, Mapping[str, str]], int]] = {
    "prefetch": _prefetch,
    "upload": _upload,
    "verify": _verify,
}


def state_dir(env: Mapping[str, str]) -> Path:
    """Where results are kept: for this launch, else for this run of torchrun, else for the job."""
    if env.get("LAUNCH_SCRATCH"):
        return make_place(Path(env["LAUNCH_SCRATCH"], "once"), private=1)
    names = ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TRAINING_JOB_NAME", "SLURM_JOB_ID")
    scope = "-".join(env.get(name, "") for name in (*names, "SLURM_RESTART_COUNT"))
    digest = hashlib.sha256(scope.encode()).hexdigest()[:16]
    return small_scratch(env, f"once-{digest}")


def run_once_per_node(command: Sequence[str], env: Mapping[str, str]) -> int:
    """The command's exit code, whoever ran it. After a torchrun restart it runs anew."""
    if not command:
        raise LaunchUsageError("once-per-node needs a command: launch once-per-node -- CMD ARGS")
    attempt = env.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = hashlib.sha256(json.dumps([attempt, *command]).encode()).hexdigest()[:24]
    result = state_dir(env) / f"{key}.json"
    with directory_lock(result.with_suffix(".lock")):
        if result.exists():
            return int(json.loads(result.read_text(encoding="utf-8"))["code"])
        code = subprocess.run(list(command), env=dict(env), check=False).returncode
        code = 128 - code if code < 0 else code
        beside = result.with_suffix(".tmp")
        beside.write_text(json.dumps({"command": list(command), "code": code}), encoding="utf-8")
        beside.replace(result)
        return code
