"""`launch stacks [JOB]`: where every rank on this machine stands now, from inside or outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.causes import FAILED, OK
from launcher.options import parse_flags
from launcher.ranks.rank_processes import PROC, read_environment
from launcher.ranks.watch.call_stack import find_place, main_stack
from launcher.ranks.watch.stack_files import THREADS, StackFile, gather


@dataclass(frozen=True)
class WatchedRank:
    """A process that can show its stacks. `job` is the launcher's name of its job."""

    job: str
    rank: int
    pid: int
    file: StackFile


def find_watched(job: str) -> list[WatchedRank]:
    """The ranks of a job ("": of all jobs) that this user may signal, in the order of ranks."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        env = read_environment(int(entry.name))
        rank = env.get("RANK") or env.get("OMPI_COMM_WORLD_RANK") or ""
        if not rank.isdecimal() or "LAUNCH_SCRATCH" not in env:
            continue
        if job and env.get("LAUNCH_JOB_ID") != job:
            continue
        watched = _watched(int(entry.name), env, int(rank))
        if watched is not None:
            found.append(watched)
    return sorted(found, key=lambda one: (one.job, one.rank, one.pid))


def _watched(pid: int, env: Mapping[str, str], rank: int) -> WatchedRank | None:
    """None for a rank's helpers, which have no file of their own.

    In a container the process has another root and another number than those seen from here.
    """
    inner = _inner_number(pid)
    directory = Path(f"{PROC}/{pid}/root{env['LAUNCH_SCRATCH']}/stacks")
    try:
        if not (directory / f"{inner}.threads").exists():
            return None
    except OSError:
        return None  # another user's process
    file = StackFile(directory, pid, inner)
    return WatchedRank(env.get("LAUNCH_JOB_ID", ""), rank, pid, file)


def _inner_number(pid: int) -> int:
    """A process's number in its own PID namespace: the last one of NSpid."""
    try:
        text = (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return pid
    line = next((line for line in text.splitlines() if line.startswith("NSpid:")), "")
    return int(line.split()[-1]) if line else pid


def print_stacks(words: Sequence[str], env: Mapping[str, str]) -> int:
    """Print all threads of all ranks here; 1 where there are no ranks."""
    flags, given = parse_flags(words, words=1)
    job = given[0] if given else env.get("LAUNCH_JOB_ID", "")
    ranks = find_watched(job)
    texts = gather({str(one.pid): one.file for one in ranks}, THREADS)
    if "json" in flags:
        rows = [
            {"job": one.job, "rank": one.rank, "pid": one.pid, "stacks": texts.get(str(one.pid))}
            for one in ranks
        ]
        print(json.dumps(rows, indent=1))
        return OK if ranks else FAILED
    for one in ranks:
        text = texts.get(str(one.pid), "")
        place = find_place(main_stack(text)).where
        print(f"== rank {one.rank} of {one.job}, pid {one.pid}: {place or 'gives no answer'}")
        print(text)
    if not ranks:
        print(f"no ranks of {'job ' + job if job else 'any job'} run here")
    return OK if ranks else FAILED
