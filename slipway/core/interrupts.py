"""Ctrl-C, SIGTERM and SIGHUP as exceptions of the main thread, which cannot be missed.

Python runs its handlers between two instructions of the main thread. A signal that comes in the
moment before a system call blocks therefore waits for that call to return: for a daemon that has
nothing to say, or for ever (docs.python.org/3/library/signal.html, "Execution of Python signal
handlers"). So a thread is told of each signal (set_wakeup_fd) and wakes the main thread up, by a
signal that means nothing, until the handler has run. And where a handler runs inside of a
destructor or a callback, from which no exception leaves, the signal is sent once more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

from slipway.core.errors import HUNG_UP, INTERRUPTED, TERMINATED

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

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
        # One comes from the shell, one from the kernel.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        raise HungUp

    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: terminate, signal.SIGHUP: hang_up}

    def send_again(lost: UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
            return
        number = signal.Signals(interrupt_exit_code(lost.exc_value) - 128)
        signal.signal(number, handlers[number])
        threading.Timer(_SECONDS, signal.pthread_kill, (main, number)).start()

    main = threading.get_ident()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(_WAKING, lambda _number, _frame: None)
    sys.unraisablehook = send_again
    for number, handler in handlers.items():
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)

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


def reset_signals() -> None:
    """Have them end the process without a word, as when Python itself is ending.

    One that is ignored stays so.
    """
    # Where one came while `exec` ran a text, which dataclasses do, Python has noted that nobody
    # caught it, and would kill itself by SIGINT at the end of `python -m` whoever did
    # (cpython:Python/pythonrun.c, unhandled_keyboard_interrupt). Another text makes it forget.
    exec("")  # noqa: S102
    for number in _TOLD:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def interrupt_exit_code(interrupt: KeyboardInterrupt) -> int:
    """What a program ends with that was interrupted so: 128 and the number of the signal."""
    if isinstance(interrupt, HungUp):
        return HUNG_UP
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


def interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that an error comes of.

    Python makes others of it: what comes in `__set_name__` is a RuntimeError before 3.12, and one
    in Condition.wait ends as "release unlocked lock"; a handle may be closed twice.
    """
    behind: BaseException | None = error
    seen: set[int] = set()  # `raise error from error` makes a circle
    while behind is not None and id(behind) not in seen:
        if isinstance(behind, KeyboardInterrupt):
            return behind
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__
    return None
