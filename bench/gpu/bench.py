"""What every part works with: the machine, the time that is left, and ways to start things."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from bench.gpu.host import Host
from bench.gpu.running import Running

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
EXAMPLES = ROOT / "examples"
# As entrypoints/launch starts it; ranks get the interpreter that runs the bench.
LAUNCH = [sys.executable, "-I", "-S", str(ROOT / "entrypoints" / "launcher" / "__main__.py")]


@dataclass
class Bench:
    """One run of the bench. `deadline` (time.monotonic) is the running part's.

    `instance` is the type whose floors the preflight takes; "" for none.
    """

    host: Host
    gpus: int
    work: Path
    log: TextIO
    rounds: int
    share: float
    instance: str = ""
    deadline: float = 0.0
    started: list[Running] = field(default_factory=list)

    @property
    def cuda(self) -> bool:
        """Whether ranks compute on GPUs."""
        return self.host.device == "cuda"

    def start(
        self, argv: Sequence[str], *, first: int, count: int, env: Mapping[str, str] | None = None
    ) -> Running:
        """Start a command that sees `count` GPUs, from number `first` on."""
        self.log.write(f"{time.strftime('%H:%M:%S')} $ {' '.join(argv)}\n")
        made = {**self.host.env(first, count), **(env or {})}
        run = Running(argv, env=made, cwd=self.work, deadline=self.deadline, log=self.log)
        self.started.append(run)
        return run

    def end_all(self) -> None:
        """Kill what a part has left running."""
        for run in self.started:
            run.kill()
        self.started.clear()

    def launch(
        self,
        words: Sequence[str],
        *,
        options: Sequence[str] = (),
        count: int | None = None,
        first: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> Running:
        """`launch local`, with one rank per GPU (on CPU: as many ranks as there would be GPUs)."""
        many = self.gpus if count is None else count
        argv = [*LAUNCH, "local", f"--nproc={many}", *options, "--", *words]
        return self.start(argv, first=first, count=many, env=env)

    def torchrun(self, words: Sequence[str]) -> Running:
        """The same script under torchrun alone."""
        argv = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={self.gpus}"]
        argv += ["--master_addr=127.0.0.1", f"--master_port={free_port()}", *words]
        return self.start(argv, first=0, count=self.gpus)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def complain(run: Running, code: int) -> str:
    """An exit code, with the launcher's reason or the last thing that was printed."""
    failed = [event for event in run.events() if event["event"] == "failed"]
    why = failed[-1]["cause"] if failed else next(iter(run.lines[-1:]), "no output")
    return f"exit code {code}: {why}"
