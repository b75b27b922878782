"""The default image, the one without add-ons and their base, made once for all processes of tests.

    python -m tests.support.shared_base STATE

Leaves them in the engine whose files are in STATE/engine/data, what they are made of in
STATE/cache, and their layers as squashfs in STATE/sqsh/layers. Each process of tests that builds
them starts with a copy; without one it makes its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from slipway.core import Project, silent
from slipway.engine import connect, start_daemon, stop_daemon
from slipway.matrix import load_matrix
from slipway.records import load_record
from slipway.registry import (
    ImagePacker,
    credentials_for,
    push_image,
    start_local_registry,
    stop_local_registry,
)
from tests.support.clones import ROOT, Clone

PARTS = ("cache", "engine/data", "sqsh/layers")


def make_shared_base(state: Path) -> None:
    """Make them, unless an earlier run has."""
    project = Project(ROOT, state)
    start_daemon(project)
    try:
        clone = Clone(ROOT, state)
        image = load_matrix(project.versions).default_image
        _inv(clone, "build", image, "local")
        # Their layers are kept, compressed in two ways. (`push` would verify them first.)
        _inv(clone, "sqsh", image)
        _pack(project, image)
    finally:
        stop_local_registry(project)
        stop_daemon(project)


def _inv(clone: Clone, *words: str) -> None:
    with clone.start(*words) as process:
        try:
            out, err = process.communicate()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # in a session of its own it hears of no Ctrl-C
            raise
    if process.returncode:
        raise SystemExit(f"{out}{err}")


def _pack(project: Project, image: str) -> None:
    built = load_record(project, image).built
    assert built is not None
    engine, target = connect(project, "embedded"), start_local_registry(project)
    push_image(
        engine, built.reference, target, "shared/local", "1",
        credentials=credentials_for(project=project), on_event=silent,
        packer=ImagePacker(project.packed, dict),
    )  # fmt: skip
    engine.close()


def copy_shared_base(made: Path, state: Path) -> None:
    """Begin a state with what was made in another; does nothing for what is in it already."""
    for part in PARTS:
        if (made / part).is_dir() and not (state / part).exists():
            (state / part).parent.mkdir(parents=True, exist_ok=True)
            # Layers have devices for what they hide, and attributes of the file system's.
            subprocess.run(["cp", "-a", str(made / part), str(state / part)], check=True)


if __name__ == "__main__":
    make_shared_base(Path(sys.argv[1]))
