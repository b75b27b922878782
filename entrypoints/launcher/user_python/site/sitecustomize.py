"""Lets a rank show where it stands, by a thread that answers questions and, failing that, a signal.

This directory is put first on the ranks' PYTHONPATH. Python imports only one `sitecustomize`, so
this one runs the image's own as if it had never been here: found on the rest of the path, under its
own name. The entry is taken off `sys.path` again; a script sees the path that it had without us.

The thread (rank_answers.py beside this file) begins when torch.distributed is imported: torch has
started threads by then, and before that no rank waits for another. Who gives no answer (a main
thread that keeps the GIL for itself; a rank without torch) is sent a signal, rarely and only when a
report is due: SIGWINCH, on which faulthandler writes all threads' stacks, in C. The default action
of SIGWINCH is to do nothing: a rank that replaces itself (exec), or whose interpreter ends, is not
harmed by one, and no training library gives it a meaning.
"""

from __future__ import annotations

import faulthandler
import importlib.machinery
import importlib.util
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib is slow to load
#: What is imported with torch, long before a process group is made.
TORCH_MODULE = "torch.distributed.distributed_c10d"
# Appending, so that the launcher may cut a file back at any time.
ANSWER_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def register_stacks(env: os._Environ[str]) -> None:
    """Be ready to answer in a rank; in its helpers, and outside of a job, do nothing."""
    directory = env.get("LAUNCH_SCRATCH", "") + "/stacks"
    is_rank = ("RANK" in env and "LOCAL_RANK" in env) or "OMPI_COMM_WORLD_LOCAL_RANK" in env
    # A rank's own helpers (data loaders, compilers) inherit its variables.
    if not is_rank or os.path.exists(f"{directory}/{os.getppid()}.threads"):  # noqa: PTH110
        return
    base = f"{directory}/{os.getpid()}"
    try:
        # Kept by its number: a file object would be closed before the interpreter's last words.
        file = os.open(f"{base}.threads", ANSWER_FLAGS, 0o600)
    except OSError:
        return  # no launcher that watches
    faulthandler.register(signal.SIGWINCH, file=file, all_threads=True)
    sys.meta_path.insert(0, TorchNotice(base, file))


class TorchNotice:
    """Stands before Python's own finders until torch.distributed is looked for; finds nothing."""

    def __init__(self, base: str, threads: int) -> None:
        self._pid = os.getpid()
        self._base = base
        self._threads = threads

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """The import system's question; the answer is always that others know."""
        del path, target
        if name == TORCH_MODULE:
            sys.meta_path.remove(self)
            if os.getpid() == self._pid:  # not in a child that came by fork
                self._begin()

    def _begin(self) -> None:
        module = sys.modules.get("torch")
        keep_collectives(os.environ, str(getattr(module, "__version__", "")))
        spec = importlib.util.spec_from_file_location("rank_answers", f"{HERE}/rank_answers.py")
        assert spec is not None
        assert spec.loader is not None, "a file of Python has a loader"
        answers = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(answers)
        answers.begin(self._base, self._threads, ANSWER_FLAGS)


def keep_collectives(env: os._Environ[str], version: str) -> None:
    """Have torch keep its last collectives (the flight recorder), where it does not by itself.

    The variable has changed its name; the old one makes newer versions warn.
    """
    names = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
    if not any(name in env for name in names):
        words = version.split(".")
        number = tuple(int(word) for word in words[:2] if word.isdecimal())
        env[names[number < (2, 9)]] = "2000"


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


try:
    register_stacks(os.environ)
finally:
    run_other_sitecustomize()
