"""The processes above the launcher: they forward signals and reap, and nothing else breaks them.

A container's PID 1 has no default signal actions, so a program that does not care never sees
SIGTERM (aws/sagemaker-training-toolkit#125, #173), and orphans stay zombies. The launcher proper
runs in a child of this process; where something else is PID 1 (SageMaker SDK v3, Slurm) this
process asks the kernel to hand it the orphans of its own tree instead.

There are two of them, one below the other, alike: whichever of the three processes is killed
(kill -9), one that is left notices at once and ends everything below it, so that no rank goes on
holding a GPU; where it is the topmost, the ranks may save before. Each also lets its neighbours go
on when they are stopped (SIGSTOP): a rank must not be able to make a job hang for ever by stopping
its launcher. (A shell's Ctrl-Z is left alone.)
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

from launcher.ranks import kill_tree, let_end, let_go_on

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip

#: How often the process above is looked at.
LOOK_SECONDS = 2.0
#: The processes of this module that this one is below of.
_OWN: list[int] = []


def run_as_init(main: Callable[[], int]) -> int:
    """Run `main` in a child and return its exit code (128 + signal when it was killed).

    When `main` has ended, whatever it left running is killed: no exit code is reported while a
    rank still holds a GPU.
    """
    return _run_below(lambda: _run_below(main))


def _run_below(main: Callable[[], int]) -> int:
    """One of the two."""
    above = os.getppid()
    if os.getpid() != 1:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    blocked = {*FORWARDED, signal.SIGCHLD, signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _OWN.append(parent)
        _become_launcher(main, parent, before)
    code = _watch(child, blocked, above)
    kill_tree(os.getpid())
    if above in _OWN:
        let_end(above)  # it has a code to pass on
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


def _watch(child: int, awaited: set[signal.Signals], above: int) -> int:
    """Until the child has ended. When the process above is killed, a SIGTERM comes (PDEATHSIG).

    The clock is a signal, too: Python's sigtimedwait returns noise when a stop (SIGSTOP) outlasts
    its time.
    """
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    try:
        while True:
            number = signal.sigwait(awaited)
            if number == signal.SIGALRM:
                if above in _OWN:
                    let_go_on(above)
            elif number != signal.SIGCHLD:
                os.kill(child, number)
                continue
            code = _reap(child)
            if code is not None:
                return code
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # one may be pending, and would kill


def _reap(child: int) -> int | None:
    """Collect every ended child; the launcher's exit code once it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if os.WIFSTOPPED(status):
            if pid == child and os.WSTOPSIG(status) == signal.SIGSTOP:
                os.kill(child, signal.SIGCONT)
        elif pid == child:
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
