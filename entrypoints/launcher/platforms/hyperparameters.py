"""hyperparameters.json, read and turned into arguments exactly as sagemaker-training does.

Format and rules: aws/sagemaker-training-toolkit, src/sagemaker_training/environment.py
(read_hyperparameters) and mapping.py (to_cmd_args). Unlike the toolkit before 5.1.3, the arguments
stay a list all the way to exec: no shell reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

SAGEMAKER_PREFIX = "sagemaker_"
LAUNCH_PREFIX = "launch_"
#: What sagemaker-training keeps to itself (params.py, SAGEMAKER_HYPERPARAMETERS): settings of the
#: platform and of the service, a tuning job's metric among them. No script is given them.
PLATFORM_HYPERPARAMETERS = frozenset(
    {
        *("sagemaker_program", "sagemaker_submit_directory", "sagemaker_region"),
        *("sagemaker_enable_cloudwatch_metrics", "sagemaker_container_log_level"),
        *("sagemaker_job_name", "sagemaker_s3_output"),
        *("default_user_module_name", "_tuning_objective_metric"),
    }
)


def decode_hyperparameters(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Values are JSON inside strings; one that is not JSON is the value itself."""
    return {str(key): _decode_one(value) for key, value in raw.items()}


def _decode_one(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def script_hyperparameters(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to the training script: not the platform's own, not launch_*."""
    hidden = (SAGEMAKER_PREFIX, LAUNCH_PREFIX)
    return {
        key: value
        for key, value in hyperparameters.items()
        if not key.startswith(hidden) and key not in PLATFORM_HYPERPARAMETERS
    }


def framework_parameters(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The estimator's settings for its framework (sagemaker_mpi_enabled and the like)."""
    return {
        key: value
        for key, value in hyperparameters.items()
        if key.startswith(SAGEMAKER_PREFIX) and key not in PLATFORM_HYPERPARAMETERS
    }


def to_arguments(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Arguments in key order: ``--key value``, ``-k value`` for one letter.

    None becomes an empty string, an object ``a=1,b=2``; anything else is Python's ``str``.
    """
    args: list[str] = []
    for key in sorted(hyperparameters):
        args.append(f"--{key}" if len(key) > 1 else f"-{key}" if key else "")
        args.append(_text(hyperparameters[key]))
    return args


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)


def named(args: Sequence[str]) -> dict[str, str]:
    """``--a b --c=d --e`` as {"a": "b", "c": "d", "e": "true"}, with - in names as _."""
    found: dict[str, str] = {}
    for index, word in enumerate(args):
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        following = args[index + 1] if index + 1 < len(args) else "--"
        if not equals:
            value = "true" if following.startswith("--") else following
        found[name.replace("-", "_")] = value
    return found


def truthy(text: str) -> bool:
    """Whether an argument's value switches something on."""
    return text.lower() in ("1", "true", "yes", "on")
