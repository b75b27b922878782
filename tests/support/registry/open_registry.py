"""A Distribution that asks nobody for a login: it keeps the data of tests and benches.

The doors of ecr_front_door stand before it; Slipway's own local registry has a login.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import requests

from slipway.core import wait_until

PATIENCE_S = 30.0


class OpenRegistry:
    """One on a port of loopback (0: a free one), with its data in root/storage."""

    def __init__(self, root: Path, port: int = 0) -> None:
        self.storage = root / "storage"
        self.storage.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", port)) as probe:
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        self._log = root / "registry.log"
        self._config = root / "config.yml"
        self._config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"level": "warn", "accesslog": {"disabled": True}},
                    "storage": {
                        "filesystem": {"rootdirectory": str(self.storage)},
                        "delete": {"enabled": True},
                    },
                    "http": {"addr": self.host},
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Have it answer."""
        command = ["docker-registry", "serve", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        assert wait_until(self._answers, PATIENCE_S), f"see {self._log}"

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End its process by a signal; the data stay."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://{self.host}/v2/", timeout=2).status_code == 200
        return False


@contextlib.contextmanager
def open_registry(root: Path) -> Iterator[str]:
    """The host of one that answers for as long as the block runs."""
    registry = OpenRegistry(root)
    try:
        registry.start()
        yield registry.host
    finally:
        registry.stop()
