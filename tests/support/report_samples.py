"""Facts for the report's pages, made of a small matrix; each can be changed by its fields."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

from slipway.derive import BuildInputs, plan_steps
from slipway.matrix import Addon, Base, Image, Registry
from slipway.matrix.model import Facts, Family
from slipway.records import (
    BaseLock,
    BuildRecord,
    ExportRecord,
    ImageInventory,
    ImageLayers,
    ImageRecord,
    Pin,
    PushRecord,
    PythonLock,
    RecordedLayer,
    RecordedRun,
    RunStep,
    SystemPackage,
    VerifyRecord,
)
from slipway.report.report_facts import (
    CheckResult,
    DiskFacts,
    ImageFacts,
    RemovableData,
    ReportFacts,
    SqshFacts,
    StoredData,
)

TODAY = date(2026, 6, 1)
DIGEST = "sha256:" + "a" * 64
BEGAN = 1_790_000_000.0
NAME = "pytorch-2.8-sagemaker-ds0.19.8"


def small_image(name: str = NAME, torch: str = "2.8.0", end: date | None = None) -> Image:
    series = f"pytorch-{torch.rpartition('.')[0]}"
    base = Base(
        name=f"{series}-sagemaker-gpu",
        registry=Registry("dlc", {"us-west-2": "763104351884"}),
        repository="pytorch-training",
        tag=f"{torch}-gpu-py312-cu129-ubuntu22.04-sagemaker",
        grammar="dlc-classic",
        family=Family("system", "apt", "/usr/local/bin/python", "/", "root"),
        flavour="sagemaker",
        facts=Facts(torch, "3.12", "ubuntu22.04", "gpu", "12.9", "12.9"),
        end_of_patch=end or date(2026, 8, 6),
        series=series,
    )
    addon = Addon("deepspeed", "install", "0.19.8", "the base has none", ("deepspeed==0.19.8",))
    return Image(name, "pytorch", base, "sagemaker", (addon,), 400, ("2.8-sagemaker",))


def inputs(**changes: Any) -> BuildInputs:
    values: dict[str, Any] = {
        "base": DIGEST,
        "dockerfile": "d1",
        "templates": "t1",
        "installer": "i1",
        "launcher": "l1",
        "addons": {"deepspeed": "0.19.8 (install)"},
        "python": {"deepspeed": "p1"},
        "tools": {"s5cmd": "b1"},
    }
    return BuildInputs(**{**values, **changes})


def whole_record(decided: BuildInputs, image_id: str = "sha256:1") -> ImageRecord:
    return ImageRecord(
        built=BuildRecord(
            decided.build_id, decided.as_json(), "r:t", image_id, 1_200_000_000, 36.6
        ),
        verified=VerifyRecord(image_id, "suite", 3, 1, 31.6),
        exported=ExportRecord(image_id, "/x/a.sqsh", "sha256:e", 440_000_000, 6.0),
        pushed={"local": PushRecord(image_id, "h/r:t", "sha256:p", "type", 500_000_000, 51.2)},
    )


def layers(*diff_ids: str, image_id: str = "sha256:1") -> ImageLayers:
    """The lowest layer is the base's; each is ten times as large as the one below."""
    return ImageLayers(
        image_id=image_id,
        build_id="b",
        sizes="unpacked",
        layers=tuple(
            RecordedLayer(f"RUN step {number}", 10**number, diff_id, number == 0)
            for number, diff_id in enumerate(diff_ids)
        ),
        env=("PATH=/usr/bin:/opt", "LANG=C.UTF-8", "SLIPWAY_PYTHON=/usr/bin/python"),
        base_env=("PATH=/usr/bin", "LANG=C.UTF-8"),
        entrypoint=("/opt/entrypoints/entrypoint.sh",),
        cmd=("bash",),
        user="",
        workdir="/",
    )


def image_facts(
    image: Image | None = None,
    record: ImageRecord | None = None,
    decided: BuildInputs | None = None,
    **more: Any,
) -> ImageFacts:
    """One image, with all that is known of it where nothing else is said."""
    image = image or small_image()
    decided = decided or inputs()
    record = whole_record(decided) if record is None else record
    base_lock = BaseLock(image.base.name, DIGEST, packages={"numpy": "2.0.0", "tqdm": "4.68.0"})
    (step,) = plan_steps(
        [image], {image.name: decided}, {image.name: record}, {image.base.name: base_lock}, TODAY
    )
    pins = [("deepspeed", "0.19.8"), ("numpy", "1.26.4"), ("tqdm", "4.68.0"), ("hjson", "3.1")]
    closure = PythonLock(
        "key", "deepspeed", tuple(Pin(*pin, ()) for pin in pins), ("deepspeed==0.19.8",)
    )
    values: dict[str, Any] = {
        "base_lock": base_lock,
        "python": (("deepspeed", closure),),
        "layers": layers("d0", "d1", "d2"),
        "checks": (
            CheckResult("test_torch_imports", "tests.image.common", "passed", 2.5),
            CheckResult("test_s5cmd_runs", "tests.image.s5cmd", "passed", 0.1),
            CheckResult("test_no_secrets", "tests.image.common", "passed", 0.7),
        ),
        "base_inventory": ImageInventory(
            "debian 12",
            "dpkg",
            {"numpy": "2.0.0"},
            (SystemPackage("zlib1g", "1.2.13", "amd64", "zlib", "1.2.13"),),
            {},
            (("sha256:a", 700), ("sha256:b", 77)),
            ("the files of /opt",),
        ),
        "sqsh": SqshFacts(
            "/x/a.sqsh",
            1000,
            "sha256:e",
            12,
            {"compression": "zstd-1"},
            ((500, 700), (0, 96)),
            True,
        ),
    }
    return ImageFacts(image, step, record, **{**values, **more})


def run(*steps: RunStep, seconds: float = 100.0, notes: tuple[Any, ...] = ()) -> RecordedRun:
    return RecordedRun("20260601T000000Z-1", "ship x", BEGAN, BEGAN + seconds, steps, notes)


def run_step(task: str, step: str, start: float, end: float, **more: Any) -> RunStep:
    values = {"state": "done", **more}
    return RunStep(task, step, BEGAN + start, BEGAN + end, **values)


def built_note(decided: BuildInputs, at: float = BEGAN) -> dict[str, Any]:
    note = {"what": "built", "image": NAME, "t": at, "inputs": decided.as_json()}
    return {**note, "build_id": decided.build_id, "seconds": 36.6, "size": 1_200_000_000}


def disk_facts() -> DiskFacts:
    return DiskFacts(
        places=(
            StoredData("docker data-root", "/var/lib/docker", "/dev/a ext4", 1000, 5000),
            StoredData("BuildKit cache", "/var/lib/docker/buildkit", "/dev/a ext4", 300, 5000),
            StoredData("Slipway cache", "/x/cache", "/dev/a ext4", 200, 5000),
            StoredData("enroot data", "/e", "/dev/b xfs", None, 70),
        ),
        removable=(
            RemovableData("unused images", "old:1", 400),
            RemovableData("cached files", "/x/cache/wheels/a", 30),
        ),
        older_than="30d",
        engine="",
    )


def report_facts(*images: ImageFacts, **more: Any) -> ReportFacts:
    values: dict[str, Any] = {
        "runs": (run(run_step("build x", "", 0, 60), notes=(built_note(inputs()),)),),
        "disk": disk_facts(),
    }
    return ReportFacts(TODAY, "0.1.0", images or (image_facts(),), **{**values, **more})


def launcher_event(at: float, node: int, event: str, **fields: Any) -> str:
    """A line as the launcher prints it; `at` counts from the job's begin."""
    place = {"t": BEGAN + at, "host": f"host-{node}", "node_rank": node}
    return "launch: " + json.dumps({**place, "event": event, **fields})


def start_up(at: float, node: int, began: float, stages: dict[str, float], **more: Any) -> str:
    fields = {"format": 1, "began": BEGAN + began, "job": "pretrain", "attempt": 0, **more}
    return launcher_event(at, node, "start-up", **fields, stages=stages)


def job_lines() -> list[str]:
    """Two nodes of two ranks; the second is slow to fetch, and rank 3 hangs at the end."""
    return [
        launcher_event(10, 0, "gate", port=7777),
        start_up(50, 0, 10, {"gate": 5, "prefetch": 20, "others": 15}, job_start=int(BEGAN)),
        start_up(50, 1, 12, {"gate": 3, "prefetch": 35, "others": 0}, job_start=int(BEGAN)),
        launcher_event(51, 0, "ranks", first=0, here=2, world=4),
        launcher_event(51, 1, "ranks", first=2, here=2, world=4),
        launcher_event(61, 0, "first-output", rank=0),
        '[r0] {"event": "step", "step": 1, "step_s": 2.0, "tokens_per_s": 1000.0, "loss": 11.0}',
        '[r0] {"event": "step", "step": 2, "step_s": 2.5, "tokens_per_s": 800.0, "loss": 10.5}',
        launcher_event(80, 0, "checkpoint", name="step-2", bytes=4096, seconds=3.0, files=2),
        launcher_event(90, 1, "hang", text="rank 3 stands still", ranks=[3], stacks="", here=True),
        launcher_event(95, 0, "failed", code=77, cause="Hang on host-1 rank 3", detail="Traceback"),
        launcher_event(95, 1, "failed", code=78, cause="Hang on host-1 rank 3", detail="Traceback"),
    ]


def stepping_lines(ranks: int, steps: int) -> list[str]:
    """Of a job whose every rank tells of each step; the last rank is slow in the last one."""
    lines = [line for line in job_lines() if not line.startswith("[r0]")]
    for step in range(1, steps + 1):
        for rank in range(ranks):
            slow = rank == ranks - 1 and step == steps
            told = {"step": step, "step_s": 3.0 if slow else 1.0, "tokens_per_s": 1000.0 + step}
            lines.append(f"[r{rank}] {json.dumps(told)}")
    return lines
