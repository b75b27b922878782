"""Nodes of a SageMaker cluster on this machine: real launchers, one address of 127.0.0.0/8 each.

Nothing waits for a time to pass: tests wait for a line or an event of a launcher.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.ranks import rank_processes

LAUNCH = Path(__file__).parents[3] / "entrypoints" / "launch"
ENTRYPOINT = LAUNCH.with_name("entrypoint.sh")

#: A bound for waits that end earlier; only a broken launcher meets it.
PATIENCE = 120.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, nor will be given as the near end of a connection.

    Below the range that the kernel takes those from (ip(7), ip_local_port_range): one that the
    kernel itself names may be some connection's until a launcher wants it.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(lowest // 2, lowest - 2)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports += [port] if port not in ports else []
    return ports


def clean_environment() -> dict[str, str]:
    """This process's environment, as a container would have it: nothing of ours or AWS's."""
    prefixes = ("LAUNCH_", "AWS_", "SLURM_", "SAGEMAKER_", "SM_", "NCCL_", "COV_", "PYTEST_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    return env


class Launch:
    """One started launcher and everything that it has printed."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._open = 2
        self.process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            # Daemons: a launcher that could not be ended must not hold up the end of pytest.
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    @property
    def lines(self) -> list[str]:
        """All lines so far, stdout and stderr."""
        with self._changed:
            return list(self._lines)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The launcher's own events of that name."""
        found = (json.loads(x[len("launch: ") :]) for x in self.lines if x.startswith("launch: {"))
        return [event for event in found if event["event"] == name]

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Until something printed makes it true; fails when the launcher ends first."""

        def over() -> bool:
            return true() or self._open == 0

        with self._changed:
            assert self._changed.wait_for(over, PATIENCE), self._lines
            assert true(), self._lines

    def wait_for_line(self, text: str, count: int = 1) -> None:
        """Until `count` lines hold the text."""
        self.wait_until(lambda: sum(text in line for line in self._lines) >= count)

    def wait_for_event(self, name: str) -> None:
        """Until the launcher has emitted an event."""
        self.wait_for_line(f'"event": "{name}"')

    def signal(self, number: int) -> None:
        """As the platform would: to the container's main process only."""
        self.process.send_signal(number)

    def family(self) -> list[int]:
        """Every process of this node."""
        table = rank_processes.process_table()
        below = rank_processes.descendants(self.process.pid, table)
        return [self.process.pid, *(process.pid for process in below)]

    def power_off(self) -> None:
        """Kill the whole node at once: nobody may catch this, nobody is told."""
        stopped: list[int] = []
        # Until a look finds nothing new: one may fork, or end, before its turn.
        while fresh := [pid for pid in self.family() if pid not in stopped]:
            rank_processes.send_signal(fresh, signal.SIGSTOP)
            stopped += fresh
        rank_processes.send_signal(stopped, signal.SIGKILL)

    def end(self) -> int:
        """Its exit code; 128 + signal when it was killed."""
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join()
        return 128 - code if code < 0 else code

    def close(self) -> None:
        """End it, whatever it is doing, and show a failed test's reader what it printed."""
        if self.process.poll() is None:
            self.power_off()
        self.end()
        print(f"{self.process.args!r} printed:", *self.lines, sep="\n")


@dataclass
class Node:
    """One node's directories and environment."""

    root: Path
    host: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def ml(self) -> Path:
        """Its /opt/ml."""
        return self.root / "ml"

    @property
    def failure(self) -> str:
        """What its failure file says; "" without one."""
        path = self.ml / "output" / "failure"
        return path.read_text() if path.exists() else ""

    def hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Write them as SageMaker does: JSON inside strings."""
        encoded = {name: json.dumps(value) for name, value in values.items()}
        (self.ml / "input/config/hyperparameters.json").write_text(json.dumps(encoded))


@dataclass
class Cluster:
    """Some nodes, and the launchers started on them."""

    root: Path
    nodes: list[Node]
    running: list[Launch] = field(default_factory=list)

    def script(self, text: str, name: str = "train.py") -> None:
        """Put a training script where SDK v2 puts it, on every node."""
        for node in self.nodes:
            code = node.ml / "code"
            code.mkdir(exist_ok=True)
            (code / name).write_text(text)

    def start(self, index: int, argv: Sequence[str], **env: str) -> Launch:
        """Start a command of the launcher on one node."""
        node = self.nodes[index]
        command = [str(LAUNCH), *argv]
        self.running.append(Launch(command, {**node.env, **env}, node.root))
        return self.running[-1]

    def train(self, *options: str, args: Sequence[str] = (), **env: str) -> list[Launch]:
        """`launch sagemaker` with the plain runner on every node."""
        argv = ["sagemaker", "--runner", "python", *options, "--", "train.py", *args]
        return [self.start(index, argv, **env) for index in range(len(self.nodes))]


@contextmanager
def cluster(root: Path, count: int) -> Iterator[Cluster]:
    """Nodes with SageMaker's configuration files, and ports of their own."""
    gate, port = free_ports(2)
    hosts = [f"127.0.0.{n + 1}" for n in range(count)]
    nodes = []
    for host in hosts:
        node = Node(root / host, host)
        config = node.ml / "input" / "config"
        config.mkdir(parents=True)
        (node.ml / "output").mkdir()
        resources = {"current_host": host, "hosts": hosts, "network_interface_name": "lo"}
        (config / "resourceconfig.json").write_text(json.dumps(resources))
        (config / "inputdataconfig.json").write_text("{}")
        (config / "hyperparameters.json").write_text("{}")
        node.env = {
            **clean_environment(),
            "SAGEMAKER_BASE_DIR": str(node.ml),
            "TRAINING_JOB_NAME": f"job-{root.name}"[:60],
            "LAUNCH_GATE_PORT": str(gate),
            "LAUNCH_PORT": str(port),
            "LAUNCH_LOG_DIR": str(node.root / "logs"),
            "TORCH_EXTENSIONS_DIR": str(node.root / "extensions"),
            "HOME": str(node.root),
        }
        nodes.append(node)
    made = Cluster(root, nodes)
    try:
        yield made
    finally:
        with ExitStack() as closing:  # every one, whatever another's end says
            for launch in made.running:
                closing.callback(launch.close)
