"""What an image that was made is made of, noted for the report: layers, ENV, what starts it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slipway import engine
from slipway.core import Event, Project, SlipwayError
from slipway.pipeline.context import PipelineContext
from slipway.pipeline.image_run import ImageRun
from slipway.records import (
    BuildRecord,
    ImageLayers,
    RecordedLayer,
    load_image_layers,
    save_image_layers,
)

if TYPE_CHECKING:
    from slipway.append import AppendedImage

_NO_FILES = re.compile(
    r"^(/bin/sh -c )?(#\(nop\) +)?"
    r"(ENV|LABEL|USER|ENTRYPOINT|CMD|ARG|EXPOSE|STOPSIGNAL|HEALTHCHECK|SHELL|VOLUME|MAINTAINER)\b"
)
"""Steps of a Dockerfile that leave no layer."""


def note_engine_layers(context: PipelineContext, run: ImageRun, base: str) -> None:
    """Record the layers of a run's image in the engine, unless they are recorded already.

    `base` is what it was built on; where the engine does not have that, no layer is the base's.
    """
    if _is_noted(context.project, run.image.name, run.built):
        return
    try:
        _note_engine_layers(context, run, base)
    except SlipwayError as error:  # the image is what was asked for, and it is there
        text = f"its layers are not recorded: {error.what}"
        context.on_event(Event("notice", f"build {run.image.name}", text=text))


def _note_engine_layers(context: PipelineContext, run: ImageRun, base: str) -> None:
    built = run.built
    facts = engine.inspect_image(context.engine, built.image_id)
    has_base = engine.find_image_id(context.engine, base) is not None
    below = engine.inspect_image(context.engine, base) if has_base else {}
    layers = engine_layers(
        engine.image_history(context.engine, built.image_id),
        _diff_ids(facts),
        _diff_ids(below),
    )
    config, base_config = facts.get("Config") or {}, below.get("Config") or {}
    _save(context.project, run.image.name, built, "unpacked", layers, (config, base_config))


def note_appended_layers(project: Project, run: ImageRun, appended: AppendedImage) -> None:
    """Record the layers of an image that was made without an engine, unless they are recorded."""
    built = run.built
    if _is_noted(project, run.image.name, built):
        return
    document = json.loads(appended.config)
    layers = document_layers(
        document, appended.manifest.json()["layers"], len(appended.base.layers)
    )
    configs = (document.get("config") or {}, appended.base.config.get("config") or {})
    _save(project, run.image.name, built, "compressed", layers, configs)


def engine_layers(
    history: Sequence[Mapping[str, Any]], diff_ids: Sequence[str], base_ids: Sequence[str]
) -> tuple[RecordedLayer, ...]:
    """The layers by an engine's history, oldest first.

    The engine does not say which entries have a layer: those of steps that change files, if there
    are as many of them as layers (a WORKDIR has one where it made its folder); else all that have a
    size, and which layer each is stays open.
    """
    with_files = [entry for entry in history if entry["Size"] or not _NO_FILES.match(_words(entry))]
    empty = [entry for entry in with_files if not entry["Size"] and "WORKDIR" in _words(entry)]
    if len(with_files) - len(empty) == len(diff_ids):
        with_files = [entry for entry in with_files if entry not in empty]
    known = len(with_files) == len(diff_ids)
    entries = with_files if known else [entry for entry in history if entry["Size"]]
    base = len(base_ids) if list(diff_ids[: len(base_ids)]) == list(base_ids) else 0
    return tuple(
        RecordedLayer(
            _words(entry),
            max(int(entry["Size"]), 0),
            diff_ids[number] if known else "",
            known and number < base,
        )
        for number, entry in enumerate(entries)
    )


def _words(entry: Mapping[str, Any]) -> str:
    return str(entry.get("CreatedBy") or entry.get("Comment") or "")


def document_layers(
    document: Mapping[str, Any], descriptors: Sequence[Mapping[str, Any]], base: int
) -> tuple[RecordedLayer, ...]:
    """The layers by an image's configuration and manifest; the lowest `base` are the base's."""
    diff_ids = document["rootfs"]["diff_ids"]
    words = [
        str(entry.get("created_by") or entry.get("comment") or "")
        for entry in document.get("history") or ()
        if not entry.get("empty_layer")
    ]
    if len(words) != len(diff_ids):
        words = [""] * len(diff_ids)
    return tuple(
        RecordedLayer(step, int(descriptor["size"]), str(diff_id), number < base)
        for number, (step, descriptor, diff_id) in enumerate(
            zip(words, descriptors, diff_ids, strict=True)
        )
    )


def _diff_ids(facts: Mapping[str, Any]) -> list[str]:
    return [str(diff_id) for diff_id in (facts.get("RootFS") or {}).get("Layers") or ()]


def _is_noted(project: Project, name: str, built: BuildRecord) -> bool:
    try:
        noted = load_image_layers(project, name)
    except SlipwayError:
        return False  # damaged: written anew
    return noted is not None and noted.image_id == built.image_id


def _save(
    project: Project,
    name: str,
    built: BuildRecord,
    sizes: str,
    layers: tuple[RecordedLayer, ...],
    configs: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> None:
    config, base = configs
    noted = ImageLayers(
        image_id=built.image_id,
        build_id=built.build_id,
        sizes=sizes,
        layers=layers,
        env=tuple(config.get("Env") or ()),
        base_env=tuple(base.get("Env") or ()),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        user=str(config.get("User") or ""),
        workdir=str(config.get("WorkingDir") or ""),
    )
    save_image_layers(project, name, noted)
