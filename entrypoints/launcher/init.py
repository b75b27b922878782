"""The process that stays PID 1: it forwards signals and reaps, and nothing else can break it.

A container's PID 1 has no default signal actions, so a program that does not care never sees
SIGTERM (aws/sagemaker-training-toolkit#125, #173), and orphans stay zombies. The launcher proper
runs in a child of this process; where something else is PID 1 (SageMaker SDK v3, Slurm) this
process asks the kernel to hand it the orphans of its own tree instead.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from launcher.ranks import kill_tree

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


def run_as_init(main: Callable[[], int]) -> int:
    """Run `main` in a child and return its exit code (128 + signal when it was killed).

    When `main` has ended, whatever it left running is killed: no exit code is reported while a
    rank still holds a GPU.
    """
    if os.getpid() != 1:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    blocked = {*FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become_launcher(main, parent, before)
    code = _watch(child, blocked)
    kill_tree(os.getpid())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return code


def _become_launcher(
    main: Callable[[], int], parent: int, mask: set[int | signal.Signals]
) -> NoReturn:
    code = 1
    try:
        # Its own session: a terminal's Ctrl-C then arrives once, through the parent.
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = main()
    except BaseException:
        traceback.print_exc()  # a defect of ours, which the exit below would hide
        raise
    finally:
        # Not sys.exit: the parent's frames are on this stack, too.
        with suppress(OSError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _watch(child: int, awaited: set[signal.Signals]) -> int:
    while True:
        number = signal.sigwait(awaited)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        code = _reap(child)
        if code is not None:
            return code


def _reap(child: int) -> int | None:
    """Collect every ended child; the launcher's exit code once it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
