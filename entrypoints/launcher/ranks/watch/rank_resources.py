"""What a rank has beside its stack: CPU time, I/O, connections that get no answer, GPU memory.

What it uses comes from /proc/PID; connections from its net/tcp and the process's open files; what
the driver says of this node's GPUs, in one question to nvidia-smi.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.ranks.rank_processes import PROC, read_proc_text

TICKS = os.sysconf("SC_CLK_TCK")
#: Unanswered sendings or probes of one segment: with the kernel's doubling, some seconds.
RETRIES = 3
ESTABLISHED, SYN_SENT = "01", "02"
QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used,memory.total"]


@dataclass(frozen=True)
class ProcessUse:
    """What a process has used so far: CPU seconds, seconds ready without a CPU, bytes, faults."""

    state: str = "?"
    cpu: float = 0.0
    main_cpu: float = 0.0
    ready: float = 0.0
    io: int = 0
    faults: int = 0


def read_use(pid: int) -> ProcessUse | None:
    """From /proc; None when the process has ended. What may not be read counts as 0."""
    stat = _stat(pid, "stat")
    if stat is None or stat[0] in "ZX":
        return None
    main = _stat(pid, f"task/{pid}/stat")
    return ProcessUse(
        state=stat[0],
        cpu=(int(stat[11]) + int(stat[12])) / TICKS,
        main_cpu=(int(main[11]) + int(main[12])) / TICKS if main else 0.0,
        ready=_ready(pid),
        io=_io(pid),
        faults=int(stat[9]),
    )


def _stat(pid: int, name: str) -> list[str] | None:
    """The fields of a stat file from the state on (proc(5): the name before may hold anything)."""
    text = read_proc_text(pid, name)
    return text[text.rindex(")") + 2 :].split() if text else None


def _ready(pid: int) -> float:
    """Seconds for which the main thread could have run but had no CPU."""
    try:
        return int(read_proc_text(pid, "schedstat").split()[1]) / 1e9
    except (IndexError, ValueError):
        return 0.0


def _io(pid: int) -> int:
    text = read_proc_text(pid, "io")
    values = dict(line.split(": ") for line in text.splitlines() if ": " in line)
    return int(values.get("rchar", 0)) + int(values.get("wchar", 0))


def system_call(pid: int) -> str:
    """Where in the kernel the main thread waits, as far as it may be read: ``futex_wait_queue``."""
    name = read_proc_text(pid, "wchan").strip()
    return "" if name in ("0", "") else name


def tracer(pid: int) -> int:
    """The debugger that holds a process; 0 for none."""
    text = read_proc_text(pid, "status")
    row = next((line for line in text.splitlines() if line.startswith("TracerPid:")), "")
    return int(row.split()[1]) if row else 0


def silent_connections(pid: int) -> list[str]:
    """The remote addresses that have not answered a process for some seconds."""
    inodes = _socket_inodes(pid)
    remotes = {
        remote
        for inode, state, retries, remote in _connections(pid)
        if inode in inodes and retries >= RETRIES and state in (ESTABLISHED, SYN_SENT)
    }
    return sorted(remotes)


def _socket_inodes(pid: int) -> set[str]:
    inodes: set[str] = set()
    try:
        links = list((PROC / str(pid) / "fd").iterdir())
    except OSError:
        return inodes
    for link in links:
        try:
            target = str(link.readlink())
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    return inodes


def _connections(pid: int) -> Iterator[tuple[str, str, int, str]]:
    for name in ("tcp", "tcp6"):
        path = Path(PROC, str(pid), "net", name)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            cells = line.split()
            if len(cells) > 9:
                # What was sent in vain is counted as retransmissions (hexadecimal); what this
                # machine itself would not let out (a filter, a lost route) as unanswered probes
                # (net/ipv4/tcp_ipv4.c, get_tcp4_sock: icsk_probes_out). A peer that reads nothing
                # answers probes.
                retries = int(cells[6], 16) + int(cells[8])
                yield cells[9], cells[3], retries, _address(cells[2])


def _address(text: str) -> str:
    """``0100007F:1F90`` is 127.0.0.1:8080: each four bytes in the machine's own order."""
    address, port = text.split(":")
    raw = bytes.fromhex(address)
    # x86-64 and arm64 are both little-endian.
    raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    if len(raw) == 16 and raw[:12] == bytes(10) + b"\xff\xff":
        raw = raw[12:]
    host = socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
    return f"{host}:{int(port, 16)}"


def query_gpus() -> list[tuple[int, int, int]]:
    """(utilisation in %, memory used, memory total in MiB) of each GPU; [] without a driver."""
    try:
        answer = subprocess.run(
            [*QUERY, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(answer.stdout) if answer.returncode == 0 else []


def parse_gpus(text: str) -> list[tuple[int, int, int]]:
    """The rows of nvidia-smi's CSV; a GPU that does not report counts as busy."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and all(cell.isdecimal() for cell in cells):
            rows.append((int(cells[0]), int(cells[1]), int(cells[2])))
        elif line.strip():
            rows.append((100, 0, 1))
    return rows
