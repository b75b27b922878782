"""`inv sqsh.diff`: what differs between two .sqsh, or images as they would be exported."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.core import CredentialsFor, OnEvent, Owner, Project, SlipwayError, silent, this_process
from slipway.engine import Engine
from slipway.sqsh import stored_images
from slipway.sqsh.export import ExportRequest, export_image, export_source
from slipway.sqsh.stored_images import SCHEMES
from slipway.squashfs import DEFAULT_LIMIT, layer_cache

_ENGINE = "dockerd://"
_FOLDER = ".diff."


@dataclass(frozen=True)
class ImageExporter:
    """What it takes to export an image for a comparison. The engine is asked for when needed."""

    project: Project
    engine: Callable[[], Engine]
    credentials: CredentialsFor
    cache_limit: int = DEFAULT_LIMIT  # bytes
    on_event: OnEvent = silent

    @contextmanager
    def opened(self, side: str) -> Iterator[Path]:
        """The file `side`; or an image (`dockerd://NAME`, `registry://...`, `oci:FOLDER`,
        `docker-archive:FILE`) as a .sqsh, for the block.

        Raises SlipwayError where there is no such file or image.
        """
        if not side.startswith((_ENGINE, *SCHEMES)):
            path = Path(side)
            if not path.is_file():
                raise SlipwayError(
                    "there is no such file",
                    where=side,
                    cure="Give a .sqsh, or an image as dockerd://NAME, registry://HOST/REPO@DIGEST,"
                    " oci:FOLDER or docker-archive:FILE.",
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
                request = ExportRequest(path, "")
                export_image(engine, name, request, cache=cache, on_event=self.on_event)
            finally:
                engine.close()
            return
        with stored_images.open_stored_image(uri, self.credentials, cache.folder) as image:
            export_source(image, ExportRequest(path, ""), cache=cache, on_event=self.on_event)

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
