"""One job of the suite, with all the processes that it leaves behind.

    python -m tests.support.whole_job COMMAND...

Engines and containers leave their parent to be adopted by whom the kernel finds. Here that is this
process, which waits for them: what it tells its own parent of CPU time (`os.wait4`) then counts
theirs. Ctrl-C reaches the command by the terminal; SIGTERM is passed on to it as an interrupt.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_CHILD_SUBREAPER = 36


def run_whole_job(command: Sequence[str]) -> int:
    """Run the command to its end, and wait for whatever of its own has ended by then.

    Its exit code, as a shell gives it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "could not become a subreaper")
    # Held until there is a command that can be told: that may be asked for at once.
    both = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    main = os.fork()
    if not main:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
            os.execvp(command[0], list(command))
        finally:
            os._exit(127)
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal tells the command, too
    signal.signal(signal.SIGTERM, lambda *_: os.kill(main, signal.SIGINT))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    pid = 0
    while pid != main:
        pid, status = os.wait()
    while pid:  # what is still at work is the system's
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run_whole_job(sys.argv[1:]))
