"""Make gethostname() answer the name that the other nodes know (algo-1).

A SageMaker container's own host name is another one. Open MPI and programs that publish
gethostname() need the right one; the base images' start_with_right_hostname.sh compiled a
preload library for that at every start, by a relative path that no longer exists when WORKDIR is
not / (aws/sagemaker-pytorch-training-toolkit#143). sagemaker-training ships the same library ready
made (src/sagemaker_training/c/gethostname.c); it is used here after a trial.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping

from launcher import events
from launcher.causes import LaunchUsageError
from launcher.platforms.ml_dir import MlDir, read_json

#: The library reads this path, whatever SAGEMAKER_BASE_DIR says, and crashes without it.
CONFIG = "/opt/ml/input/config/resourceconfig.json"


def preload_hostname(env: Mapping[str, str], ml: MlDir, python: str) -> dict[str, str]:
    """{"LD_PRELOAD": ...} when it is needed and works, else {} with an event that says why."""
    wanted = str(read_json(ml.config / "resourceconfig.json").get("current_host") or "")
    if not wanted or socket.gethostname() == wanted:
        return {}
    if str(ml.config / "resourceconfig.json") != CONFIG:
        return _without(
            wanted, "SAGEMAKER_BASE_DIR is not /opt/ml, which the preload library reads"
        )
    try:
        library = _output([python, "-c", "import gethostname as g; print(g.__file__)"], env)
        joined = f"{library}:{env['LD_PRELOAD']}" if env.get("LD_PRELOAD") else library
        trial = {**env, "LD_PRELOAD": joined}
        # Linked with -z now it would stop every program that is not Python: try both.
        _output(["/bin/sh", "-c", ":"], trial)
        answer = _output([python, "-c", "import socket; print(socket.gethostname())"], trial)
    except LaunchUsageError as error:
        return _without(wanted, str(error))
    if answer != wanted:
        return _without(wanted, f"the preload library answers {answer!r}")
    events.emit("hostname", name=wanted, preload=library)
    return {"LD_PRELOAD": joined}


def _without(wanted: str, why: str) -> dict[str, str]:
    events.emit("hostname", name=socket.gethostname(), wanted=wanted, why=why)
    return {}


def _output(argv: list[str], env: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            argv, env=dict(env), capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchUsageError(f"{argv[0]}: {error}") from error
    if done.returncode != 0 or done.stderr:
        raise LaunchUsageError(
            f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()[-200:]}"
        )
    return done.stdout.strip()
