"""Ranks watched from outside, on real processes without torch: what the watch says and does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher.peers import LonePeers
from launcher.ranks import STACK_SITE, HangWatch, RankLayout, StallReport, WatchOptions
from launcher.ranks.watch import show_stacks as stacks
from launcher.ranks.watch.rank_resources import read_use, system_call
from launcher.ranks.watch.stack_files import (
    GROUPS,
    SIGNAL_WAIT,
    STACK_SIGNAL,
    THREADS,
    StackFile,
    gather,
)

#: A stand-in for torch.distributed: what counts is the file that a frame is in.
C10D = """
import time
def all_reduce(data):
    while True:
        time.sleep(60)
"""
SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {site!r})
kind, rank = sys.argv[1], int(os.environ["RANK"])
print("begun", flush=True)
def work():
    if kind == "asleep":
        time.sleep(600)
    if kind == "spinning":
        while True:
            pass
    if kind == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "exit":
        sys.exit(0)
if rank == 1:
    work()
from torch.distributed.distributed_c10d import all_reduce
all_reduce(1)
"""


@contextmanager
def ranks_of(tmp_path: Path, kind: str, number: int = 2) -> Iterator[list[subprocess.Popen[str]]]:
    site = tmp_path / "site-packages"
    (site / "torch" / "distributed").mkdir(parents=True)
    for folder in (site / "torch", site / "torch" / "distributed"):
        (folder / "__init__.py").touch()
    (site / "torch" / "distributed" / "distributed_c10d.py").write_text(C10D, encoding="utf-8")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(site=str(site)), encoding="utf-8")
    (tmp_path / "stacks").mkdir()
    env = {
        **os.environ, "PYTHONPATH": str(STACK_SITE), "LAUNCH_SCRATCH": str(tmp_path),
        "LAUNCH_JOB_ID": tmp_path.name, "WORLD_SIZE": str(number),
    }  # fmt: skip
    ranks = []
    try:
        for rank in range(number):
            rank_env = {**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            argv = [sys.executable, str(script), kind]
            process = subprocess.Popen(argv, env=rank_env, stdout=subprocess.PIPE, text=True)
            ranks.append(process)
        for process in ranks:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
        yield ranks
    finally:
        for process in ranks:
            process.kill()
            process.communicate()


def until(what: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


@contextmanager
def watching(
    tmp_path: Path, ranks: list[subprocess.Popen[str]], hang: float
) -> Iterator[list[StallReport]]:
    layout = RankLayout(0, (len(ranks),), ("h0",), "127.0.0.1", 1, "job")
    options = WatchOptions(1.0, hang, False, tmp_path / "stacks", tmp_path / "stalls")
    reports: list[StallReport] = []
    watch = HangWatch(
        options, layout, LonePeers(), lambda: [r.pid for r in ranks if r.poll() is None],
        report=reports.append, over=lambda: None,
    )  # fmt: skip
    watch.start()
    try:
        yield reports
    finally:
        watch.stop()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("asleep", "`time.sleep(600)`"),
        ("spinning", "in work"),
        ("stopped", "stopped by a signal"),
        ("exit", "has ended"),
    ],
)
def test_the_rank_that_others_wait_for_is_named_and_hangs(
    tmp_path: Path, kind: str, words: str
) -> None:
    # The watch has to see a rank before it can know that it has gone.
    with ranks_of(tmp_path, kind if kind != "exit" else "asleep") as ranks:
        with watching(tmp_path, ranks, 2.0) as reports:
            if kind == "exit":
                until(lambda: (tmp_path / "stacks" / f"{ranks[1].pid}.threads").exists())
                until(lambda: reports)
                reports.clear()
                ranks[1].kill()
                ranks[1].wait()
                until(lambda: any("has ended" in report.text for report in reports))
            until(lambda: any(report.kind == "hang" for report in reports))
        last = reports[-1]
        assert last.ranks == (1,)
        assert "all_reduce at train.py:" in last.text
        assert words in last.text
        folders = sorted((tmp_path / "stalls").iterdir())
        names = sorted(path.name for path in folders[-1].iterdir())
        assert names == ["0-odd-rank1.txt", "rank0.txt"]
        assert "all_reduce" in (folders[-1] / "rank0.txt").read_text(encoding="utf-8")


def test_stacks_are_printed_from_outside_and_harm_nothing(tmp_path: Path) -> None:
    with ranks_of(tmp_path, "asleep") as ranks:
        until(lambda: len(stacks.find_watched(tmp_path.name)) == 2)
        output = io.StringIO()
        for _ in range(20):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                assert stacks.print_stacks([tmp_path.name, "--json"], {}) == 0
        rows: list[dict[str, Any]] = json.loads(output.getvalue())
        assert [row["rank"] for row in rows] == [0, 1]
        assert "in all_reduce" in rows[0]["stacks"]
        assert "in work" in rows[1]["stacks"]
        assert [process.poll() for process in ranks] == [None, None]


def test_no_ranks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stacks.print_stacks([tmp_path.name], {}) == 1
    assert "run here" in capsys.readouterr().out


def rank_env(tmp_path: Path, number: int = 0) -> dict[str, str]:
    (tmp_path / "stacks").mkdir(exist_ok=True)
    return {
        **os.environ, "PYTHONPATH": str(STACK_SITE), "LAUNCH_SCRATCH": str(tmp_path),
        "RANK": str(number), "LOCAL_RANK": str(number),
    }  # fmt: skip


@contextmanager
def python_rank(
    tmp_path: Path, code: str, program: str = sys.executable
) -> Iterator[subprocess.Popen[str]]:
    """One that has said its first word."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    argv = [program, "-c", code]
    with subprocess.Popen(argv, env=rank_env(tmp_path), **pipes) as rank:
        try:
            assert rank.stdout is not None
            assert rank.stdout.readline() == "begun\n"
            yield rank
        finally:
            rank.kill()


#: What makes the thread begin, without torch.
TORCH = "sys.meta_path[0].find_spec('torch.distributed.distributed_c10d')"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_question_that_comes_while_a_rank_ends_or_replaces_itself_harms_nothing(
    tmp_path: Path, replaced: bool
) -> None:
    # The shell reads its line and then ends with 7, as nothing else here does.
    end = "os.execl('/bin/sh', 'sh', '-c', 'read x; exit 7')" if replaced else "sys.exit(7)"
    code = f"import os, sys; {TORCH}; print('begun', flush=True); os.read(0, 1); {end}"
    with python_rank(tmp_path, code) as rank:
        file = StackFile(tmp_path / "stacks", rank.pid, patience=0.0)
        assert file.ask()
        assert rank.stdin is not None
        rank.stdin.write("\n\n")
        rank.stdin.flush()
        while rank.poll() is None:
            file.ask()
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank.pid, STACK_SIGNAL)  # also without a look for a handler
            # Each signal interrupts the rank: without a pause it would not come to its end.
            time.sleep(0.001)
        assert rank.returncode == 7


WAITS = {
    "pause": "signal.pause()",
    "sigwait": "signal.sigwait({signal.SIGUSR1})",
    "sigwaitinfo": "signal.sigwaitinfo({signal.SIGUSR1})",
    "sleep": "time.sleep(600)",
    "select": "select.select([], [], [], 600)",
    "read": "os.read(0, 1)",
}


@pytest.mark.parametrize("torch", [True, False])
@pytest.mark.parametrize("call", list(WAITS))
def test_being_looked_at_interrupts_no_call_of_the_script(
    tmp_path: Path, call: str, torch: bool
) -> None:
    code = (
        f"import os, select, signal, sys, time; {TORCH if torch else ''}\n"
        f"print('begun', flush=True); {WAITS[call]}; print('went on', flush=True)"
    )
    for_a_signal = call.startswith(("pause", "sigwait"))
    with python_rank(tmp_path, code) as rank:
        # It sleeps in the call itself, and not on its way there.
        until(
            lambda: (
                (use := read_use(rank.pid))
                and use.state == "S"
                and bool(SIGNAL_WAIT.search(system_call(rank.pid))) == for_a_signal
            )
        )
        file = StackFile(tmp_path / "stacks", rank.pid, patience=0.0)
        for _ in range(20):
            file.ask()
            time.sleep(0.01)
        # Without the thread only the signal is left, which a rank that waits for one is spared.
        if torch or not for_a_signal:
            until(file.main_stack)
        else:
            assert [file.main_stack() for _ in range(3)] == [()] * 3
        assert rank.poll() is None
        rank.kill()
        assert rank.stdout is not None
        assert rank.stdout.read() == ""


def test_a_main_thread_that_keeps_the_gil_is_seen_by_the_signal(tmp_path: Path) -> None:
    # A C call of Python's own that lasts for hours and never lets another thread run.
    code = f"import sys; {TORCH}; print('begun', flush=True); pow(3, 10**10)"
    with python_rank(tmp_path, code) as rank:
        file = StackFile(tmp_path / "stacks", rank.pid, patience=0.2)
        found: list[str] = []

        def seen() -> bool:
            file.ask()
            found.extend(frame.text() for frame in file.main_stack())
            return bool(found)

        until(seen)
        assert found == ["<string>:1 in <module>"]
        assert rank.poll() is None


def test_a_dump_that_still_grows_is_no_stack_yet(tmp_path: Path) -> None:
    dump = (
        'Thread 0x01 (most recent call first):\n  File "rank_answers.py", line 52 in answer\n\n'
        'Current thread 0x02 (most recent call first):\n  File "train.py", line 5 in step\n'
        '  File "train.py", line 9 in <module>\n'
    )
    code = "import time; print('begun', flush=True); time.sleep(600)"
    with python_rank(tmp_path, code) as rank:
        file = StackFile(tmp_path / "stacks", rank.pid, patience=0.0)
        assert not file.ask()  # by the signal: without torch it has no thread
        until(lambda: file.read(THREADS).count("\n") >= 2)
        threads = tmp_path / "stacks" / f"{rank.pid}.threads"
        for end in range(0, len(dump), 7):
            threads.write_text(dump[:end])
            assert file.main_stack() == ()
        threads.write_text(dump)
        assert file.main_stack() == ()
        assert [frame.function for frame in file.main_stack()] == ["step", "<module>"]


@pytest.mark.parametrize("kind", ["link", "another's file"])
def test_what_a_rank_names_and_does_not_own_is_neither_read_nor_cut(
    tmp_path: Path, kind: str
) -> None:
    """`launch stacks` by root asks a process that says by itself where its files are."""
    code = f"import sys, time; {TORCH}; print('begun', flush=True); time.sleep(600)"
    victim = tmp_path / "victim"
    victim.write_text("secret")
    with python_rank(tmp_path, code) as rank:
        file = StackFile(tmp_path / "stacks", rank.pid)
        assert file.ask()
        until(file.main_stack)
        answer = tmp_path / "stacks" / str(rank.pid)
        answer.unlink()
        if kind == "link":
            answer.symlink_to(victim)
        else:
            os.link(victim, answer)
            os.chown(victim, 4711, 4711)
        assert file.read() == ""
        assert not file.ask()
        assert victim.read_text() == "secret"


def test_a_fork_of_a_rank_leaves_its_pipe_alone(tmp_path: Path) -> None:
    # As a worker that imports torch before the rank itself does.
    code = (
        "import os, sys, time\n"
        f"if os.fork() == 0: {TORCH}; os._exit(0)\n"
        f"os.wait(); {TORCH}; print('begun', flush=True); time.sleep(600)"
    )
    with python_rank(tmp_path, code) as rank:
        file = StackFile(tmp_path / "stacks", rank.pid)
        assert file.ask()
        until(file.main_stack)
        names = sorted(path.name for path in (tmp_path / "stacks").iterdir())
        assert names == [f"{rank.pid}{end}" for end in ("", ".ask", ".groups", ".threads")]


def test_without_torch_a_rank_lists_no_collectives(tmp_path: Path) -> None:
    code = f"import sys, time; {TORCH}; print('begun', flush=True); time.sleep(600)"
    with python_rank(tmp_path, code) as rank:
        file = StackFile(tmp_path / "stacks", rank.pid)
        assert json.loads(gather({"0": file}, GROUPS)["0"]) == {"groups": {}}


@pytest.mark.parametrize("flags", [[], ["-E"], ["-I"]])
def test_the_images_own_sitecustomize_runs_as_without_ours(
    tmp_path: Path, flags: list[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import sys; print('own', __name__)\n", "utf-8")
    code = "import sys; print(sys.path[1:], 'sitecustomize' in sys.modules)"

    def run(path: str, **extra: str) -> str:
        env = {**os.environ, "PYTHONPATH": path, **extra}
        argv = [sys.executable, *flags, "-c", code]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout

    rank = {"RANK": "0", "LOCAL_RANK": "0", "LAUNCH_SCRATCH": str(tmp_path)}
    assert run(f"{STACK_SITE}:{own}", **rank) == run(str(own))


def test_a_failing_sitecustomize_fails_as_without_ours(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise RuntimeError('own')\n", "utf-8")
    for path in (str(tmp_path), f"{STACK_SITE}:{tmp_path}"):
        env = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", "print('went on')"], env=env, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, "went on\n")
        assert "RuntimeError: own" in done.stderr


def test_the_images_own_sitecustomize_runs_where_ours_cannot(tmp_path: Path) -> None:
    """As with a Python whose faulthandler is another one: 3.14 was thought to have a new option."""
    (tmp_path / "stacks").mkdir()
    (tmp_path / "sitecustomize.py").write_text("print('own')\n", "utf-8")
    code = "import faulthandler, sys; del faulthandler.register\n"
    code += "try: import sitecustomize\nexcept AttributeError: print('ours failed')"
    rank = {"RANK": "0", "LOCAL_RANK": "0", "LAUNCH_SCRATCH": str(tmp_path)}
    env = {**os.environ, "PYTHONPATH": f"{STACK_SITE}:{tmp_path}", **rank}
    argv = [sys.executable, "-S", "-c", code]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "own\nours failed\n"


def test_what_a_process_uses_is_read() -> None:
    use = read_use(os.getpid())
    assert use is not None
    assert use.state == "R"
    assert use.cpu > 0
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(signal.SIGSTOP)
        until(lambda: (read_use(process.pid) or use).state == "T")
        process.kill()
        process.wait()
        assert read_use(process.pid) is None
