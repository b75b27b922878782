"""What survives of pushes while the registry misbehaves: the bare docker SDK against Slipway.

    .venv/bin/python -m bench.registry_faults   # four minutes; root, dockerd, docker-registry
    .venv/bin/python -m bench.registry_faults --engine unix:///var/run/docker.sock

Each line is one push of three layers of 6 MiB that the registry has never seen, into an ECR front
door that makes the fault. "sent" is what arrived in bytes against one flawless push.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from slipway.core import Project, SlipwayError, silent
from slipway.engine import Engine, connect, stop_daemon
from slipway.registry import (
    ImagePacker,
    RegistryClient,
    credentials_for,
    prepare_repository,
    push_image,
)
from tests.support.registry.ecr_front_door import REGION, Door, aws_api, ecr
from tests.support.registry.open_registry import open_registry

LAYER = 6 << 20
LAYERS = 3
BUSY = {"status": 429, "code": "TOOMANYREQUESTS", "message": "Rate exceeded"}
UPLOAD = ("PATCH|PUT", "/blobs/uploads/")  # dockerd sends with PATCH, containerd with PUT
MANIFEST = ("PUT", "/manifests/")
FAULTS: dict[str, tuple[tuple[str, str], str, dict[str, Any]]] = {
    "none": (("NONE", "x"), "status", {}),
    "reset at start of body x1": (UPLOAD, "reset", {}),
    "reset after 2 MB x1": (UPLOAD, "reset", {"after_bytes": 2_000_000}),
    "reset after 2 MB x3": (UPLOAD, "reset", {"after_bytes": 2_000_000, "count": 3}),
    "reset x12": (UPLOAD, "reset", {"count": 12}),
    "500 on upload x1": (UPLOAD, "status", {"status": 500}),
    "503 on POST x1": (("POST", "/blobs/uploads/"), "status", {"status": 503}),
    "429 on POST x1": (("POST", "/blobs/uploads/"), "status", BUSY),
    "429 on upload x1": (UPLOAD, "status", BUSY),
    "429 on HEAD x1": (("HEAD", "/blobs/"), "status", BUSY),
    "429 on manifest PUT x1": (MANIFEST, "status", BUSY),
    "500 on manifest PUT x1": (MANIFEST, "status", {"status": 500}),
    "reset on manifest PUT x1": (MANIFEST, "reset", {}),
    "token expires mid-push": (("PUT", "/blobs/uploads/"), "expire", {}),
}


@dataclass(frozen=True)
class Outcome:
    """How one push ended. `why` is empty where the image is in the registry."""

    why: str
    seconds: float
    sent: int


Push = Callable[[Engine, Door, str, str], None]


def bare(engine: Engine, door: Door, reference: str, repository: str) -> None:
    """What a script with the docker SDK does: log in, tag, push."""
    login = credentials_for([door.target])(door.host)
    assert login is not None
    name = f"{door.host}/{repository}"
    engine.client.api.tag(reference, name, "v1")
    auth = {"username": login.username, "password": login.secret}
    lines = engine.client.api.push(name, "v1", stream=True, decode=True, auth_config=auth)
    # The SDK raises nothing for errors in the stream; a careful script looks for them.
    for line in lines:
        if "error" in line:
            raise SlipwayError(str(line["error"]))


def ours(packed: Path, engine: Engine, door: Door, reference: str, repository: str) -> None:
    """The same through Slipway: by its own client where it can read the engine's disk."""
    push_image(
        engine,
        reference,
        door.target,
        repository,
        "v1",
        credentials=credentials_for([door.target]),
        on_event=silent,
        packer=ImagePacker(packed, dict),
    )


def new_image(engine: Engine) -> str:
    """Layers that no registry has seen."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        names = [f"layer{number}" for number in range(LAYERS)]
        dockerfile = "\n".join(["FROM scratch", *(f"COPY {name} /{name}" for name in names)])
        files = {"Dockerfile": dockerfile.encode(), **{name: os.urandom(LAYER) for name in names}}
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    context.seek(0)
    tag = f"bench/faults:{uuid.uuid4().hex}"
    engine.client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True)
    return tag


def attempt(engine: Engine, door: Door, fault: str, push: Push) -> Outcome:
    """One push through one fault, judged by what the registry has afterwards."""
    (method, path), action, rest = FAULTS[fault]
    repository = f"bench/{uuid.uuid4().hex}"
    prepare_repository(door.target, repository)
    reference = new_image(engine)
    door.faults.clear()
    door.fault(method, path, action, **rest)
    why = ""
    started = time.monotonic()
    try:
        push(engine, door, reference, repository)
    except SlipwayError as error:
        why = getattr(error, "what", str(error))
    seconds = time.monotonic() - started
    sent = door.faults.uploaded()
    door.faults.clear()
    with RegistryClient(door.host, credentials_for([door.target])) as registry:
        if registry.head(repository, "v1") is None:
            why = why or "nothing in the registry, and no error"
    engine.client.api.remove_image(reference, force=True)
    return Outcome(why, seconds, sent)


def main() -> int:
    """Print the table; 1 where one of Slipway's own pushes did not survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="embedded", help="embedded, or a daemon's URL")
    choice = parser.parse_args().engine
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_REGION=REGION)
    table = Table(title=f"One push of {LAYERS} x {LAYER >> 20} MiB through each fault")
    for column in ("fault", "docker SDK", "s", "sent", "slipway", "s", "sent"):
        table.add_column(column, justify="left" if column in ("fault", "docker SDK") else "right")
    survived = {"bare": 0, "ours": 0}
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        project = Project(Path(folder), Path(folder) / "state")
        engine = connect(project, choice)
        try:
            with (
                open_registry(project.state / "registry") as host,
                aws_api() as api,
                ecr(host, api) as door,
            ):
                os.environ.update(AWS_ENDPOINT_URL=api, AWS_ENDPOINT_URL_ECR=api)
                for fault in FAULTS:
                    ways: tuple[Push, Push] = (bare, partial(ours, project.state / "packed"))
                    pair = [attempt(engine, door, fault, push) for push in ways]
                    cells = []
                    for name, one in zip(survived, pair, strict=True):
                        survived[name] += not one.why and fault != "none"
                        shown = "FAILED" if one.why else "ok"
                        flawless = one.sent / (LAYERS * LAYER)
                        cells += [shown, f"{one.seconds:.1f}", f"{flawless:.2f}"]
                    table.add_row(fault, *cells)
                    print(".", end="", file=sys.stderr, flush=True)
        finally:
            engine.close()
            if engine.embedded:
                stop_daemon(project)
    total = len(FAULTS) - 1
    table.add_section()
    table.add_row(
        "survived", f"{survived['bare']} of {total}", "", "", f"{survived['ours']} of {total}"
    )
    store = "containerd store" if engine.containerd_store else "graph driver"
    table.caption = f"Docker {engine.version}, {store}"
    Console(width=100).print(table)
    return int(survived["ours"] < total)


if __name__ == "__main__":
    sys.exit(main())
