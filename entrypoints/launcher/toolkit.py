"""`launch toolkit`: sagemaker-training's own `train`, under a PID 1 that passes signals on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher import events
from launcher import events as failure
from launcher.causes import FAILED, STOPPED, Cause, LaunchError
from launcher.options import LaunchOptions
from launcher.platforms import LAUNCH_PREFIX, MlDir, preload_hostname, script_hyperparameters
from launcher.ranks import (
    REPORT,
    SHIMS,
    catches_signal,
    find_ranks,
    find_workers,
    kill_tree,
    send_signal,
    wake_stopped,
)
from launcher.stop_request import SignalInbox

#: From here on arguments reach the script as a list; before, a shell read them.
SAFE_VERSION = (5, 1, 3)
_SHELL_SAFE = re.compile(r"[\w@%+=:,./-]+")


def toolkit_wanted(env: Mapping[str, str], hyperparameters: Mapping[str, Any]) -> bool:
    """Whether a SageMaker job is meant for sagemaker-training rather than for our own runners.

    An estimator job names its program through sagemaker_program or sagemaker_submit_directory, an
    image of one's own through SAGEMAKER_PROGRAM. LAUNCH_RUNNER or LAUNCH_SCRIPT, or any launch_*
    hyperparameter (which the toolkit would hand to the script as an argument), asks for ours.
    """
    runner = env.get("LAUNCH_RUNNER") or hyperparameters.get("launch_runner")
    if runner:
        return bool(runner == "toolkit")
    if env.get("LAUNCH_SCRIPT") or any(key.startswith(LAUNCH_PREFIX) for key in hyperparameters):
        return False
    return bool(
        env.get("SAGEMAKER_PROGRAM")
        or hyperparameters.get("sagemaker_program")
        or hyperparameters.get("sagemaker_submit_directory")
    )


def run_toolkit(
    env: Mapping[str, str], settings: LaunchOptions, ml: MlDir, hyperparameters: Mapping[str, Any]
) -> int:
    """Run `train` to its end; its exit code. Called in the launcher process, below init."""
    train = shutil.which("train", path=env.get("PATH"))
    if train is None:
        raise LaunchError(
            "there is no `train` command on PATH: this image has no sagemaker-training", code=127
        )
    python = _interpreter(Path(train))
    _check_version(_version(python), script_hyperparameters(hyperparameters))
    report = Path(tempfile.mkdtemp(prefix="launch-toolkit-"), "elastic.json")
    child_env = {
        **env,
        **preload_hostname(env, ml, python),
        "PATH": f"{SHIMS}:{env.get('PATH', os.defpath)}",
        REPORT: str(report),
        "LAUNCH_ELASTIC_RAISE": "1",
    }
    code = _Train([train], child_env, settings.number("grace")).run()
    return _verdict(code, report, ml.failure)


class _Train:
    """The toolkit's process, and the signals that its ranks should see."""

    def __init__(self, argv: list[str], env: Mapping[str, str], grace: float) -> None:
        # Items are exit codes of the process, as Popen gives them.
        self._inbox: SignalInbox[tuple[int]] = SignalInbox(
            (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
        )
        self._grace = grace
        self._deadline: float | None = None
        self._process = subprocess.Popen(
            argv, env=dict(env), stdin=subprocess.DEVNULL, start_new_session=True
        )

    def _wait(self) -> None:
        self._inbox.put((self._process.wait(),))

    def run(self) -> int:
        """The exit code; 143 when the ranks had to be killed after a stop."""
        threading.Thread(target=self._wait, name="train", daemon=True).start()
        while True:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            if left is not None and left <= 0:
                events.emit("killing", why=f"ranks did not end {self._grace} s after SIGTERM")
                kill_tree(os.getppid(), lambda process: process.pid != os.getpid())
                return STOPPED
            for item in self._inbox.get(left):
                if isinstance(item, int):
                    self._pass_on(item)
                else:
                    return 128 - item[0] if item[0] < 0 else item[0]

    def _pass_on(self, number: int) -> None:
        # mpirun's ranks hang below sshd, not below `train`: look at the whole tree for them.
        ranks = find_ranks(os.getppid()) or find_workers(self._process.pid)
        if number in (signal.SIGTERM, signal.SIGINT):
            self._deadline = self._deadline or time.monotonic() + self._grace
            number = signal.SIGTERM
            told = send_signal(ranks or [self._process.pid], number)
            wake_stopped(os.getppid())
        else:
            told = send_signal([p for p in ranks if catches_signal(p, number)], number)
        events.emit("signal", signal=signal.Signals(number).name, told=told)


def _verdict(code: int, report: Path, failure_file: Path) -> int:
    """The exit code, corrected where a failure of torchrun has been lost on its way.

    In the toolkit (with sagemaker_toolkit_native_launcher_enabled, or where the word
    gloo::EnforceNotMet makes an error a "known" one), or in a user's script before it.
    """
    if code == 0 and report.exists():
        rows = json.loads(report.read_text(encoding="utf-8"))
        said = ", ".join(f"local rank {r['local_rank']} ended with {r['exitcode']}" for r in rows)
        text = f"reported as a success, but torchrun failed: {said}"
        cause = Cause("TrainingError", text, FAILED, detail=rows[0]["message"])
        (failure_file.parent / "success").unlink(missing_ok=True)
    elif code != 0:
        cause = Cause("TrainingError", f"sagemaker-training's train ended with {code}", code)
    else:
        events.emit("done", code=0)
        return 0
    failure.write_failure(failure_file, cause)
    events.emit("failed", code=cause.code, cause=cause.headline())
    return cause.code


def _interpreter(script: Path) -> str:
    """The Python of a console script, from its first line; python3 where that is a shell."""
    with script.open("rb") as file:
        first = file.readline().decode("utf-8", errors="replace").strip()
    words = first[2:].split() if first.startswith("#!") else []
    return words[0] if words and Path(words[0]).name.startswith("python") else "python3"


def _version(python: str) -> str:
    code = "from importlib.metadata import version; print(version('sagemaker-training'))"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise LaunchError(
            f"{python} does not have sagemaker-training: {done.stderr.strip()[-200:]}", code=127
        )
    return done.stdout.strip()


def _check_version(version: str, hyperparameters: Mapping[str, Any]) -> None:
    """Refuse what an old toolkit would paste into a shell line with a changed meaning."""
    if tuple(int(n) for n in re.findall(r"\d+", version)[:3]) >= SAFE_VERSION:
        return
    for key, value in hyperparameters.items():
        if not _SHELL_SAFE.fullmatch(key) or not _SHELL_SAFE.fullmatch(str(value)):
            raise LaunchError(
                f"sagemaker-training {version} passes hyperparameters through a shell, which would "
                f"change the value of {key!r}. Use the hyperparameter launch_runner=torchrun, or "
                "an image with sagemaker-training 5.1.3 or newer"
            )
