"""An engine's image into a registry: dockerd's push beside our own client's.

    .venv/bin/python -m bench.engine_push --work DIR --folder /usr/share

The embedded engine gets an image whose one large layer is the folder, and a second image with 1 MB
on top. Root; a registry on loopback; three times the folder's size below DIR.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slipway.core import Project, anonymous, silent
from slipway.engine import (
    BuildAttempt,
    BuildRequest,
    ContextFile,
    Engine,
    build_image,
    connect,
    import_rootfs,
    stop_daemon,
)
from slipway.registry import (
    ImagePacker,
    Target,
    credentials_for,
    push_image,
    start_local_registry,
    stop_local_registry,
)

ROOT = Path(__file__).parents[1]
LARGE, VARIANT = "bench/push:large", "bench/push:variant"


def make_images(engine: Engine, folder: Path, work: Path) -> None:
    """Both images, in the engine."""
    packed = work / "rootfs.tar"
    subprocess.run(["tar", "-C", folder, "-cf", packed, "."], check=True)
    with packed.open("rb") as stream:
        import_rootfs(engine, stream, LARGE, changes=["CMD /nothing"])
    packed.unlink()
    request = BuildRequest(
        dockerfile=f"FROM {LARGE}\nCOPY noise /noise\n",
        context=(ContextFile("noise", os.urandom(1 << 20), 0o644),),
        tags=(VARIANT,),
        build_args={},
        labels={},
        secrets={},
    )
    attempt = BuildAttempt(
        task="build", credentials=anonymous, on_event=silent, log=work / "build.log"
    )
    build_image(engine, request, attempt)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    work = options.work.resolve()
    project = Project(ROOT, work / "state")
    project.state.mkdir(parents=True, exist_ok=True)
    engine = connect(project, "embedded")
    table = Table("what", "way", "seconds", "MB compressed", "load before")
    try:
        make_images(engine, options.folder, work)
        host = start_local_registry(project, None).host
        target = Target("local", "local", host)
        for number in range(options.rounds):
            ways = {
                "dockerd": None,
                "our client": ImagePacker(work / f"packed{number}-{time.time()}", dict),
            }
            rows = [
                ("new image", LARGE, "new"),
                ("next variant", VARIANT, "new"),
                ("another registry's repository", VARIANT, "other"),
            ]
            for title, image, repository in rows:
                for way, packer in ways.items():
                    load, started = os.getloadavg()[0], time.monotonic()
                    result = push_image(
                        engine,
                        image,
                        target,
                        f"{way.replace(' ', '')}{number}/{repository}",
                        image.rpartition(":")[2],
                        credentials=credentials_for(project=project),
                        on_event=silent,
                        packer=packer,
                    )
                    seconds = time.monotonic() - started
                    size = f"{result.size_bytes / 1e6:.0f}"
                    table.add_row(title, way, f"{seconds:.1f}", size, f"{load:.1f}")
    finally:
        stop_local_registry(project)
        engine.close()
        stop_daemon(project)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
