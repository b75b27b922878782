"""A Distribution that asks nobody for a login: it keeps the data of tests and benches.

The doors of ecr_front_door stand before it; Slipway's own local registry has a login.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import requests

from slipway.core import wait_until

PATIENCE_S = 30.0


@contextlib.contextmanager
def open_registry(root: Path) -> Iterator[str]:
    """Its host, on a free port of loopback, for as long as the block runs; data in root/storage."""
    (root / "storage").mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = root / "config.yml"
    config.write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {
                    "filesystem": {"rootdirectory": str(root / "storage")},
                    "delete": {"enabled": True},
                },
                "http": {"addr": host},
            }
        )
    )
    with (
        (root / "registry.log").open("ab") as log,
        subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log) as run,
    ):
        try:
            assert wait_until(lambda: _answers(host), PATIENCE_S), f"see {log.name}"
            yield host
        finally:
            run.terminate()


def _answers(host: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"http://{host}/v2/", timeout=2).status_code == 200
    return False
