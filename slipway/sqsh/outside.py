"""What `inv sqsh` does without an engine: export stored images, and check files."""

from __future__ import annotations

import re
from pathlib import Path

from slipway.paths import Project
from slipway.registry.model import CredentialsFor
from slipway.report.console import Reporter, human_bytes
from slipway.report.events import Event, OnEvent, silent
from slipway.sqsh import sidecar, stored
from slipway.sqsh.export import export_origin
from slipway.sqsh.options import SqshOptions
from slipway.squashfs.cache import DEFAULT_LIMIT, Cache
from slipway.squashfs.verify import Found, check

_PROGRESS_BYTES = 64 << 20


def layer_cache(project: Project, limit: int = DEFAULT_LIMIT) -> Cache:
    """The project's compiled layers, kept below `limit` bytes."""
    return Cache(project.sqsh / "layers", limit)


def export_stored(
    project: Project,
    uri: str,
    credentials: CredentialsFor,
    *,
    cache_limit: int = DEFAULT_LIMIT,
    options: SqshOptions | None = None,
    folder: Path | None = None,
    force: bool = False,
    on_event: OnEvent = silent,
) -> Path:
    """Export the image at `registry://...` or `oci:...`; the path of the .sqsh.

    Its name says what it holds: the repository's last part and the manifest's digest.
    """
    with stored.opened(uri, credentials) as image:
        words = re.split(r"[@:]", image.origin.image.reference.rpartition("/")[2])
        name = next(word for word in words if word not in ("oci", ""))
        path = (folder or project.sqsh) / f"{name}-{image.digest[7:19]}.sqsh"
        export_origin(
            image.origin,
            path,
            cache=layer_cache(project, cache_limit),
            options=options,
            build_id=image.digest.removeprefix("sha256:"),
            force=force,
            on_event=on_event,
        )
    return path


def verify_file(path: Path, on_event: OnEvent = silent) -> Found:
    """Check a .sqsh against its sidecar, then its structure and every byte of its contents.

    Raises SlipwayError with the first thing that is wrong.
    """
    task = f"verify {path.name}"
    on_event(Event("start", task))
    sidecar.verify(path)
    done = said = 0

    def on_bytes(count: int) -> None:
        nonlocal done, said
        done += count
        if done - said >= _PROGRESS_BYTES:
            said = done
            on_event(Event("progress", task, "contents", current=done, unit="B"))

    found = check(path, on_bytes=on_bytes)
    text = f"{found.entries} paths, {human_bytes(found.content)} of content"
    on_event(Event("done", task, text=text))
    return found


def verify_and_tell(path: Path) -> None:
    """`inv sqsh.verify FILE`."""
    with Reporter() as reporter:
        verify_file(path, reporter.on_event)
