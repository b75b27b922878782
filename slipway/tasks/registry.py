"""`inv registry`: the registry on this machine, and what a target has of our images."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context

from slipway import pipeline, registry
from slipway.core import (
    EntryFaults,
    Project,
    human_bytes,
    print_fields,
    print_json,
    print_table,
    say,
)
from slipway.tasks.commands import IMAGE_NAMES, JSON, NAMES, REGION, ROOT, TARGET, task_command


@task_command()
def registry_up(c: Context) -> None:
    """Start the registry on this machine and print its host."""
    port = pipeline.Settings.of(c.config).registry_port
    print(registry.start_local_registry(Project.at(ROOT), port).host)


@task_command()
def registry_down(c: Context) -> None:
    """Stop the registry on this machine; what was pushed stays."""
    say("stopped" if registry.stop_local_registry(Project.at(ROOT)) else "it was not running")


@task_command(help=JSON)
def registry_status(c: Context, json: bool = False) -> None:
    """Where the registry on this machine listens and keeps its data."""
    print_fields(registry.local_registry_status(Project.at(ROOT)), as_json=json)


@task_command(positional=[], images=NAMES, help={**IMAGE_NAMES, **JSON, **REGION, **TARGET})
def registry_list(
    c: Context, names: list[str], region: str = "", target: str = "", json: bool = False
) -> None:
    """The builds and aliases of our images that the target has."""
    faults = EntryFaults()
    tags = pipeline.list_target(ROOT, _settings(c, region, target), names, faults)
    if json:
        print_json(tags)
    else:
        rows = [
            (tag.repository, tag.tag, tag.kind, tag.digest[:19], ", ".join(tag.images))
            for tag in tags
        ]
        print_table(("repository", "tag", "kind", "digest", "images"), rows)
    faults.raise_any()


@task_command(
    images="name",
    help={
        **JSON,
        **REGION,
        **TARGET,
        "name": "image, whose current build is meant, or NAME@DIGEST",
        "output": "folder for the files beside it: bill of materials, cell, checks, build log",
    },
)
def registry_show(
    c: Context, name: str, region: str = "", target: str = "", output: str = "", json: bool = False
) -> None:
    """One image in the target: digest, size, what is beside it, the aliases that name it."""
    folder = Path(output) if output else None
    faults = EntryFaults()
    image = pipeline.show_target_image(ROOT, _settings(c, region, target), name, faults, folder)
    if json:
        print_json(image)
    else:
        print_table(("what", "value"), _image_rows(image))
    faults.raise_any()


def _image_rows(image: pipeline.TargetImage) -> list[tuple[str, str]]:
    rows = [
        ("image", image.image),
        ("uri", f"{image.uri} ({image.media_type})"),
        ("digest", image.digest),
        ("size", f"{human_bytes(image.size)} compressed, {image.layers} layers"),
        ("created", image.created),
        ("build id", image.build_id),
    ]
    for artefact in image.artefacts:
        files = ", ".join(file.title for file in artefact.files)
        text = f"{artefact.kind} {artefact.digest[:19]}, {human_bytes(artefact.size)}: {files}"
        rows.append(("beside it", text.removesuffix(": ")))
    for alias, digest in image.aliases.items():
        names = "this image" if digest == image.digest else digest or "nothing yet"
        rows.append((f"alias {alias}", names))
        for move in image.journal[alias]:
            text = f"{move.number}: {move.action} to {move.after[:19]} by {move.who}, {move.when}"
            rows.append(("", text))
    return rows


@task_command(positional=[], images=NAMES, help={**IMAGE_NAMES, **JSON, **REGION, **TARGET})
def registry_mirror(
    c: Context, names: list[str], region: str = "", target: str = "", json: bool = False
) -> None:
    """Copy the bases of images into the target, blob by blob, once for each digest."""
    copies = pipeline.mirror_bases(ROOT, _settings(c, region, target), names)
    if json:
        print_json(copies)
        return
    for copy in copies:
        text = "is there" if copy.already else f"{human_bytes(copy.sent)} sent"
        say(f"{copy.digest}: {text}")


@task_command(
    positional=[],
    images=NAMES,
    help={
        **IMAGE_NAMES,
        **JSON,
        **REGION,
        **TARGET,
        "yes": "remove them; without this nothing is removed",
    },
)
def registry_prune(
    c: Context,
    names: list[str],
    region: str = "",
    target: str = "",
    yes: bool = False,
    json: bool = False,
) -> None:
    """Old builds in the target that no alias, no rollback and no current image needs."""
    faults = EntryFaults()
    builds = pipeline.prune_target(ROOT, _settings(c, region, target), names, faults, apply=yes)
    if json:
        print_json(builds)
    else:
        rows = [
            (build.repository, ", ".join(build.tags), build.digest[:19], str(len(build.referrers)))
            for build in builds
        ]
        print_table(("repository", "tags", "digest", "referrers"), rows)
        say(f"{len(builds)} old builds{' removed' if yes else ': --yes removes them'}")
    faults.raise_any()


def _settings(c: Context, region: str, target: str) -> pipeline.Settings:
    return pipeline.Settings.of(c.config, region=region, target=target)


ns = Collection(
    "registry",
    up=registry_up,
    down=registry_down,
    status=registry_status,
    list=registry_list,
    show=registry_show,
    mirror=registry_mirror,
    prune=registry_prune,
)
