"""Ten ways in which a job stops, five in which it only seems to, and what the launcher says.

    python -m bench.hangs                            # gloo on CPUs, the ways that need no GPU
    python -m bench.hangs --gpus 2                   # NCCL, all ten
    python -m bench.hangs --only asleep,stopped --ranks 4

Run it with a Python that has torch. Two launchers on this machine are the two nodes of each job.
Prints one row a way: seconds from the fault to the first report, which ranks it names, its text.
Exits with 1 where a wrong rank is named, or a pause is called a hang.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = [sys.executable, "-I", "-S", str(ROOT / "entrypoints" / "launcher" / "__main__.py")]
SCRIPT = ROOT / "bench" / "hang_script.py"
NODES = ("localhost", "127.0.0.1")

#: What the report has to say of each way; "victim" also has to be the one rank that it names.
FAULTS = {
    "asleep": r"asleep `time\.sleep\(36000\)`",
    "spinning": r"in spinning",
    "stopped": r"stopped by a signal",
    "left-out": r"ended|destroy_process_group",
    "order": r"broadcast.*all_gather|all_gather.*broadcast",
    "shape": r"all_gather|size doesn't match",
    "loader": r"data loader",
    "barrier": r"barrier",
    "exit": r"ended",
    "starved": r"slower|starved",
    "network": r"no answer from",
    "kernel": r"has not begun with it",
}
#: No hang: the words that a report may say, should there be one.
PAUSES = {
    "evaluation": r"in (evaluation|layer|activation|work|<genexpr>)",
    "checkpoint": r"in checkpoint",
    "compilation": r"is at work|in compilation",
    "debugger": r"in an interactive debugger|held by a debugger",
    "loading": r"in loading",
}
NO_NAME = {"shape", "network", "order"}
NEED_GPU = {"kernel"}


@dataclass
class HangRun:
    """What came of one way."""

    kind: str
    seconds: float
    event: str
    ranks: list[int]
    text: str
    code: int
    right: bool


def main() -> int:
    """One row a way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpus", type=int, default=0, help="how many; 0: gloo on CPUs")
    parser.add_argument("--ranks", type=int, default=2, help="without GPUs: how many")
    parser.add_argument("--only", default="", help="some of the ways, by name")
    parser.add_argument("--after", type=int, default=30, help="--wait-report")
    parser.add_argument("--hang", type=int, default=45, help="--hang-timeout")
    parser.add_argument("--out", type=Path, help="for the launchers' own output")
    chosen = parser.parse_args()
    kinds = chosen.only.split(",") if chosen.only else [*FAULTS, *PAUSES]
    if not chosen.gpus:
        kinds = [kind for kind in kinds if kind not in NEED_GPU]
    runs = []
    for kind in kinds:
        try:
            run = run_kind(kind, chosen)
        except NotHereError as error:
            print(f"{kind:12} not run: {error}", flush=True)
            continue
        runs.append(run)
        ranks = ",".join(map(str, run.ranks))
        print(
            f"{'ok   ' if run.right else 'WRONG'} {kind:12} {run.seconds:6.1f} s  {run.event:10} "
            f"rank {ranks or '-':5} code {run.code:4}  {run.text[:700]}",
            flush=True,
        )
    print(f"{sum(run.right for run in runs)} of {len(runs)} right")
    return int(not all(run.right for run in runs))


class NotHereError(Exception):
    """This machine has not what a way needs."""


def run_kind(kind: str, chosen: argparse.Namespace) -> HangRun:
    """Start both nodes, wait for what they say, end them."""
    ranks = chosen.gpus or chosen.ranks
    each = ranks // len(NODES)
    work = Path(tempfile.mkdtemp(prefix="bench-hangs-"))
    victim = 0 if kind == "evaluation" else ranks - 1
    pause = kind in PAUSES
    # An hour's habits in seconds: pauses shrink as the limits do (600 s for a hang).
    scale = chosen.hang / 600
    after = min(chosen.after, max(2, chosen.hang // 20)) if pause else chosen.after
    options = [f"--wait-report={after}", f"--hang-timeout={chosen.hang}", "--on-hang=stop"]
    options += [f"--hosts={','.join(NODES)}", f"--job=hang-{kind}-{os.getpid()}", f"--nproc={each}"]
    options += [f"--port={free_port()}", f"--gate-port={free_port()}", "--grace=5"]
    words = [str(SCRIPT), kind, f"--victim={victim}", f"--scale={scale}"]
    words += ["--steps", "100000" if kind in ("starved", "network") else "20"]
    cut = NetworkCut() if kind == "network" else None
    logs = [work / f"node{number}.log" for number in range(len(NODES))]
    nodes = []
    try:
        for number, log in enumerate(logs):
            env = dict(os.environ)
            if chosen.gpus:
                first = number * each
                env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first, first + each)))
            argv = [*LAUNCH, "local", *options, f"--node-rank={number}", f"--log-dir={work}"]
            with log.open("wb") as sink:
                nodes.append(
                    subprocess.Popen(
                        [*argv, "--", *words], stdout=sink, stderr=subprocess.STDOUT, env=env
                    )
                )
        return watch(kind, nodes, logs, chosen, victim, cut)
    finally:
        if cut is not None:
            cut.mend()
        for node in nodes:
            if node.poll() is None:
                node.terminate()
        for node in nodes:
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        if chosen.out:
            chosen.out.mkdir(parents=True, exist_ok=True)
            for number, log in enumerate(logs):
                shutil.copy(log, chosen.out / f"{kind}-{number}.log")
        shutil.rmtree(work, ignore_errors=True)


def watch(
    kind: str,
    nodes: Sequence[subprocess.Popen[bytes]],
    logs: Sequence[Path],
    chosen: argparse.Namespace,
    victim: int,
    cut: NetworkCut | None,
) -> HangRun:
    """Until the job has ended, or has been watched for long enough."""
    pause = kind in PAUSES
    limit = 150 + 3 * chosen.hang
    began = time.time()
    fault = 0.0
    while time.time() - began < limit and any(node.poll() is None for node in nodes):
        time.sleep(0.2)
        text = "".join(log.read_text(errors="replace") for log in logs)
        mark = re.search(r"FAULT (\d+\.\d+)", text)
        if mark and not fault:
            fault = float(mark[1])
        if cut is not None and not fault and text.count("trains, pid") >= 2:
            time.sleep(3)
            cut.cut(re.findall(r"trains, pid (\d+)", text))
            fault = time.time()
        if kind == "starved" and any(e["event"] == "straggler" for e in events(text)):
            break
    text = "".join(log.read_text(errors="replace") for log in logs)
    reports = [e for e in events(text) if e["event"] in ("waiting", "hang", "straggler", "failed")]
    reports = [e for e in reports if "text" in e or "cause" in e]
    code = max((node.poll() or 0) for node in nodes)
    first: dict[str, Any] = {"t": time.time(), "event": "nothing", "text": ""}
    first = next(iter(reports), first)
    said = str(first.get("text") or first.get("cause"))
    named = [int(rank) for rank in first.get("ranks", re.findall(r"rank (\d+) \[host", said))]
    seconds = first["t"] - fault if fault else -1.0
    if pause:
        hung = [e for e in reports if e["event"] in ("hang", "failed")]
        right = not hung and code == 0 and (not reports or bool(re.search(PAUSES[kind], said)))
    else:
        right = bool(re.search(FAULTS[kind], said)) and (kind in NO_NAME or named == [victim])
    return HangRun(kind, seconds, str(first["event"]), named, said, code, right)


def events(text: str) -> list[dict[str, Any]]:
    """The launchers' own lines, in the order of time."""
    rows = []
    for line in text.splitlines():
        if line.startswith("launch: {") and line.endswith("}"):
            rows.append(json.loads(line[len("launch: ") :]))
    return sorted(rows, key=lambda row: float(row["t"]))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NetworkCut:
    """Drops in silence what ranks send each other over TCP, by a rule of the packet filter."""

    def __init__(self) -> None:
        if not shutil.which("iptables"):
            raise NotHereError("no iptables")
        self._rules: list[list[str]] = []

    def cut(self, pids: Sequence[str]) -> None:
        """The connections between these processes, but not the launchers'."""
        ports: set[str] = set()
        for pid in pids:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
            inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
            for name in ("tcp", "tcp6"):
                for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                    cells = line.split()
                    if cells[9] in inodes:
                        ports.add(str(int(cells[1].rpartition(":")[2], 16)))
        for port in sorted(ports):
            rule = ["OUTPUT", "-p", "tcp", "--sport", port, "-j", "DROP"]
            subprocess.run(["iptables", "-I", *rule], check=True)
            self._rules.append(rule)

    def mend(self) -> None:
        """As it was."""
        for rule in self._rules:
            subprocess.run(["iptables", "-D", *rule], check=True)


if __name__ == "__main__":
    sys.exit(main())
