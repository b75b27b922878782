"""What has to be moved for a job, as the options say. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.causes import LaunchUsageError
from launcher.data import checkpoints, s3
from launcher.options import LaunchOptions
from launcher.platforms import named

_OUTPUT_NAME = re.compile(r"output|checkpoint|ckpt|save|logging")


@dataclass(frozen=True)
class TransferPlan:
    """Prefixes to fetch, directories to upload, and where checkpoints are."""

    prefetch: tuple[tuple[str, Path], ...]
    upload: tuple[tuple[Path, str], ...]
    checkpoint_dir: Path | None
    checkpoint_uri: str
    rule: str
    resume: str

    @property
    def uris(self) -> tuple[str, ...]:
        """The prefixes that are written to."""
        written = [uri for _, uri in self.upload]
        return tuple(
            dict.fromkeys([*written, self.checkpoint_uri] if self.checkpoint_uri else written)
        )

    @property
    def needs_s3(self) -> bool:
        """Whether s5cmd is needed at all."""
        return bool(self.prefetch or self.uris)


def plan_transfers(settings: LaunchOptions, args: Sequence[str], model: Path) -> TransferPlan:
    """From the options; UsageError for what cannot be meant, or ends up in /opt/ml/model."""
    prefetch = [_pair(text, "--prefetch", "S3=DIR") for text in settings.many("prefetch")]
    upload = [_pair(text, "--upload", "DIR=S3") for text in settings.many("upload")]
    directory, uri = settings.text("checkpoint-dir"), settings.text("checkpoint-uri")
    rule, resume = settings.text("checkpoint-complete"), settings.text("resume")
    checkpoints.check_rule(rule)
    if uri and not directory:
        raise LaunchUsageError("--checkpoint-uri needs --checkpoint-dir: what to upload")
    if resume != "off" and not directory:
        raise LaunchUsageError("--resume needs --checkpoint-dir: where checkpoints are")
    plan = TransferPlan(
        prefetch=tuple((s3.s3_uri(source), Path(target)) for source, target in prefetch),
        upload=tuple((Path(source), s3.s3_uri(target)) for source, target in upload),
        checkpoint_dir=Path(directory).absolute() if directory else None,
        checkpoint_uri=s3.s3_uri(uri) if uri else "",
        rule=rule,
        resume=resume,
    )
    if not settings.on("allow-opt-ml-model"):
        _refuse_model(plan, args, model)
    return plan


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    left, equals, right = text.rpartition("=")
    if not equals or not left or not right:
        raise LaunchUsageError(f"{option} {text!r}: expected {form}")
    return left, right


def _refuse_model(plan: TransferPlan, args: Sequence[str], model: Path) -> None:
    """SageMaker tars and gzips /opt/ml/model at the end: hours for a large model, at full price."""
    options: Mapping[str, Any] = {
        name: value for name, value in named(args).items() if _OUTPUT_NAME.search(name)
    }
    places = {
        "--checkpoint-dir": plan.checkpoint_dir,
        **{f"--upload {path}": path for path, _ in plan.upload},
        **{f"the script's --{name}": Path(value) for name, value in options.items()},
    }
    for what, path in places.items():
        if path is not None and (path == model or model in path.parents):
            raise LaunchUsageError(
                f"{what} is {path}, which SageMaker packs into one archive when the job ends: "
                "that takes hours for a large model. Write elsewhere and use --upload, or say "
                "--allow-opt-ml-model"
            )
