"""All-reduce bandwidth: under the launcher against torchrun alone, and across two "nodes"."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu.bench import HERE, Bench, complain, free_port
from bench.gpu.report import NotHereError, Result, Table, size_text

MIB = 1 << 20
SIZES = [MIB << shift for shift in range(0, 13, 2)]
CPU_SIZES = [MIB, 4 * MIB, 16 * MIB]
#: From here on the launcher has to reach the goal; below, latency and its scatter rule.
LARGE = 256 * MIB
GOAL = 0.99
#: Two names for this machine, as two nodes would have.
NODES = ("127.0.0.1", "127.0.0.2")


def sizes(bench: Bench) -> list[int]:
    """What fits: the message, NCCL's buffers and a comparison's temporary."""
    if not bench.cuda:
        return CPU_SIZES
    return [size for size in SIZES if size <= bench.host.memory / 8]


def script(out: Path, counts: Sequence[int]) -> list[str]:
    """The measurement's command line."""
    listed = ",".join(map(str, counts))
    return [str(HERE / "ranks.py"), "allreduce", f"--sizes={listed}", f"--out={out}"]


def bus_bandwidth(size: int, seconds: float, world: int) -> float:
    """GB/s as nccl-tests defines bus bandwidth (NVIDIA/nccl-tests:doc/PERFORMANCE.md)."""
    return size / seconds * 2 * (world - 1) / world / 1e9


def medians(found: Mapping[str, Any]) -> dict[int, float]:
    """Seconds of one all-reduce by size, from one run's file."""
    return {row["bytes"]: statistics.median(row["seconds"]) for row in found["rows"]}


def compare(
    bare: Sequence[Mapping[int, float]], ours: Sequence[Mapping[int, float]]
) -> dict[int, tuple[float, float, float, float]]:
    """By size: seconds bare, seconds ours (medians of the rounds), their ratio, bare's scatter.

    The ratio is of speeds, 1 when the launcher costs nothing. The scatter is how much slower the
    slowest of bare's own rounds was than the quickest: a ratio closer to 1 than that says nothing.
    """
    found = {}
    for size in bare[0]:
        times = [round_[size] for round_ in bare]
        alone = statistics.median(times)
        with_us = statistics.median(round_[size] for round_ in ours)
        found[size] = (alone, with_us, alone / with_us, max(times) / min(times) - 1)
    return found


def allreduce(bench: Bench, result: Result) -> None:
    """Alternating runs of the same measurement."""
    if bench.gpus < 2:
        raise NotHereError("an all-reduce needs two ranks")
    runs: dict[str, list[dict[int, float]]] = {"torchrun": [], "launch": []}
    raw: list[dict[str, Any]] = []
    result.data["runs"] = raw
    for number in range(bench.rounds):
        ways = ("torchrun", "launch") if number % 2 == 0 else ("launch", "torchrun")
        for way in ways:
            out = bench.work / f"allreduce-{way}-{number}.json"
            words = script(out, sizes(bench))
            run = bench.launch(words) if way == "launch" else bench.torchrun(words)
            code = run.end()
            if code != 0:
                result.problems.append(f"{way}: {complain(run, code)}")
                return
            found = json.loads(out.read_text())
            raw.append({"way": way, "round": number, "wall": round(run.seconds, 1), **found})
            result.need(all(row["right"] for row in found["rows"]), f"{way}: a wrong sum")
            runs[way].append(medians(found))
    compared = compare(runs["torchrun"], runs["launch"])
    rows = []
    for size, (bare, ours, ratio, scatter) in compared.items():
        speeds = [f"{bus_bandwidth(size, seconds, bench.gpus):.1f}" for seconds in (bare, ours)]
        rows.append((size_text(size), *speeds, f"{ratio:.1%}", f"{scatter:.1%}"))
        if bench.cuda and size >= LARGE:
            text = f"{size_text(size)}: {ratio:.1%} of torchrun's bandwidth, not {GOAL:.0%}"
            result.need(ratio >= GOAL, text)
    title = f"All-reduce, {bench.gpus} ranks, {bench.rounds} rounds of each, bus bandwidth in GB/s"
    head = ("message", "torchrun", "launch local", "launch / torchrun", "scatter of torchrun")
    result.tables.append(Table(title, head, rows))
    result.data["ratio"] = {str(size): row[2] for size, row in compared.items()}


def two_nodes(bench: Bench, result: Result) -> None:
    """Two launchers with half of the GPUs each, as two nodes of one job on this machine."""
    half = bench.gpus // 2
    if half < 1:
        raise NotHereError("two nodes need two GPUs")
    result.data["runs"] = []
    ways: list[tuple[str, bool]] = [("NCCL knows that it is one machine", False)]
    if bench.cuda:
        # NCCL takes ranks for neighbours when their host ids agree, which it makes of the host's
        # name and boot id; told otherwise it goes through sockets, as without EFA.
        ways.append(("as two machines, through sockets", True))
    else:
        ways = [("gloo", False)]
    counts = [size for size in sizes(bench) if size <= 1024 * MIB]
    speeds: list[dict[int, float]] = []
    for number, (name, apart) in enumerate(ways):
        # Sockets are slower by two orders of magnitude.
        found = _pair(bench, result, number, half, counts[:-1] if apart else counts, apart=apart)
        result.data["runs"].append({"way": name, **found})
        speeds.append(medians(found) if found else {})
    rows = [
        (size_text(size), *(_speed(size, way.get(size), 2 * half) for way in speeds))
        for size in counts
    ]
    title = f"All-reduce over two nodes of {half} GPUs on one host, bus bandwidth in GB/s"
    result.tables.append(Table(title, ("message", *(name for name, _ in ways)), rows))


def _speed(size: int, seconds: float | None, world: int) -> str:
    return "" if seconds is None else f"{bus_bandwidth(size, seconds, world):.1f}"


def _pair(
    bench: Bench, result: Result, number: int, half: int, counts: Sequence[int], *, apart: bool
) -> dict[str, Any]:
    """Both launchers of one job; what rank 0 has measured, nothing when a node failed."""
    out = bench.work / f"two-nodes-{number}.json"
    common = [f"--hosts={','.join(NODES)}", f"--job=two-nodes-{number}"]
    common += [f"--port={free_port()}", f"--gate-port={free_port()}"]
    nodes = [
        bench.launch(
            script(out, counts),
            options=[*common, f"--node-rank={rank}"],
            count=half,
            first=half * rank,
            env={"NCCL_HOSTID": f"node{rank}", "NCCL_MNNVL_ENABLE": "0"} if apart else {},
        )
        for rank in range(2)
    ]
    codes = [node.end() for node in nodes]
    if any(codes):
        for rank, (node, code) in enumerate(zip(nodes, codes)):  # noqa: B905
            result.need(code == 0, f"node {rank}: {complain(node, code)}")
        return {}
    found: dict[str, Any] = json.loads(out.read_text())
    result.need(all(row["right"] for row in found["rows"]), "a wrong sum")
    result.need(found["world"] == 2 * half, f"{found['world']} ranks, not {2 * half}")
    return found
