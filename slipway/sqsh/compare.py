"""`inv sqsh.diff`: what differs between two .sqsh, or images as they would be exported."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.engine.client import Engine
from slipway.errors import DriftError, SlipwayError
from slipway.paths import Project
from slipway.registry.model import CredentialsFor
from slipway.report.console import human_bytes
from slipway.report.events import OnEvent, silent
from slipway.report.tables import print_json
from slipway.sqsh import stored
from slipway.sqsh.export import export, export_origin
from slipway.sqsh.outside import layer_cache
from slipway.sqsh.owner import Owner, this_process
from slipway.squashfs.cache import DEFAULT_LIMIT
from slipway.squashfs.diff import Change, diff

_ENGINE = "dockerd://"
_FOLDER = ".diff."


@dataclass(frozen=True)
class Exporter:
    """What it takes to export an image for a comparison. The engine is asked for when needed."""

    project: Project
    engine: Callable[[], Engine]
    credentials: CredentialsFor
    cache_limit: int = DEFAULT_LIMIT  # bytes
    on_event: OnEvent = silent

    @contextmanager
    def opened(self, side: str) -> Iterator[Path]:
        """The file `side`; or the image `dockerd://NAME`, `registry://...` or `oci:FOLDER` as a
        .sqsh, for the block.

        Raises SlipwayError where there is no such file or image.
        """
        if not side.startswith((_ENGINE, *stored.SCHEMES)):
            path = Path(side)
            if not path.is_file():
                raise SlipwayError(
                    "there is no such file",
                    where=side,
                    cure="Give a .sqsh, or an image as dockerd://NAME, registry://HOST/REPO@DIGEST"
                    " or oci:FOLDER.",
                )
            yield path
            return
        with self._folder() as folder:
            path = folder / "image.sqsh"
            self._export(side, path)
            yield path

    def _export(self, uri: str, path: Path) -> None:
        cache = layer_cache(self.project, self.cache_limit)
        if uri.startswith(_ENGINE):
            engine = self.engine()
            try:
                name = uri.removeprefix(_ENGINE)
                export(engine, name, path, cache=cache, build_id="", on_event=self.on_event)
            finally:
                engine.close()
            return
        with stored.opened(uri, self.credentials) as image:
            export_origin(image.origin, path, cache=cache, build_id="", on_event=self.on_event)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """An empty folder, removed at the end; those of killed runs are removed at the start."""
        self.project.sqsh.mkdir(parents=True, exist_ok=True)
        for left in self.project.sqsh.glob(f"{_FOLDER}*"):
            owner = Owner.parse(left.name.removeprefix(_FOLDER).rpartition("-")[0])
            if owner is not None and owner.is_gone:
                shutil.rmtree(left)
        prefix = f"{_FOLDER}{this_process()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.project.sqsh) as name:
            yield Path(name)


def diff_and_tell(
    exporter: Exporter, before: str, after: str, *, times: bool, as_json: bool
) -> None:
    """`inv sqsh.diff A B`. Raises DriftError where the two differ, after telling how."""
    with exporter.opened(before) as first, exporter.opened(after) as second:
        changes = diff(first, second, times=times)
    if as_json:
        print_json([change_json(change) for change in changes])
    else:
        for change in changes:
            print(change_line(change))
    if changes:
        grown = sum((change.after or 0) - (change.before or 0) for change in changes)
        raise DriftError(f"{len(changes)} paths differ, {grown:+,} bytes of content in all")


def change_line(change: Change) -> str:
    """`+ /opt/new  1.2 kB`, `- /opt/old  3 MB`, `~ /etc/x  10 B -> 12 B  (content, mode)`."""
    path = "/" + change.path.decode(errors="backslashreplace")
    if change.before is None:
        return f"+ {path}  {human_bytes(change.after or 0)}"
    if change.after is None:
        return f"- {path}  {human_bytes(change.before)}"
    sizes = human_bytes(change.after)
    if change.before != change.after:
        sizes = f"{human_bytes(change.before)} -> {sizes}"
    return f"~ {path}  {sizes}  ({', '.join(change.what)})"


def change_json(change: Change) -> dict[str, object]:
    """For programs; a path that is not UTF-8 has its bytes as backslash escapes."""
    return {
        "kind": change.kind,
        "path": "/" + change.path.decode(errors="backslashreplace"),
        "before": change.before,
        "after": change.after,
        "what": list(change.what),
    }
