"""Run sagemaker-training's own `train` for many prepared /opt/ml directories, a process each.

Runs in an interpreter that has sagemaker-training; imports nothing of this repository. Reads one
JSON object a line ({"ml": DIR, "env": {...}}), and prints one a line: {"code": EXIT CODE}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def run_one(request: dict[str, Any]) -> int:
    """The exit code of `train` in a child, for which all slow imports have been made."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 99
    try:
        log = Path(request["ml"]).with_name("toolkit.log")
        sink = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        for name in [n for n in os.environ if n.startswith(("SM_", "SAGEMAKER_"))]:
            del os.environ[name]
        os.environ.update(request["env"], SAGEMAKER_BASE_DIR=request["ml"])
        importlib.import_module("sagemaker_training.trainer").train()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - shown; this child ends below in any case
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Answer each request."""
    # Everything that does not depend on where /opt/ml is.
    for name in ("boto3", "numpy", "scipy.sparse", "paramiko", "gevent", "psutil", "asyncio"):
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps({"code": run_one(json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
