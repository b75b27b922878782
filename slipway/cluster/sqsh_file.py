"""Which .sqsh a job starts from, and what is known of it here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from slipway.cluster import option_values
from slipway.core import Project, SlipwayError, UsageError
from slipway.records import load_record
from slipway.sqsh import read_sidecar


@dataclass(frozen=True)
class SqshFile:
    """A .sqsh on the cluster. Where size (bytes) and digest (of its pieces) are not known here, its
    sidecar on the cluster tells them to the job. `build_id`: of its sidecar, where one was read."""

    path: str
    size: int | None = None
    digest: str | None = None
    build_id: str | None = field(default=None, compare=False)

    def is_build(self, build_id: str) -> bool:
        """Whether it holds this build: as its sidecar says, else as its name does."""
        if self.build_id is not None:
            return self.build_id == build_id
        return build_id[:12] in Path(self.path).name


def newest_sqsh(project: Project, image: str, *, otherwise: str = "") -> SqshFile:
    """The image's newest export. Raises SlipwayError where there is none any more.

    `otherwise`: what its cure names beside an export: another way to say which file is meant.
    """
    exported = load_record(project, image).exported
    if exported is None or not Path(exported.path).exists():
        raise SlipwayError(
            f"{image} has no .sqsh" + (f" at {exported.path} any more" if exported else " yet"),
            cure=f"Export it: `./inv sqsh {image}`{otherwise}.",
        )
    path = option_values.absolute_path(exported.path, "the .sqsh")
    return SqshFile(path, exported.size, exported.digest)


def sqsh_on_cluster(project: Project, image: str, path: str) -> SqshFile:
    """The .sqsh at `path` of the cluster: known by a sidecar that is readable here, or, since a
    file's name says which build it holds, by the export that has the same name."""
    path = option_values.absolute_path(path, "--sqsh")
    if not path.endswith(".sqsh"):
        # pyxis takes anything else for the name of an image to pull.
        raise UsageError(f"--sqsh {path!r} does not end in .sqsh")
    for candidate in (Path(path), project.sqsh / Path(path).name):
        sidecar = read_sidecar(candidate)
        if sidecar is not None:
            return SqshFile(path, sidecar.size, sidecar.digest, sidecar.build_id)
    exported = load_record(project, image).exported
    if exported is not None and Path(exported.path).name == Path(path).name:
        return SqshFile(path, exported.size, exported.digest)
    return SqshFile(path)
