"""What SageMaker puts into a training container of a job with one host. Pure.

AWS guide, "How Amazon SageMaker AI Provides Training Information"; the place of the script is
sagemaker-training's (aws/sagemaker-training-toolkit:src/sagemaker_training/files.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from slipway.verify.containers import HOST

SCRIPT = "train.py"
FOLDERS = ("/opt/ml/input/data", "/opt/ml/model", "/opt/ml/output/data")
"""Empty when a job starts."""

RESULTS = ("/opt/ml/output", "/opt/ml/model")
"""What SageMaker looks at after a job."""

_INSTANCE, _GROUP = "ml.c5.xlarge", "homogeneousCluster"
RESOURCES = {
    "current_host": HOST,
    "current_instance_type": _INSTANCE,
    "current_group_name": _GROUP,
    "hosts": [HOST],
    "instance_groups": [
        {"instance_group_name": _GROUP, "instance_type": _INSTANCE, "hosts": [HOST]}
    ],
    "network_interface_name": "eth0",
}


def job_files(script: str, hyperparameters: Mapping[str, Any]) -> dict[str, bytes]:
    """Path -> content of a job that runs `script`. Hyperparameters are JSON inside strings."""
    given = {"sagemaker_program": SCRIPT, **hyperparameters}
    config = {
        "hyperparameters": {name: json.dumps(value) for name, value in given.items()},
        "inputdataconfig": {},
        "resourceconfig": RESOURCES,
    }
    return {
        f"/opt/ml/code/{SCRIPT}": script.encode(),
        **{
            f"/opt/ml/input/config/{name}.json": json.dumps(value).encode()
            for name, value in config.items()
        },
    }
