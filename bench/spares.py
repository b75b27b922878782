"""Nodes of a job with a spare, lost in turn: when the next step comes, and with what loss.

    python -m bench.spares              # 20 kills; root; some 30 minutes
    python -m bench.spares --kills 3
    python -m bench.spares --kills 2 --how freeze    # every process of the node is frozen

On the real Slurm of the tests (a controller and three nodes in containers, tests/support) each job
is one of `inv slurm.script --nodes 3 --spares 1`: two nodes train a small model over gloo, with a
checkpoint on shared storage every ten steps, and one waits. The node is killed (all its processes
at once) beyond step 25, or frozen. The losses, step by step, are compared with those of
a job that nobody disturbs. Beside this, nothing is timed with a threshold: the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Project
from slipway.engine import connect, start_daemon, stop_daemon
from tests.support.clones import Clone
from tests.support.slurm_cluster import (
    NODES,
    THIRD,
    SlurmCluster,
    Submitted,
    node_image,
    running,
    submit,
    wait,
)

ROOT = Path(__file__).parents[1]
STEPS, EVERY, KILL_AT = 60, 10, 25

TRAIN = f"""
import json, os, time
import torch, torch.distributed as dist
where = os.getcwd()
dist.init_process_group("gloo")
rank, resume, step = dist.get_rank(), os.environ.get("LAUNCH_RESUME_FROM"), 0
torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
descent = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
if resume:
    saved = torch.load(f"{{resume}}/state.pt")
    model.load_state_dict(saved["model"])
    descent.load_state_dict(saved["descent"])
    step = saved["step"]
while step < {STEPS}:
    torch.manual_seed(1000 * step + rank)
    x = torch.randn(16, 8)
    loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
    descent.zero_grad()
    loss.backward()
    total = loss.detach().clone()
    for tensor in (total, *(parameter.grad for parameter in model.parameters())):
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    descent.step()
    step += 1
    if rank == 0:
        with open(f"{{where}}/loss", "a") as file:
            print(json.dumps([time.time(), step, total.item()]), file=file)
        if step % {EVERY} == 0:
            place = f"{{where}}/ck/step-{{step}}"
            os.makedirs(place, exist_ok=True)
            state = {{"model": model.state_dict(), "descent": descent.state_dict(), "step": step}}
            torch.save(state, f"{{place}}/state.pt")
            open(f"{{place}}/whole", "w").close()
    time.sleep(0.1)
dist.destroy_process_group()
"""


@dataclass(frozen=True)
class Row:
    """One loss. Seconds count from it; None where the training did not have to begin again."""

    node: str
    at: int
    begun: float | None
    step: float | None
    lost: int
    same: bool
    load: float


def read_losses(place: Path) -> list[tuple[float, int, float]]:
    """Time, step, and loss of every step, in the order in which they were made."""
    file = place / "loss"
    if not file.exists():
        return []
    lines = [line for line in file.read_text().splitlines() if line.endswith("]")]
    return [tuple(json.loads(line)) for line in lines]


def start_job(cluster: SlurmCluster, name: str) -> tuple[Submitted, Path]:
    """A job with a spare, in a folder of its own."""
    place = cluster.fsx / name
    place.mkdir()
    (place / "train.py").write_text(TRAIN)
    options = (f"checkpoint-dir={Path('/fsx', name, 'ck')}", "resume=auto")
    words = [word for option in options for word in ("--launch", option)]
    words += ["--launch", "checkpoint-complete=marker:whole", "--sbatch", "partition=three"]
    return submit(cluster, name, "--spares", "1", *words, "--", "train.py", nodes="3"), place


def await_step(job: Submitted, place: Path, step: int, after: float = 0.0) -> None:
    """Until a step as high was made after a time."""
    wait(
        lambda: any(at > after and done >= step for at, done, _ in read_losses(place)),
        lambda: job.told,
        every=0.1,
    )


def take_away(cluster: SlurmCluster, node: str, how: str) -> None:
    """The node, in one of the ways that nodes are lost."""
    if how == "kill":
        cluster.members[node].kill()
    else:
        cluster.members[node].pause()


def bring_back(cluster: SlurmCluster, node: str, how: str) -> None:
    """The node that was taken away in that way."""
    if how == "kill":
        cluster.members[node].start()
    else:
        cluster.members[node].unpause()


def measure_loss(
    cluster: SlurmCluster, number: int, node: str, how: str, curve: dict[int, float]
) -> Row:
    """One job, one node lost."""
    job, place = start_job(cluster, f"{how}-{number}")
    await_step(job, place, KILL_AT)
    killed = time.time()
    take_away(cluster, node, how)
    before = max(step for at, step, _ in read_losses(place) if at <= killed)
    await_step(job, place, STEPS, killed)
    losses = read_losses(place)
    after = next((at, step) for at, step, _ in losses if at > killed + 0.5)
    again = begun_again(place)
    cluster.run("scancel", job.id)
    bring_back(cluster, node, how)
    cluster.wait_for_nodes()
    spare = node == THIRD
    return Row(
        node,
        before,
        None if spare else again - killed,
        None if spare else after[0] - killed,
        0 if spare else before - after[1] + 1,
        all(abs(curve[step] - loss) <= 1e-6 * abs(curve[step]) for _, step, loss in losses),
        os.getloadavg()[0],
    )


def begun_again(place: Path) -> float:
    """When the nodes were told who trains now; 0 where nobody was."""
    text = "".join(path.read_text() for path in place.glob("logs/*-nodes/*.log"))
    found = re.search(r'"t": ([0-9.]+)[^\n]*"event": "begin-again"', text)
    return float(found[1]) if found else 0.0


def tell_row(number: int, row: Row) -> None:
    """One line."""
    times = "training went on"
    if row.begun is not None and row.step is not None:
        times = f"begun again {row.begun:5.1f} s  next step {row.step:5.1f} s"
    print(
        f"{number:3}  {row.node} at step {row.at:3}  {times}  steps lost {row.lost:2}  "
        f"losses {'the same' if row.same else 'DIFFER'}  load {row.load:.1f}",
        flush=True,
    )


def main() -> None:
    """Print a line for each kill."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--how", choices=("kill", "freeze"), default="kill")
    chosen = options.parse_args()
    state = os.environ.get("SLIPWAY_TEST_STATE")
    project = Project(ROOT, Path(state) if state else ROOT / ".slipway" / "test")
    start_daemon(project)
    engine = connect(project, "embedded")
    try:
        with tempfile.TemporaryDirectory(prefix="spares-") as folder:
            root = Path(folder)
            clone = Clone.make(root / "clone", project.state)
            images = root / "fsx" / "images"
            images.mkdir(parents=True)
            clone.inv("sqsh", "--output", str(images))
            (sqsh,) = images.glob("*.sqsh")
            image = node_image(engine, project.state, root / "recipe")
            with running(engine, image, root, clone, sqsh) as cluster:
                job, place = start_job(cluster, "unbroken")
                await_step(job, place, STEPS)
                curve = {step: loss for _, step, loss in read_losses(place)}
                job.end()
                rows = []
                for number in range(chosen.kills):
                    node = (*NODES, THIRD)[number % 3]
                    rows.append(measure_loss(cluster, number, node, chosen.how, curve))
                    tell_row(number + 1, rows[-1])
    finally:
        engine.close()
        stop_daemon(project)
    steps = [row.step for row in rows if row.step is not None]
    begun = [row.begun for row in rows if row.begun is not None]
    print(
        f"begun again: median {statistics.median(begun):.1f} s, longest {max(begun):.1f} s; "
        f"next step: median {statistics.median(steps):.1f} s, longest {max(steps):.1f} s; "
        f"losses of {sum(row.same for row in rows)} of {len(rows)} as of the unbroken run"
    )


if __name__ == "__main__":
    main()
