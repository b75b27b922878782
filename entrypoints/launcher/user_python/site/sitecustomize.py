"""Lets a rank show where it stands: two signals on which faulthandler writes Python stacks.

This directory is put first on the ranks' PYTHONPATH. Python imports only one `sitecustomize`, so
this one runs the image's own as if it had never been here: found on the rest of the path, under its
own name. The entry is taken off `sys.path` again; a script sees the path that it had without us.

The handlers are faulthandler's, in C: they answer while the main thread waits in a collective,
spins, or holds the GIL, start no thread, and restart an interrupted system call. Two real-time
signals, which no training library uses (SIGUSR1 and SIGUSR2 belong to the scripts: "save now"):
one for the main thread's stack, which is read from inside that thread and costs some 0.1 ms, and
one for all threads, which is sent only when there is something to report.
"""

from __future__ import annotations

import faulthandler
import importlib.machinery
import importlib.util
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is slow to load


def register_stacks(env: os._Environ[str]) -> None:
    """Register the handlers in a rank; in its helpers, and outside of a job, do nothing."""
    directory = env.get("LAUNCH_SCRATCH", "") + "/stacks"
    is_rank = ("RANK" in env and "LOCAL_RANK" in env) or "OMPI_COMM_WORLD_LOCAL_RANK" in env
    # A rank's own helpers (data loaders, compilers) inherit its variables.
    if not is_rank or os.path.exists(f"{directory}/{os.getppid()}"):  # noqa: PTH110
        return
    # 3.14 would add the C stack, by a walk that is not safe in every library's frames.
    options = {"c_stack": False} if sys.version_info >= (3, 14) else {}
    # Appending, so that the launcher may cut a file back at any time.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    for number, all_threads, suffix in (
        (signal.SIGRTMAX - 7, True, ".threads"),
        (signal.SIGRTMAX - 6, False, ""),
    ):
        try:
            # Kept by its number: a file object would be closed before the interpreter's last words.
            file = os.open(f"{directory}/{os.getpid()}{suffix}", flags, 0o600)
        except OSError:
            return  # no launcher that watches
        # What faulthandler restores when the interpreter ends: a signal that comes then must not
        # end the rank, which is the default action.
        signal.signal(number, signal.SIG_IGN)
        faulthandler.register(number, file=file, all_threads=all_threads, **options)


def run_other_sitecustomize() -> None:
    """What Python would have run without this file."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    # The import system hands out what stands here when this module has been run.
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


register_stacks(os.environ)
run_other_sitecustomize()
