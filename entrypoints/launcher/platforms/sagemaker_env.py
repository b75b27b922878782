"""The SM_* variables of sagemaker-training, for scripts that our own runners start.

Names, values and formats: aws/sagemaker-training-toolkit, src/sagemaker_training/environment.py
(to_env_vars) and mapping.py, release 5.1.4; bench/toolkit_differential.py compares with the real
one, and lists where this is another and why. SageMaker SDK v3 leaves out `master_hostname` inside
SM_TRAINING_ENV, which many launch scripts read.

The hosts here are the job's, in the order of resourceconfig.json, whoever takes part in training:
scripts look their own host up in them. The launcher's ranks go by its own topology.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.platforms.hyperparameters import framework_parameters, script_hyperparameters
from launcher.platforms.ml_dir import MlDir, read_json

#: The kernel takes no longer string in an environment (MAX_ARG_STRLEN, 32 pages, less its NUL).
STRING_BYTES = 32 * 4096 - 1

DISTRIBUTION_GROUPS = "sagemaker_distribution_instance_groups"
#: One of these set makes the own instance group a distribution's, where no groups are named.
_DISTRIBUTIONS = tuple(
    f"sagemaker_{name}_enabled"
    for name in (
        *("mpi", "parameter_server", "distributed_dataparallel", "pytorch_ddp"),
        *("pytorch_xla_multi_worker", "multi_worker_mirrored_strategy", "torch_distributed"),
    )
)


def sagemaker_variables(
    ml: MlDir,
    hyperparameters: Mapping[str, Any],
    env: Mapping[str, str],
    *,
    gpus: int,
    script: str,
    args: Sequence[str],
) -> dict[str, str]:
    """All SM_* variables for a script started on this node; too long ones are left out."""
    resources = read_json(ml.config / "resourceconfig.json")
    inputs = read_json(ml.config / "inputdataconfig.json")
    hps = script_hyperparameters(hyperparameters)
    channels = {name: str(ml.data / name) for name in inputs}
    settings: dict[str, Any] = {
        "channel_input_dirs": channels,
        "current_host": resources.get("current_host"),
        "current_instance_type": resources.get("current_instance_type", "local"),
        "framework_module": env.get("SAGEMAKER_TRAINING_MODULE"),
        "hosts": resources.get("hosts"),
        "hyperparameters": hps,
        "input_config_dir": str(ml.config),
        "input_data_config": inputs,
        "input_dir": str(ml.root / "input"),
        "job_name": env.get("TRAINING_JOB_NAME"),
        "log_level": hyperparameters.get("sagemaker_container_log_level", 20),
        "model_dir": str(ml.model),
        "module_dir": str(hyperparameters.get("sagemaker_submit_directory", ml.code)),
        "module_name": script[:-3] if script.endswith(".py") else script,
        "network_interface_name": resources.get("network_interface_name", "eth0"),
        "num_cpus": os.cpu_count() or 1,
        "num_gpus": gpus,
        "num_neurons": 0,
        "output_data_dir": str(ml.output / "data"),
        "output_dir": str(ml.output),
        "output_intermediate_dir": str(ml.output / "intermediate"),
        "resource_config": resources,
        "user_entry_point": script,
        "additional_framework_parameters": framework_parameters(hyperparameters),
        "topology": resources.get("topology", []),
        **_groups(resources, hyperparameters),
    }
    # Named otherwise, or not repeated, as variables of their own.
    inside = (
        *("channel_input_dirs", "hyperparameters", "additional_framework_parameters", "job_name"),
        *("is_master", "master_hostname", "distribution_hosts", "topology"),
    )
    values = {name: value for name, value in settings.items() if name not in inside}
    values |= {
        "channels": sorted(channels),
        "framework_params": settings["additional_framework_parameters"],
        "hps": hps,
        "user_args": list(args),
        "training_env": {**settings, "is_modelparallel_enabled": _model_parallel(env)},
    }
    if settings["topology"]:
        values["topology"] = settings["topology"]
    values |= {f"channel_{name}": path for name, path in channels.items()}
    values |= {f"hp_{key}": value for key, value in hps.items()}
    variables = {f"SM_{name.upper()}": _format(value) for name, value in values.items()}
    return {
        name: value
        for name, value in variables.items()
        if len(f"{name}={value}".encode("utf-8", "surrogateescape")) < STRING_BYTES
        and "\0" not in value
    }


def _model_parallel(env: Mapping[str, str]) -> str | bool | None:
    parameters = env.get("SM_HP_MP_PARAMETERS")
    return parameters and parameters != "{}"


def _groups(resources: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    groups = resources.get("instance_groups") or []
    current = resources.get("current_group_name", "homogeneousCluster")
    by_name = {group["instance_group_name"]: group for group in groups}
    distributed = hyperparameters.get(DISTRIBUTION_GROUPS)
    if distributed is None:
        distributed = [current] if any(map(hyperparameters.get, _DISTRIBUTIONS)) else []
    hosts = list(resources.get("hosts") or [])
    if groups:
        members = [h for g in groups if g["instance_group_name"] in distributed for h in g["hosts"]]
    else:
        members = hosts
    master = (members or hosts or [None])[0]
    return {
        "current_instance_group": current,
        "current_instance_group_hosts": by_name.get(current, {}).get("hosts", []),
        "instance_groups": [group["instance_group_name"] for group in groups],
        "instance_groups_dict": by_name,
        "distribution_instance_groups": distributed,
        "distribution_hosts": members,
        "is_hetero": len(groups) > 1,
        "is_master": resources.get("current_host") == master,
        "master_hostname": master,
    }


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
