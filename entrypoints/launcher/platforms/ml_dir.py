"""Where SageMaker puts things (/opt/ml, or $SAGEMAKER_BASE_DIR as in sagemaker-training)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.causes import LaunchUsageError


@dataclass(frozen=True)
class MlDir:
    """The directory tree of the SageMaker training contract."""

    root: Path

    @property
    def config(self) -> Path:
        """Holds resourceconfig.json, hyperparameters.json, inputdataconfig.json."""
        return self.root / "input" / "config"

    @property
    def data(self) -> Path:
        """One directory per input channel."""
        return self.root / "input" / "data"

    @property
    def code(self) -> Path:
        """Where sagemaker-training (SDK v2) unpacks the source directory."""
        return self.root / "code"

    @property
    def model(self) -> Path:
        """Tarred, gzipped and uploaded by SageMaker at the end: hours for a large model."""
        return self.root / "model"

    @property
    def output(self) -> Path:
        """Holds the failure file."""
        return self.root / "output"

    @property
    def failure(self) -> Path:
        """What SageMaker shows as FailureReason."""
        return self.output / "failure"


def find_ml_dir(env: Mapping[str, str]) -> MlDir:
    """The tree of this container."""
    return MlDir(Path(env.get("SAGEMAKER_BASE_DIR") or "/opt/ml"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} when the file does not exist; UsageError when it is something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise LaunchUsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise LaunchUsageError(f"{path} holds a {type(value).__name__}, not an object")
    return value
