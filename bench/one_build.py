"""One build by several builders: ids, digests and .sqsh of each, in a row, killed, and at once.

    .venv/bin/python -m bench.one_build --work DIR [--engine unix:///SOCKET ...]

Builders are the embedded engine, one without an engine, and each engine that is named (one with
containerd's store, say), which has to be on this machine. The image is a small one on a base in a
registry on loopback; what is compared does not depend on its size. Root.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slipway.core import Event, Project, anonymous, silent
from slipway.engine import Engine, connect, stop_daemon
from slipway.registry import RegistryClient
from tests.support.one_build import Builder, BuilderResult, OneBuild, make_build, put_base
from tests.support.registry.open_registry import open_registry

ROOT = Path(__file__).parents[1]


def name_of(engine: Engine | None) -> str:
    """How the table calls a builder."""
    if engine is None:
        return "no engine"
    store = "containerd store" if engine.containerd_store else "overlay2"
    return f"{engine.version.partition('+')[0]}, {store}"


def killed(builder: Builder, build: OneBuild, path: str) -> None:
    """A ship that is killed in the push."""
    assert builder.engine
    url = builder.engine.url
    child = os.fork()
    if child == 0:

        def die(event: Event) -> None:
            if event.task.startswith("push") and event.kind == "progress":
                os.kill(os.getpid(), signal.SIGKILL)

        Builder(builder.state, builder.host, connect(builder.project, url)).ship(build, path, die)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def timed(make: Callable[[], BuilderResult]) -> tuple[BuilderResult, float]:
    """A result and how long it took."""
    started = time.monotonic()
    return make(), time.monotonic() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--engine", action="append", default=[])
    options = parser.parse_args()
    work = options.work.resolve()
    project = Project(ROOT, work / "state")
    stack = ExitStack()
    host = stack.enter_context(open_registry(work / "registry"))
    engines = [connect(project, choice) for choice in ("embedded", *options.engine)]
    run = f"{time.time():.0f}"
    table = Table("builder", "how", "image id", "digest", ".sqsh", "sent", "seconds")
    try:
        with RegistryClient(host, anonymous) as client:
            build = make_build(host, put_base(client), work / "wheels")
        builders = [
            Builder(work / f"{run}-{number}", host, engine)
            for number, engine in enumerate([*engines, None])
        ]

        def row(builder: Builder, how: str, done: tuple[BuilderResult, float]) -> None:
            result, seconds = done
            digests = [result.image_id, result.digest, result.sqsh]
            sent = "nothing" if result.already else "yes"
            shown = [digest.removeprefix("sha256:")[:12] for digest in digests]
            table.add_row(name_of(builder.engine), how, *shown, sent, f"{seconds:.1f}")

        for number, builder in enumerate(builders):
            path = f"one/alone-{run}-{number}"
            if builder.engine:
                killed(builder, build, path)
            how = "alone, after one that was killed" if builder.engine else "alone"
            row(builder, how, timed(lambda b=builder, p=path: b.ship(build, p)))  # type: ignore[misc]
        for builder in builders:
            done = timed(lambda b=builder: b.ship(build, f"one/row-{run}"))  # type: ignore[misc]
            row(builder, "in a row", done)
        with ThreadPoolExecutor(len(builders)) as pool:
            at_once = pool.map(
                lambda builder: timed(lambda: builder.ship(build, f"one/once-{run}", silent)),
                builders,
            )
            for builder, done in zip(builders, at_once, strict=True):
                row(builder, "at once", done)
    finally:
        for engine in engines:
            engine.close()
        stop_daemon(project)
        stack.close()
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
