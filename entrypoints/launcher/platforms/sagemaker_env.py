"""The SM_* variables of sagemaker-training, for scripts that our own runners start.

Names and formats: aws/sagemaker-training-toolkit, src/sagemaker_training/environment.py
(to_env_vars) and mapping.py. `master_hostname` inside SM_TRAINING_ENV is what many launch scripts
read; SageMaker SDK v3 leaves it out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.platforms.hyperparameters import SAGEMAKER_PREFIX, script_hyperparameters
from launcher.platforms.ml_dir import MlDir, read_json
from launcher.platforms.topology import Topology


def sagemaker_variables(
    ml: MlDir,
    topology: Topology,
    hyperparameters: Mapping[str, Any],
    *,
    gpus: int,
    script: str,
    args: Sequence[str],
) -> dict[str, str]:
    """All SM_* variables for a script started on this node."""
    resources = read_json(ml.config / "resourceconfig.json")
    channels = read_json(ml.config / "inputdataconfig.json")
    values: dict[str, Any] = {
        "hosts": list(topology.hosts),
        "current_host": topology.host,
        "network_interface_name": topology.interface or "eth0",
        "resource_config": resources,
        "input_data_config": channels,
        "channels": sorted(channels),
        "hps": script_hyperparameters(hyperparameters),
        "framework_params": {
            key: value for key, value in hyperparameters.items() if key.startswith(SAGEMAKER_PREFIX)
        },
        "user_args": list(args),
        "user_entry_point": script,
        "module_name": script[:-3] if script.endswith(".py") else script,
        "module_dir": str(ml.code),
        "model_dir": str(ml.model),
        "input_dir": str(ml.root / "input"),
        "input_config_dir": str(ml.config),
        "output_dir": str(ml.output),
        "output_data_dir": str(ml.output / "data"),
        "output_intermediate_dir": str(ml.output / "intermediate"),
        "num_cpus": os.cpu_count() or 1,
        "num_gpus": gpus,
        "num_neurons": 0,
        "log_level": hyperparameters.get("sagemaker_container_log_level", 20),
        **_groups(resources, topology),
    }
    values["training_env"] = {
        **values,
        "hyperparameters": values["hps"],
        "channel_input_dirs": {name: str(ml.data / name) for name in channels},
        "master_hostname": topology.master,
        "is_master": topology.node_rank == 0,
        "job_name": topology.job,
    }
    for name in channels:
        values[f"channel_{name}"] = str(ml.data / name)
    for key, value in script_hyperparameters(hyperparameters).items():
        values[f"hp_{key}"] = value
    return {f"SM_{name.upper()}": _format(value) for name, value in values.items()}


def _groups(resources: Mapping[str, Any], topology: Topology) -> dict[str, Any]:
    groups = resources.get("instance_groups") or []
    current = resources.get("current_group_name", "homogeneousCluster")
    by_name = {group["instance_group_name"]: group for group in groups}
    return {
        "current_instance_type": topology.instance_type or "local",
        "current_instance_group": current,
        "current_instance_group_hosts": by_name.get(current, {}).get("hosts", []),
        "instance_groups": list(by_name),
        "instance_groups_dict": by_name,
        "distribution_instance_groups": [
            name for name, group in by_name.items() if set(group["hosts"]) & set(topology.hosts)
        ],
        "is_hetero": len(by_name) > 1,
    }


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
