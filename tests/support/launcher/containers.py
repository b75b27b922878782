"""Containers of the local image as nodes of a cluster: PID 1, real torch, real sagemaker-training.

The embedded engine has no bridge, so the nodes share the host's network and have an address of
127.0.0.0/8 each, under the names that SageMaker gives.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from slipway.engine import Engine
from tests.support.launcher.cluster import free_ports

#: A bound for waits that end earlier; DeepSpeed compiles for more than a minute when it is new.
PATIENCE = 400.0

#: Where a node keeps what Python compiles.
BYTECODE = "/var/cache/bytecode"


class Running:
    """One container, and every line that it has printed."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._open = True
        # A daemon: a container that could not be removed must not hold up the end of pytest.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        rest = b""
        for chunk in self.container.logs(stream=True, follow=True):
            *lines, rest = (rest + chunk).split(b"\n")
            with self._changed:
                self._lines += [line.decode(errors="replace") for line in lines]
                self._changed.notify_all()
        with self._changed:
            self._open = False
            self._changed.notify_all()

    @property
    def lines(self) -> list[str]:
        """All lines so far."""
        with self._changed:
            return list(self._lines)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Until something printed makes it true; fails when the container ends first."""

        def over() -> bool:
            return true() or not self._open

        with self._changed:
            assert self._changed.wait_for(over, PATIENCE), self._lines
            assert true(), self._lines

    def wait_for_line(self, text: str, count: int = 1) -> None:
        """Until `count` lines hold the text."""
        self.wait_until(lambda: sum(text in line for line in self._lines) >= count)

    @property
    def pid(self) -> int:
        """Its PID 1, as this machine counts."""
        self.container.reload()
        pid: int = self.container.attrs["State"]["Pid"]
        return pid

    def terminate(self) -> None:
        """SIGTERM to PID 1, as `docker stop` and SageMaker do."""
        self.container.kill("SIGTERM")

    def end(self) -> int:
        """Its exit code."""
        code: int = self.container.wait(timeout=PATIENCE)["StatusCode"]
        self._reader.join()
        return code

    def remove(self) -> None:
        """Kill it if need be, and leave nothing but its output, for a test that failed."""
        self.container.remove(force=True)
        self._reader.join()
        print(f"{self.container.name} printed:", *self.lines, sep="\n")


@dataclass
class Host:
    """One node: its /opt/ml on this machine."""

    name: str
    ml: Path

    @property
    def failure(self) -> str:
        """What its failure file says; "" without one."""
        path = self.ml / "output" / "failure"
        return path.read_text() if path.exists() else ""


@dataclass
class Fleet:
    """Nodes algo-1, algo-2... of one job.

    Containers come and go, and the image's add-ons have no bytecode: what a process compiles is
    kept in `bytecode`, or each would compile DeepSpeed again, for seconds.
    """

    engine: Engine
    image: str
    root: Path
    bytecode: Path
    hosts: list[Host]
    ports: Sequence[int] = field(default_factory=lambda: free_ports(2))
    running: list[Running] = field(default_factory=list)

    @classmethod
    def make(cls, engine: Engine, image: str, root: Path, cache: Path, count: int) -> Fleet:
        """SageMaker's directories and configuration files for each node."""
        names = [f"algo-{n + 1}" for n in range(count)]
        hosts = []
        for name in names:
            host = Host(name, root / name)
            for directory in ("input/config", "input/data", "output", "model", "code"):
                (host.ml / directory).mkdir(parents=True)
            config = {"current_host": name, "hosts": names, "network_interface_name": "lo"}
            (host.ml / "input/config/resourceconfig.json").write_text(json.dumps(config))
            (host.ml / "input/config/inputdataconfig.json").write_text("{}")
            hosts.append(host)
        bytecode = cache / "test-bytecode"
        bytecode.mkdir(parents=True, exist_ok=True)
        made = cls(engine, image, root, bytecode, hosts)
        made.hyperparameters({})
        return made

    def hyperparameters(self, values: Mapping[str, Any]) -> None:
        """The same on every node."""
        encoded = {name: json.dumps(value) for name, value in values.items()}
        for host in self.hosts:
            path = host.ml / "input/config/hyperparameters.json"
            path.write_text(json.dumps(encoded))

    def script(self, text: str, name: str = "train.py") -> None:
        """The same training script on every node."""
        for host in self.hosts:
            (host.ml / "code" / name).write_text(text)

    def start(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
        entrypoint: Sequence[str] | None = None,
        memory: str | None = None,
        tmpfs: Mapping[str, str] | None = None,
    ) -> list[Running]:
        """One container per node."""
        gate, port = self.ports
        started = []
        for index, host in enumerate(self.hosts):
            volumes = {str(host.ml): {"bind": "/opt/ml", "mode": "rw"}}
            for source, target in {**(mounts or {}), self.bytecode: BYTECODE}.items():
                volumes[str(source)] = {"bind": target, "mode": "rw"}
            container = self.engine.client.containers.run(
                self.image,
                list(command),
                detach=True,
                network_mode="host",
                extra_hosts={h.name: f"127.0.0.{n + 1}" for n, h in enumerate(self.hosts)},
                environment={
                    "TRAINING_JOB_NAME": "job",
                    "AWS_DEFAULT_REGION": "us-east-1",
                    "LAUNCH_GATE_PORT": str(gate),
                    "LAUNCH_PORT": str(port),
                    "PYTHONPYCACHEPREFIX": BYTECODE,
                    "SLURM_NODEID" if env and "SLURM_JOB_ID" in env else "NODE": str(index),
                    **(env or {}),
                },
                volumes=volumes,
                entrypoint=list(entrypoint) if entrypoint else None,
                mem_limit=memory,
                tmpfs=dict(tmpfs or {}),
                memswap_limit=memory,
            )
            started.append(Running(container))
        self.running += started
        return started

    def remove(self) -> None:
        """Leave no container."""
        with ExitStack() as removing:  # every one, whatever another's removal says
            for running in self.running:
                removing.callback(running.remove)


Make = Callable[[int], Fleet]
