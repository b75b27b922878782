"""Signals that come at the worst of times."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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
    command = [sys.executable, "-c", SCRIPT, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")


@pytest.mark.parametrize("name", ["INT", "HUP"])
def test_what_is_started_in_the_background_keeps_ignoring_what_it_ignores(name: str) -> None:
    script = "import os, signal\nfrom slipway.core import interrupts\ninterrupts.handle_signals()\n"
    script += f"os.kill(os.getpid(), signal.SIG{name})\nprint('on')"
    command = ["/bin/sh", "-c", f'trap "" {name}; exec "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "on\n", "")
