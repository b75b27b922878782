"""Which rank failed first, and what it said: from exit codes and the ranks' own log files."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.causes import FAILED, Cause

TAIL_BYTES = 64 * 1024
#: Of what an aborting process writes: the first threads of a faulthandler dump, the first frames
#: of a C++ exception.
ABORT_CHARS = 2000

#: torch >= 2.4 puts this before every line of an uncaught exception's traceback.
_RANK_PREFIX = re.compile(r"^\[rank\d+\]: ?", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):"
#: What a process writes before SIGABRT: faulthandler, or libstdc++ (libsupc++/vterminate.cc).
_ABORT = re.compile(
    r"(?P<python>^Fatal Python error: .*)|terminate called (?:without an active exception"
    r"|recursively|after throwing an instance of .*(?:\n +what\(\): .*)?)",
    re.MULTILINE,
)
#: PyTorch's threads end so when the interpreter goes away under an open process group
#: (https://github.com/pytorch/pytorch/issues/190489).
_NO_EXCEPTION = "terminate called without an active exception"
_LEFT_OPEN = "(no torch.distributed.destroy_process_group() at the script's end?)"

#: An exit of Python's without a traceback. A file that is no Python, or can not be read; argparse.
_SYNTAX = re.compile(
    r'^  File "(?P<file>.+)", line (?P<line>\d+)\n(?:^.*\n){0,4}?'
    r"^(?P<error>(?:Syntax|Indentation|Tab)Error: .*)$",
    re.MULTILINE,
)
_UNREADABLE = re.compile(
    r"^\S*: (?P<error>can't (?:open file|find '__main__' module).*)$", re.MULTILINE
)
_ARGPARSE = re.compile(r"^(?P<error>[^\s:][^:\n]*: error: .*)$", re.MULTILINE)
#: Of the last line, which may be anything.
LAST_LINE_CHARS = 300
_FATAL = "Fatal Python error: "
#: The thread that crashed, which faulthandler writes among all others, the main thread last.
_CURRENT_THREAD = re.compile(
    r"^Current thread .*\(most recent call first\):\n(?:  .*\n?)+", re.MULTILINE
)
#: Signals of a defect in native code, for which faulthandler writes where Python was.
_CRASH_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
)

#: What a healthy rank says when another one has gone away (gloo, NCCL, TCPStore).
_SECONDARY = re.compile(
    r"Connection closed by peer|Connection reset by peer|Connection refused|Broken pipe"
    r"|remote process exited|ncclRemoteError|recvValue failed|Socket Timeout|Stop_waiting"
    r"|Timed out waiting|Gloo connectFullMesh failed|Watchdog caught collective operation timeout"
    r"|ProcessGroup.*aborted"
)

#: What torchrun and deepspeed say when a rank has failed and they begin to end the others
#: (torch/distributed/elastic/multiprocessing/api.py, deepspeed/launcher/launch.py).
_ENDING = re.compile(rb"Sending process \d+ closing signal|Killing subprocess \d+")

_CGROUP_FILES = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)


@dataclass(frozen=True)
class Exit:
    """How one rank ended: its exit code as Python reports it (negative: a signal)."""

    rank: int
    code: int


@dataclass(frozen=True)
class LastWords:
    """What a rank without a traceback wrote at its end: the message, and the lines before it."""

    message: str
    lines: str
    certain: bool = False


@dataclass(frozen=True)
class Crash:
    """How a rank's log ends. `age` is seconds since the log was last written."""

    message: str
    frames: str
    age: float


def read_crash(path: Path) -> Crash | None:
    """The traceback, or an abort's words, at the end of a log file; None when there is none."""
    text = _tail(path)
    found = parse_crash(text) if text else None
    if found is None:
        return None
    try:
        written = path.stat().st_mtime
    except OSError:
        return None
    return Crash(*found, age=max(0.0, time.time() - written))


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def parse_last_words(text: str) -> LastWords | None:
    """What a rank said that ended without a traceback; None where it said nothing at all.

    Python reports a syntax error and a script that it can not open so, argparse a wrong argument;
    of sys.exit("text") only the text is left, as the last line.
    """
    text = _RANK_PREFIX.sub("", text).rstrip()
    syntax = _last_match(_SYNTAX, text)
    if syntax:
        message = f"{syntax['error']} ({syntax['file']}, line {syntax['line']})"
        return LastWords(message, syntax[0], certain=True)
    for pattern in (_UNREADABLE, _ARGPARSE):
        match = _last_match(pattern, text)
        if match:
            return LastWords(match["error"], match[0], certain=True)
    lines = [line for line in text[-2000:].splitlines() if line.strip()]
    if not lines:
        return None
    return LastWords(lines[-1].strip()[:LAST_LINE_CHARS], "\n".join(lines[-10:]))


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last one, if no more than a few lines follow it: warnings at exit, not a whole run."""
    matches = list(pattern.finditer(text))
    return matches[-1] if matches and text.count("\n", matches[-1].end()) <= 10 else None


def _last_words(paths: Sequence[Path]) -> LastWords | None:
    """Of a rank's files: a message that says what it is, else what stands on stderr, else stdout.

    sys.exit("text") goes to stderr, where runners keep that apart.
    """
    said = [(path.name != "stderr.log", parse_last_words(_tail(path))) for path in paths]
    ordered = sorted(
        ((not words.certain, late, words) for late, words in said if words), key=lambda x: x[:2]
    )
    return ordered[0][2] if ordered else None


def parse_crash(text: str) -> tuple[str, str] | None:
    """(last line of the exception, its frames) of the last traceback in `text`.

    Else what the C++ runtime said before it aborted; after a traceback its words are an echo, from
    threads of a process that is ending already.
    """
    text = _RANK_PREFIX.sub("", text)
    start = text.rfind(_TRACEBACK)
    abort = _ABORT.search(text, max(start, 0))
    if abort and (abort["python"] or start < 0):
        words = " ".join(abort[0].split())
        if words == _NO_EXCEPTION:
            words = f"{words} {_LEFT_OPEN}"
        rest = text[abort.start() :]
        current = _CURRENT_THREAD.search(rest)
        if abort["python"] and current and current.end() > ABORT_CHARS:
            rest = f"{words}\n\n{current[0]}"
        return words, rest[:ABORT_CHARS].rstrip()
    if start < 0:
        return None
    block: list[str] = []
    message = ""
    for line in text[start:].splitlines():
        if message:
            # What follows may be other programs' words, unless the exception announces more.
            if message.endswith(":"):
                message = f"{message} {line.strip()}"
            break
        block.append(line)
        if line != _TRACEBACK and line and not line[0].isspace():
            message = line.strip()
    return (message, "\n".join(block)) if message else None


def causes_of_exits(
    exits: Sequence[Exit], logs: Mapping[Path, int], *, oom_kills: int = 0, harvest: bool = False
) -> list[Cause]:
    """One cause for each rank that failed.

    `exits` are the ranks whose code is known. With `harvest` a traceback alone counts: the ranks
    were ended by us before their runner could say more. `oom_kills` is how often the kernel
    killed for memory while the ranks ran.
    """
    crashes = _crashes(logs)
    failed = {item.rank: item.code for item in exits if item.code != 0}
    if harvest:
        for rank in crashes:
            failed.setdefault(rank, FAILED)
    files: dict[int, list[Path]] = {}
    for path, rank in logs.items():
        files.setdefault(rank, []).append(path)
    return [
        _cause(rank, code, crashes.get(rank), files.get(rank, []), oom_kills)
        for rank, code in failed.items()
    ]


def _crashes(logs: Mapping[Path, int]) -> dict[int, Crash]:
    found: dict[int, Crash] = {}
    for path, rank in logs.items():
        crash = read_crash(path)
        if crash and (rank not in found or crash.age < found[rank].age):
            found[rank] = crash
    return found


def _cause(
    rank: int, code: int, crash: Crash | None, files: Sequence[Path], oom_kills: int
) -> Cause:
    age = crash.age if crash else 0.0
    if code < 0 and not (crash and -code == signal.SIGABRT):
        name = signal_name(-code)
        oom = f", the kernel killed for memory (oom_kill +{oom_kills})" if oom_kills else ""
        # Ranks that we or their runner ended are no cause of anything.
        ended = -code == signal.SIGTERM
        fatal = crash is not None and crash.message.startswith(_FATAL) and -code in _CRASH_SIGNALS
        stack = crash.frames if crash and fatal else ""
        place = _innermost_frame(stack)
        text = f"killed by {name}{oom}{f' in {place}' if place else ''}"
        return Cause(
            "RankKilled",
            text,
            FAILED,
            rank=rank,
            age=age if fatal else 0.0,
            detail=stack,
            secondary=ended,
        )
    if crash is None:
        words = _last_words(files)
        if words is None:
            return Cause("TrainingError", f"exit code {code}, no traceback", code, rank=rank)
        text = words.message if words.certain else f"exit code {code}: {words.message}"
        return Cause("TrainingError", text, code, rank=rank, detail=words.lines)
    return Cause(
        "TrainingError",
        crash.message,
        code if code > 0 else FAILED,
        rank=rank,
        age=age,
        detail=crash.frames,
        secondary=bool(_SECONDARY.search(crash.message)),
    )


def _innermost_frame(stack: str) -> str:
    """Where the crashing thread was, of a dump of faulthandler's: 'train.py, line 3 in step'."""
    thread = _CURRENT_THREAD.search(stack)
    match = re.search(r'^  File "(.+)", line (\d+) in (.+)$', thread[0] if thread else "", re.M)
    return f"{match[1]}, line {match[2]} in {match[3]}" if match else ""


def is_ending_ranks(runner_log: Path) -> bool:
    """Whether the runner has noticed a failed rank: a killed one leaves no traceback of its own."""
    try:
        return bool(_ENDING.search(runner_log.read_bytes()))
    except OSError:
        return False


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def count_oom_kills(files: Sequence[Path] = _CGROUP_FILES) -> int:
    """How often the kernel has killed in this cgroup for memory (cgroup v2, else v1)."""
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        if match:
            return int(match.group(1))
    return 0
