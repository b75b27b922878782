"""Ctrl-C reaches what tests start, wherever the tests are started from.

A shell that starts the tests in the background has them ignore SIGINT, and every program that they
start would inherit that (POSIX shell, "Asynchronous Lists").
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
