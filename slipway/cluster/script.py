"""A job -> the text of its script. Pure: the same values give the same text anywhere."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from slipway.cluster import (
    hyperpod_recipes,
    launcher_tables,
    script,
    slurm_job,
    sqsh_file,
    training_kinds,
)
from slipway.cluster.hyperpod_recipes import RecipeRun
from slipway.cluster.slurm_job import ScriptRequest, SlurmJob
from slipway.core import Project, UsageError, say, write_atomic
from slipway.matrix import Image, load_matrix, select_images

MARK = "# Written by `./inv slurm.script`."

TEMPLATES = Path(__file__).with_name("templates")

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shell_word(text: str) -> str:
    """`text` as one word of bash, on one line whatever is in it.

    sbatch refuses scripts with DOS line ends, and a person reads lines: control characters are
    written as escapes.
    """
    if not any(character < " " or character == "\x7f" for character in text):
        return shlex.quote(text)
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character < " " or character == "\x7f":
        return _ESCAPES.get(character, f"\\{ord(character):03o}")
    return _ESCAPES.get(character, character)


@functools.cache
def _environment() -> Environment:
    environment = Environment(  # noqa: S701 - shell scripts, not HTML
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["word"] = shell_word
    return environment


def render_template(name: str, **values: object) -> str:
    """A template of templates/ with these values; `|word` makes one word of bash of each."""
    return _environment().get_template(name).render(**values)


def render_sbatch(job: SlurmJob) -> str:
    """The sbatch file of a job."""
    return render_template("job.sbatch.j2", job=job)


def render_recipe(run: RecipeRun) -> str:
    """The script that hands a run to the HyperPod recipes' own launcher."""
    return render_template("recipe.sh.j2", run=run)


@dataclass(frozen=True)
class JobScript:
    """The script of one image's job, and what the person who asked should know."""

    image: str
    job_name: str
    text: str
    is_recipe: bool
    notes: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """What it is called unless something else is asked for."""
        return f"{self.image}.{'sh' if self.is_recipe else 'sbatch'}"

    @property
    def data(self) -> bytes:
        """The file's content: words of a command line may be no text."""
        return self.text.encode(errors="surrogateescape")


def make_script(
    root: Path,
    name: str,
    request: ScriptRequest,
    *,
    current_build_id: Callable[[Image], str],
    sqsh: str = "",
) -> JobScript:
    """The script for image `name`.

    A file of another build than `current_build_id` gives is used, and noted. Raises SlipwayError
    for what cannot work.
    """
    project = Project.at(root)
    matrix = load_matrix(project.versions)
    images = select_images(matrix, [name])
    if len(images) != 1:
        raise UsageError(
            f"{name!r} names {len(images)} images, and a script starts one",
            cure=f"One of {', '.join(image.name for image in images)}.",
        )
    (image,) = images
    for option, value in (("--nodes", request.nodes), ("--instance", request.instance)):
        if not value:
            raise UsageError(f"{option} is missing", cure="`./inv --help slurm.script` explains.")
    launcher = project.launcher
    launcher_tables.find_instance_row(launcher, request.instance)  # before anything is looked for
    is_recipe = (
        training_kinds.choose_training_kind(request.flavour, image) == training_kinds.RECIPES
    )
    if sqsh:
        file = sqsh_file.sqsh_on_cluster(project, image.name, sqsh)
    else:
        elsewhere = "; or say where the cluster has it: --sqsh PATH"
        file = sqsh_file.newest_sqsh(project, image.name, otherwise=elsewhere)
    notes: tuple[str, ...] = ()
    job_name = image.name
    if is_recipe:
        text = script.render_recipe(
            hyperpod_recipes.make_recipe_run(request, image, file, launcher)
        )
    else:
        job = slurm_job.make_slurm_job(request, image, file, launcher)
        text, notes, job_name = script.render_sbatch(job), job.notes, job.name
    build_id = current_build_id(image)
    if not file.is_build(build_id):
        notes = (
            f"{Path(file.path).name} is not the build that the matrix gives now"
            f" ({build_id[:12]}): `./inv sqsh {image.name}` exports that",
            *notes,
        )
    if file.digest is None:
        notes = (*notes, f"nothing is known of {file.path} here; the job reads {file.path}.json")
    return JobScript(image.name, job_name, text, is_recipe, notes)


def write_script(
    root: Path,
    name: str,
    request: ScriptRequest,
    *,
    current_build_id: Callable[[Image], str],
    sqsh: str = "",
    output: str = "",
) -> None:
    """Write the script for image `name`: to NAME.sbatch (a recipe: NAME.sh), or "-" for stdout.

    Raises SlipwayError for what cannot work, and for a file of that name which is not ours.
    """
    made = script.make_script(root, name, request, current_build_id=current_build_id, sqsh=sqsh)
    path = Path(output or made.file_name)
    if output == "-":
        sys.stdout.buffer.write(made.data)
        sys.stdout.buffer.flush()
    else:
        _refuse_others(path)
        write_atomic(path, made.data, mode=0o755)
    for note in made.notes:
        say(f"note: {note}")
    if output != "-":
        submit = "bash" if made.is_recipe else "sbatch"
        say(f"wrote {path}; on the cluster: {submit} {shlex.quote(path.name)}")


def _refuse_others(path: Path) -> None:
    """A script is written again and again; anything else at its place is not ours to replace."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", cure="Give a file: --output FILE")
    if path.exists() and MARK not in path.read_text("utf-8", errors="replace"):
        raise UsageError(
            f"{path} exists and was not written by this task", cure="Choose another --output."
        )
