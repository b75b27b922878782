"""Which rank failed first, and what is said about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import events
from launcher.causes import FAILURE_CHARS, Cause, root_cause
from launcher.ranks import diagnosis
from launcher.ranks.diagnosis import Exit

TRACEBACK = """\
loading...
Traceback (most recent call last):
  File "train.py", line 3, in step
    raise KeyError("x")
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "train.py", line 9, in <module>
    step()
ValueError: bad batch
"""


def test_the_last_exception_of_a_chain_is_the_message() -> None:
    parsed = diagnosis.parse_crash(TRACEBACK)
    assert parsed is not None
    message, frames = parsed
    assert message == "ValueError: bad batch"
    assert frames.splitlines()[1] == '  File "train.py", line 9, in <module>'


def test_words_of_other_programs_after_the_exception_are_not_part_of_it() -> None:
    parsed = diagnosis.parse_crash(TRACEBACK + "terminate called without an active exception\n")
    assert parsed is not None
    assert parsed[0] == "ValueError: bad batch"


def test_a_message_that_announces_more_is_shown_with_it() -> None:
    text = TRACEBACK.replace("bad batch", "Error(s) in loading state_dict for Net:\n\tMissing key")
    parsed = diagnosis.parse_crash(text)
    assert parsed is not None
    assert parsed[0] == "ValueError: Error(s) in loading state_dict for Net: Missing key"


def test_torchs_rank_prefixes_are_taken_off() -> None:
    text = "".join(f"[rank1]: {line}\n" for line in TRACEBACK.splitlines())
    parsed = diagnosis.parse_crash(text + "[rank1]:[W] process group not destroyed\n")
    assert parsed is not None
    assert parsed[0] == "ValueError: bad batch"


def test_faulthandlers_stacks_count_as_a_crash() -> None:
    text = (
        TRACEBACK + "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent "
        'call first):\n  File "x.py", line 3 in f\n'
    )
    parsed = diagnosis.parse_crash(text)
    assert parsed is not None
    assert parsed[0] == "Fatal Python error: Segmentation fault"
    assert 'File "x.py", line 3 in f' in parsed[1]


def die(code: str, *options: str) -> str:
    """What a Python process that aborts really writes."""
    done = subprocess.run(
        [sys.executable, *options, "-c", f"import ctypes\n{code}"], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGABRT
    return done.stderr


TERMINATE = "ctypes.CDLL('libstdc++.so.6')._ZSt9terminatev()"


@pytest.mark.parametrize("options", [[], ["-X", "faulthandler"]])
def test_an_abort_of_the_cpp_runtime_is_told_by_its_words(options: list[str]) -> None:
    parsed = diagnosis.parse_crash("step 3/10\r" + die(TERMINATE, *options))
    assert parsed is not None
    assert parsed[0] == (
        "terminate called without an active exception "
        "(no torch.distributed.destroy_process_group() at the script's end?)"
    )
    assert ("most recent call first" in parsed[1]) == bool(options)


def test_an_abort_of_the_cpp_runtime_at_exit_does_not_hide_the_traceback() -> None:
    code = f"import atexit\natexit.register(lambda: {TERMINATE})\nraise ValueError('bad batch')"
    parsed = diagnosis.parse_crash(die(code, "-X", "faulthandler"))
    assert parsed is not None
    assert parsed[0] == "ValueError: bad batch"


#: vterminate.cc: the type, then what().
IO_ERROR = """\
terminate called after throwing an instance of 'gloo::IoException'
  what():  [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer
"""


def test_a_cpp_exception_is_shown_with_its_text() -> None:
    parsed = diagnosis.parse_crash(IO_ERROR + "frame #0: c10::Error\n")
    assert parsed is not None
    assert parsed[0] == (
        "terminate called after throwing an instance of 'gloo::IoException' what(): "
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer"
    )
    assert parsed[1].endswith("frame #0: c10::Error")


def test_a_rank_that_aborts_because_a_peer_is_gone_is_no_root(tmp_path: Path) -> None:
    logs = {log(tmp_path / "rank0.log", IO_ERROR, age=9): 0}
    root = root_cause(diagnosis.causes_of_exits([Exit(0, -6), Exit(1, -9)], logs))
    assert root is not None
    assert root.headline() == "RankKilled: killed by SIGKILL on rank 1"


@pytest.mark.parametrize("text", ["", "step 1\nstep 2\n", "Traceback (most recent call last):\n"])
def test_ordinary_output_is_no_crash(text: str) -> None:
    assert diagnosis.parse_crash(text) is None


@given(st.text())
def test_no_output_breaks_the_diagnosis(text: str) -> None:
    diagnosis.parse_crash(text)
    diagnosis.parse_crash("Traceback (most recent call last):\n" + text)


def log(path: Path, text: str, age: float = 0.0) -> Path:
    path.write_text(text)
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def crash(message: str) -> str:
    return f'Traceback (most recent call last):\n  File "t.py", line 1, in <module>\n{message}\n'


def test_the_rank_that_wrote_its_traceback_first_is_the_root(tmp_path: Path) -> None:
    logs = {
        log(tmp_path / "rank0.log", crash("ValueError: second"), age=1): 0,
        log(tmp_path / "rank1.log", crash("ValueError: first"), age=5): 1,
    }
    root = root_cause(diagnosis.causes_of_exits([Exit(0, 1), Exit(1, 7)], logs))
    assert root is not None
    assert (root.rank, root.code, root.message) == (1, 7, "ValueError: first")


@pytest.mark.parametrize(
    "echo",
    [
        "RuntimeError: [/pytorch/gloo] Connection closed by peer [10.0.0.2]:3",
        "torch.distributed.DistNetworkError: Broken pipe",
        "DistBackendError: NCCL error: ncclRemoteError: A call failed",
        "RuntimeError: [c10d] recvValue failed on SocketImpl",
    ],
)
def test_what_a_rank_says_when_a_peer_is_gone_is_an_echo(tmp_path: Path, echo: str) -> None:
    logs = {
        log(tmp_path / "rank0.log", crash(echo), age=9): 0,
        log(tmp_path / "rank1.log", crash("ValueError: bad batch"), age=1): 1,
    }
    root = root_cause(diagnosis.causes_of_exits([Exit(0, 1), Exit(1, 1)], logs))
    assert root is not None
    assert root.message == "ValueError: bad batch"


def test_a_kill_for_memory_is_named(tmp_path: Path) -> None:
    (cause,) = diagnosis.causes_of_exits([Exit(2, -9)], {}, oom_kills=1)
    expected = "RankKilled: killed by SIGKILL, the kernel killed for memory (oom_kill +1) on rank 2"
    assert cause.headline() == expected
    assert cause.code == 1


def test_ranks_that_were_asked_to_end_are_no_cause() -> None:
    (cause,) = diagnosis.causes_of_exits([Exit(0, -15)], {})
    assert cause.secondary


def test_an_abort_with_a_traceback_is_told_by_the_traceback(tmp_path: Path) -> None:
    logs = {log(tmp_path / "rank0.log", "Fatal Python error: Aborted\n\nThread 0x1:\n"): 0}
    (cause,) = diagnosis.causes_of_exits([Exit(0, -6)], logs)
    assert cause.message == "Fatal Python error: Aborted"


def test_a_traceback_counts_without_an_exit_code_only_when_asked_for(tmp_path: Path) -> None:
    logs = {log(tmp_path / "rank0.log", crash("ValueError: x")): 0}
    assert diagnosis.causes_of_exits([], logs) == []
    assert [c.message for c in diagnosis.causes_of_exits([], logs, harvest=True)] == [
        "ValueError: x"
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("low 0\noom 3\noom_kill 2\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5),
        ("", 0),
    ],
)
def test_memory_kills_are_counted_in_both_kinds_of_cgroup(
    tmp_path: Path, text: str, count: int
) -> None:
    path = tmp_path / "memory.events"
    path.write_text(text)
    assert diagnosis.count_oom_kills([tmp_path / "none", path]) == count


def test_the_failure_text_spends_its_room_on_the_headline_and_the_end_of_the_traceback() -> None:
    frames = "\n".join(f"frame {n}" for n in range(1000))
    cause = Cause("TrainingError", "ValueError: x", 1, host="algo-2", rank=1, detail=frames)
    text = cause.text()
    assert text.startswith("TrainingError: ValueError: x on rank 1 [host algo-2]\n...")
    assert text.endswith("frame 999")
    assert len(text) == FAILURE_CHARS


@given(st.text(), st.text())
def test_the_failure_text_always_fits(message: str, detail: str) -> None:
    assert len(Cause("Kind", message, detail=detail).text()) <= FAILURE_CHARS


def test_an_existing_failure_file_is_kept_and_an_empty_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "output" / "failure"
    assert events.write_failure(path, Cause("A", "first"))
    assert not events.write_failure(path, Cause("B", "second"))
    assert path.read_text() == "A: first\n"
    path.write_text("")
    assert events.write_failure(path, Cause("B", "second"))


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("W1121 api.py:1028] Sending process 292 closing signal SIGTERM\n", True),
        ("[INFO] [launch.py:253:sigkill_handler] Killing subprocess 4883\n", True),
        ("W1121 run.py:874] Setting OMP_NUM_THREADS environment variable\n", False),
    ],
)
def test_a_runner_that_ends_its_ranks_is_noticed_by_its_own_words(
    tmp_path: Path, text: str, ending: bool
) -> None:
    log = tmp_path / "runner.log"
    log.write_text(text)
    assert diagnosis.is_ending_ranks(log) is ending
    assert not diagnosis.is_ending_ranks(tmp_path / "python-runner-has-none.log")
