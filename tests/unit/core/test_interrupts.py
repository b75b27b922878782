"""Signals that come at the worst of times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.core import SlipwayError, Terminated, interrupts

#: The signal is taken by another thread, so that it interrupts no system call of the main one: as
#: one does that comes just before the call.
SCRIPT = """
import os, signal, sys, threading, time
from slipway.core import interrupts
number = int(sys.argv[1])
signal.signal(number, signal.SIG_DFL)  # whoever runs the tests in the background ignores it
interrupts.handle_signals()
reader, _ = os.pipe()
def send():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), number)
for _ in range(2):
    threading.Thread(target=send, daemon=True).start()
    try:
        os.read(reader, 1)
    except KeyboardInterrupt as error:
        print(type(error).__name__, flush=True)
    if number != signal.SIGINT:
        break
time.sleep(0.3)  # what woke this thread up must not do so again
"""


def ended_with(script: str, number: signal.Signals) -> tuple[int, str, str]:
    """Exit code and output of a script that gets a signal's number."""
    command = [sys.executable, "-c", script, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (signal.SIGINT, "KeyboardInterrupt\nKeyboardInterrupt\n"),
        (signal.SIGTERM, "Terminated\n"),
        (signal.SIGHUP, "HungUp\n"),
    ],
)
def test_a_signal_that_no_system_call_has_noticed_is_not_missed(
    number: signal.Signals, printed: str
) -> None:
    assert ended_with(SCRIPT, number) == (0, printed, "")


@pytest.mark.parametrize("name", ["INT", "HUP"])
def test_what_is_started_in_the_background_keeps_ignoring_what_it_ignores(name: str) -> None:
    script = "import os, signal\nfrom slipway.core import interrupts\ninterrupts.handle_signals()\n"
    script += f"os.kill(os.getpid(), signal.SIG{name})\nprint('on')"
    command = ["/bin/sh", "-c", f'trap "" {name}; exec "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "on\n", "")


#: The handler runs inside of a destructor, from which Python lets no exception out.
LOST = """
import os, signal, sys, time
from slipway.core import interrupts
number = int(sys.argv[1])
signal.signal(number, signal.SIG_DFL)
interrupts.handle_signals()
class Thing:
    def __del__(self):
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass
try:
    thing = Thing()
    del thing
    time.sleep(60)
except KeyboardInterrupt as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (signal.SIGINT, "KeyboardInterrupt\n"),
        (signal.SIGTERM, "Terminated\n"),
        (signal.SIGHUP, "HungUp\n"),
    ],
)
def test_a_signal_that_comes_in_a_destructor_is_not_lost(
    number: signal.Signals, printed: str
) -> None:
    assert ended_with(LOST, number) == (0, printed, "")


def test_other_exceptions_of_destructors_are_still_told() -> None:
    script = "from slipway.core import interrupts\ninterrupts.handle_signals()\n"
    script += "class Thing:\n    def __del__(self): raise ValueError('told')\nThing()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, "ValueError: told" in done.stderr) == (0, True)


@pytest.mark.parametrize("name", ["INT", "HUP", "TERM"])
def test_once_a_program_is_ending_a_signal_ends_it_without_a_word(name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    script = f"""
import os, signal
from slipway.core import interrupts
signal.signal({int(number)}, signal.SIG_DFL)
interrupts.handle_signals()
interrupts.reset_signals()
os.kill(os.getpid(), {int(number)})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-number, b"", b"")


def test_one_that_came_in_an_exec_and_was_caught_does_not_kill_at_the_end(tmp_path: Path) -> None:
    """As in the making of a dataclass, with `python -m`, which `./inv` is."""
    (tmp_path / "program.py").write_text("""
import sys
from slipway.core import interrupts
interrupts.handle_signals()
try:
    try:
        exec("import os, signal; os.kill(os.getpid(), signal.SIGINT); signal.pause()")
    except KeyboardInterrupt as interrupt:
        sys.exit(interrupts.interrupt_exit_code(interrupt))
finally:
    interrupts.reset_signals()
""")
    done = subprocess.run(
        [sys.executable, "-m", "program"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


class Interrupting:
    """Raises where Python 3.10 and 3.11 make a RuntimeError of it."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise Terminated


def close_twice(interrupt: KeyboardInterrupt) -> None:
    handle = os.open(os.devnull, os.O_RDONLY)
    try:
        os.close(handle)
        raise interrupt
    finally:
        os.close(handle)


def as_a_failure(interrupt: KeyboardInterrupt) -> None:
    try:
        close_twice(interrupt)
    except OSError as error:
        raise SlipwayError("the file cannot be written") from error


@pytest.mark.parametrize(
    "fail",
    [
        lambda: type("Owner", (), {"name": Interrupting()}),
        lambda: close_twice(Terminated()),
        lambda: as_a_failure(Terminated()),
    ],
)
def test_what_python_and_we_make_of_an_interrupt_is_known_for_one(fail: Callable[[], Any]) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever becomes of it
        fail()
    assert isinstance(interrupts.interrupt_behind(caught.value), Terminated)


def test_other_errors_have_none_behind_them() -> None:
    error = SlipwayError("x")
    error.__cause__ = OSError(9, "Bad file descriptor")
    assert interrupts.interrupt_behind(error) is None


def test_a_chain_of_errors_that_leads_back_to_itself_has_an_end() -> None:
    one, two = SlipwayError("one"), SlipwayError("two")
    one.__cause__, two.__cause__ = two, one
    assert interrupts.interrupt_behind(one) is None
    with pytest.raises(SlipwayError) as caught:
        raise one from one
    assert interrupts.interrupt_behind(caught.value) is None
    one.__cause__, two.__cause__ = two, Terminated()
    assert interrupts.interrupt_behind(one) is two.__cause__
