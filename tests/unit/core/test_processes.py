"""Processes, by what Linux says of them."""

from __future__ import annotations

import os
import subprocess

from slipway.core import child_processes, descends_from

#: A shell with a shell below it; both end with their input.
SHELLS = "exec 3<&0; sh -c 'echo; cat <&3; true' & wait"


def test_a_process_descends_from_all_above_it_and_from_no_other() -> None:
    with subprocess.Popen(
        ["sh", "-c", SHELLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdout.readline()
        (inner,) = child_processes(shell.pid)
        assert descends_from(inner, shell.pid)
        assert descends_from(inner, os.getpid())
        assert descends_from(shell.pid, os.getpid())
        assert not descends_from(shell.pid, inner)
        assert not descends_from(inner, inner)
        shell.stdin.close()
        shell.wait()
    assert not descends_from(inner, os.getpid())  # gone
