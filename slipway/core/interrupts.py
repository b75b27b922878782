"""Ctrl-C, SIGTERM and SIGHUP as exceptions of the main thread, which cannot be missed.

Python runs its handlers between two instructions of the main thread. A signal that comes in the
moment before a system call blocks therefore waits for that call to return: for a daemon that has
nothing to say, or for ever (docs.python.org/3/library/signal.html, "Execution of Python signal
handlers"). So a thread is told of each signal (set_wakeup_fd) and wakes the main thread up, by a
signal that means nothing, until the handler has run.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from slipway.core.errors import HUNG_UP, INTERRUPTED, TERMINATED

_WAKING = signal.SIGURG  # ignored by all that do not ask for it
_TOLD = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_SECONDS = 0.05
_TRIES = 100


class Terminated(KeyboardInterrupt):
    """SIGTERM: how CI systems and service managers cancel. Cleans up as Ctrl-C does."""


class HungUp(Terminated):
    """SIGHUP: the terminal is gone, or the connection that it came over."""


def handle_signals() -> None:
    """Have SIGINT raise KeyboardInterrupt, SIGTERM Terminated, SIGHUP HungUp; in the main thread.

    A SIGINT or SIGHUP that is ignored stays so: shells start what runs in the background with the
    one, and nohup with the other.
    """
    handled = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        handled.set()
        raise KeyboardInterrupt

    def terminate(_number: int, _frame: FrameType | None) -> None:
        handled.set()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut cleaning short
        raise Terminated

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        handled.set()
        signal.signal(
            signal.SIGHUP, signal.SIG_IGN
        )  # one comes from the shell, one from the kernel
        raise HungUp

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(_WAKING, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hang_up)
    main = threading.get_ident()

    def watch() -> None:
        while True:
            if not _TOLD & {*os.read(reader, 1)}:
                continue
            for _ in range(_TRIES):
                if handled.wait(_SECONDS):
                    break
                signal.pthread_kill(main, _WAKING)
            handled.clear()

    threading.Thread(target=watch, name="interrupts", daemon=True).start()


def interrupt_exit_code(interrupt: KeyboardInterrupt) -> int:
    """What a program ends with that was interrupted so: 128 and the number of the signal."""
    if isinstance(interrupt, HungUp):
        return HUNG_UP
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
