"""A training script that goes wrong in one of ten ways; started by `python -m bench.hangs`.

    launch local -- hang_script.py KIND [--victim 1] [--step 6] [--scale 1.0]

Every rank makes steps of some work and an all-reduce; at `--step` the victim does what KIND says.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist


def main() -> None:
    """Steps until something goes wrong, or for ever."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("--victim", type=int, default=1)
    parser.add_argument("--step", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds of work a step")
    parser.add_argument("--scale", type=float, default=1.0, help="of the pauses that are no hang")
    chosen = parser.parse_args()
    cuda = torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    rank = dist.get_rank()
    data = torch.ones(1 << 16, device="cuda" if cuda else "cpu")
    print(f"rank {rank} trains, pid {os.getpid()}", flush=True)
    for step in range(chosen.steps):
        work(chosen, rank, step)
        if step == chosen.step and rank == chosen.victim:
            print(f"FAULT {time.time():.3f}", flush=True)
            if FAULTS.get(chosen.kind, go_on)(chosen, data):
                continue
        elif step == chosen.step and chosen.kind in OTHERS:
            OTHERS[chosen.kind](data)
        dist.all_reduce(data)
        if cuda:
            torch.cuda.synchronize()
        data.fill_(1.0)
    print(f"rank {rank} is done", flush=True)
    dist.destroy_process_group()


def work(chosen: argparse.Namespace, rank: int, step: int) -> None:
    """A step's own work: Python that computes, so that the stack moves."""
    pause = chosen.pause
    if chosen.kind == "slow" and rank == chosen.victim and step >= chosen.step:
        pause *= 1.5
    clock = time.process_time if chosen.kind == "starved" else time.perf_counter
    until = clock() + pause
    while clock() < until:
        layer(1000)


def layer(size: int) -> float:
    """Something to call."""
    return sum(activation(float(i)) for i in range(size))


def activation(value: float) -> float:
    """Something to call deeper."""
    return math.tanh(value)


def go_on(chosen: argparse.Namespace, data: Any) -> bool:
    """Nothing goes wrong here."""
    del chosen, data
    return False


def asleep(chosen: argparse.Namespace, data: Any) -> bool:
    """Asleep in Python."""
    del chosen, data
    time.sleep(36000)
    return False


def spinning(chosen: argparse.Namespace, data: Any) -> bool:
    """A loop that does not end."""
    del chosen
    while data.numel():
        pass
    return False


def stopped(chosen: argparse.Namespace, data: Any) -> bool:
    """SIGSTOP."""
    del chosen, data
    os.kill(os.getpid(), signal.SIGSTOP)
    return False


def left_out(chosen: argparse.Namespace, data: Any) -> bool:
    """One collective is left out: at the end the others wait in the last one."""
    del chosen, data
    return True


def other_order(chosen: argparse.Namespace, data: Any) -> bool:
    """A broadcast where the others have an all-gather."""
    del chosen
    data = data.repeat(256)  # NCCL lets small ones pass
    dist.broadcast(data, src=dist.get_rank())
    return False


def order_of_others(data: Any) -> None:
    """What `other_order` does not join."""
    data = data.repeat(256)
    dist.all_gather([torch.empty_like(data) for _ in range(dist.get_world_size())], data)


class HangingData(torch.utils.data.IterableDataset):  # type: ignore[misc] # Any without torch
    """A data set whose second item never comes."""

    def __iter__(self) -> Iterator[int]:
        yield 1
        time.sleep(36000)


def loader(chosen: argparse.Namespace, data: Any) -> bool:
    """A data loader whose worker hangs."""
    del chosen, data
    for _ in torch.utils.data.DataLoader(HangingData(), num_workers=1, batch_size=None):
        time.sleep(0.1)
    return False


def early_barrier(chosen: argparse.Namespace, data: Any) -> bool:
    """In destroy_process_group, or a barrier, before the others."""
    del chosen, data
    dist.barrier()
    return False


def early_exit(chosen: argparse.Namespace, data: Any) -> bool:
    """Gone with exit code 0."""
    del chosen, data
    sys.stdout.flush()
    os._exit(0)


def kernel(chosen: argparse.Namespace, data: Any) -> bool:
    """A GPU kernel that does not end within any limit here."""
    del chosen, data
    torch.cuda._sleep(int(2e9 * 600))
    return False


def other_shape(chosen: argparse.Namespace, data: Any) -> bool:
    """An all-gather of fewer elements than the others'."""
    del chosen
    few = data[:10].contiguous()
    dist.all_gather([torch.empty_like(few) for _ in range(dist.get_world_size())], few)
    return False


def starved(chosen: argparse.Namespace, data: Any) -> bool:
    """From here on the rank has some 4 % of a core."""
    del chosen, data
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    parent = os.getpid()
    if os.fork() == 0:
        os.nice(5)
        while os.getppid() == parent:
            pass
        os._exit(0)
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
        os.setpriority(os.PRIO_PROCESS, int(thread), 19)
    return False


def evaluation(chosen: argparse.Namespace, data: Any) -> bool:
    """No hang: rank 0 evaluates for five minutes while others wait."""
    del data
    until = time.time() + 300 * chosen.scale
    while time.time() < until:
        layer(1000)
    return False


def checkpoint(chosen: argparse.Namespace, data: Any) -> bool:
    """No hang: a rank writes a checkpoint for two minutes."""
    del data
    until = time.time() + 120 * chosen.scale
    with open(os.devnull, "wb") as file:  # noqa: PTH123 - unbuffered
        while time.time() < until:
            os.write(file.fileno(), bytes(1 << 20))
            time.sleep(0.01)
    return False


def compilation(chosen: argparse.Namespace, data: Any) -> bool:
    """No hang: a compiler runs as a child of the rank."""
    del data
    import subprocess

    seconds = 180 * chosen.scale
    code = f"import time\nt = time.time() + {seconds}\nwhile time.time() < t: pass"
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    return False


def debugger(chosen: argparse.Namespace, data: Any) -> bool:
    """No hang: somebody looks at a rank in pdb."""
    del data
    import pdb

    reader, writer = os.pipe()
    if os.fork() == 0:
        time.sleep(300 * chosen.scale)
        os.write(writer, b"continue\n")
        os._exit(0)
    pdb.Pdb(stdin=os.fdopen(reader), stdout=sys.stdout, nosigint=True).set_trace()
    return False


def loading(chosen: argparse.Namespace, data: Any) -> bool:
    """No hang: slow loading, a little at a time."""
    del data
    until = time.time() + 120 * chosen.scale
    with open("/dev/zero", "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered
        while time.time() < until:
            file.read(1 << 20)
            time.sleep(0.05)
    return False


FAULTS = {
    "asleep": asleep,
    "spinning": spinning,
    "stopped": stopped,
    "left-out": left_out,
    "order": other_order,
    "loader": loader,
    "barrier": early_barrier,
    "exit": early_exit,
    "shape": other_shape,
    "starved": starved,
    "kernel": kernel,
    "evaluation": evaluation,
    "checkpoint": checkpoint,
    "compilation": compilation,
    "debugger": debugger,
    "loading": loading,
}
OTHERS = {"order": order_of_others, "shape": order_of_others}

if __name__ == "__main__":
    main()
