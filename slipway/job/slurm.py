"""`inv slurm.script`: choose, render, write, and say how to submit."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from slipway.cluster import flavours, job, launcher_tables, recipes, render, sqsh_file
from slipway.cluster.job import Request
from slipway.errors import UsageError
from slipway.files import write_atomic
from slipway.job.house import House
from slipway.matrix.expand import select
from slipway.report.tables import say

MARK = "# Written by `./inv slurm.script`."


def write(root: Path, name: str, request: Request, *, sqsh: str = "", output: str = "") -> None:
    """Write the script for image `name`: to NAME.sbatch (a recipe: NAME.sh), or "-" for stdout.

    Raises SlipwayError for what cannot work, and for a file of that name which is not ours.
    """
    house = House.at(root)
    images = select(house.matrix, [name])
    if len(images) != 1:
        raise UsageError(
            f"{name!r} names {len(images)} images, and a script starts one",
            cure=f"One of {', '.join(image.name for image in images)}.",
        )
    (image,) = images
    for option, value in (("--nodes", request.nodes), ("--instance", request.instance)):
        if not value:
            raise UsageError(f"{option} is missing", cure="`./inv --help slurm.script` explains.")
    launcher = house.project.launcher
    launcher_tables.instance(launcher, request.instance)  # before anything is looked for
    is_recipe = flavours.choose(request.flavour, image) == flavours.RECIPES
    if sqsh:
        file = sqsh_file.on_the_cluster(house.project, image.name, sqsh)
    else:
        file = sqsh_file.newest(house.project, image.name)
    notes: tuple[str, ...] = ()
    if is_recipe:
        text = render.recipe(recipes.make(request, image, file, launcher))
    else:
        made = job.make(request, image, file, launcher)
        text, notes = render.sbatch(made), made.notes
    path = Path(output or f"{image.name}.{'sh' if is_recipe else 'sbatch'}")
    data = text.encode(errors="surrogateescape")
    if output == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        _refuse_others(path)
        write_atomic(path, data, mode=0o755)
    build_id = house.inputs([image])[image.name].build_id
    if build_id[:12] not in Path(file.path).name:
        notes = (
            f"{Path(file.path).name} is not the build that the matrix gives now"
            f" ({build_id[:12]}): `./inv sqsh {image.name}` exports that",
            *notes,
        )
    for note in notes:
        say(f"note: {note}")
    if file.digest is None:
        say(f"note: nothing is known of {file.path} here; the job reads {file.path}.json")
    if output != "-":
        submit = "bash" if is_recipe else "sbatch"
        say(f"wrote {path}; on the cluster: {submit} {shlex.quote(path.name)}")


def _refuse_others(path: Path) -> None:
    """A script is written again and again; anything else at its place is not ours to replace."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", cure="Give a file: --output FILE")
    if path.exists() and MARK not in path.read_text("utf-8", errors="replace"):
        raise UsageError(
            f"{path} exists and was not written by this task", cure="Choose another --output."
        )
