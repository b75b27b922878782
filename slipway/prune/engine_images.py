"""Images and build cache of an engine.

Never an image that a container was made of, that a lock pins, or that is an embedded base: the
next build would fetch or make it again. Sizes are what goes at the least: layers that only images
in the list share go as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from docker.errors import APIError, ImageNotFound

from slipway.core import EntryFaults
from slipway.engine import Engine, EngineError, inspect_image, sdk_answer, sdk_errors
from slipway.matrix import LOCAL_REGISTRY
from slipway.prune.removable import Removable, RemovalStep
from slipway.records import Locks

_NO_TAG = "<none>:<none>"


def pinned_images(locks: Locks) -> frozenset[str]:
    """The digests that images/lock pins."""
    return frozenset(base.digest for base in locks.bases.values() if base.digest)


def unused_images(
    images: Sequence[Mapping[str, Any]],
    used: Iterable[str],
    pins: frozenset[str],
    last_use: Mapping[str, float],
    before: float,
) -> tuple[tuple[Removable, ...], tuple[Removable, ...]]:
    """The dangling images, and the named ones that nobody pulled or tagged since `before`.

    `images` are as `GET /system/df` lists them, `used` the ids that containers were made of,
    times in seconds since 1970. What an image that stays was built on stays, too.
    """
    kept = set(used)
    for image in images:
        tags = image_names(image)
        ours = any(tag.startswith(f"{LOCAL_REGISTRY}/") for tag in tags)
        recent = bool(tags) and last_use.get(image["Id"], 0.0) >= before
        if ours or recent or _digests(image) & pins:
            kept.add(image["Id"])
    parents = {image["Id"]: image.get("ParentId") or "" for image in images}
    for identity in list(kept):
        while (identity := parents.get(identity, "")) and identity not in kept:
            kept.add(identity)
    going = [image for image in images if image["Id"] not in kept]
    dangling = tuple(_item(image) for image in going if not image_names(image))
    return dangling, tuple(_item(image) for image in going if image_names(image))


def image_names(image: Mapping[str, Any]) -> list[str]:
    """The tags of a listed image."""
    return [tag for tag in image.get("RepoTags") or () if tag != _NO_TAG]


def _digests(image: Mapping[str, Any]) -> set[str]:
    return {name.partition("@")[2] for name in image.get("RepoDigests") or ()}


def _item(image: Mapping[str, Any]) -> Removable:
    shared = max(int(image.get("SharedSize") or 0), 0)  # -1 where the daemon did not count it
    return Removable(
        " ".join(image_names(image)) or image["Id"], max(int(image["Size"]) - shared, 0)
    )


def image_steps(
    engine: Engine, locks: Locks, before: float, faults: EntryFaults
) -> tuple[RemovalStep, ...]:
    """What can go in an engine. Raises EngineError; an image that it cannot describe stays."""
    api = engine.client.api
    with sdk_errors(engine, "measuring images and build cache"):
        usage = api.df()
        used = {container["ImageID"] for container in api.containers(all=True)}
    images = usage.get("Images") or ()
    last_use = {image["Id"]: math.inf for image in images}
    for image in images:
        with faults.skip(EngineError):
            last_use[image["Id"]] = _last_use(engine, image)
    dangling, old = unused_images(images, used, pinned_images(locks), last_use, before)

    def remove(item: Removable) -> str | None:
        return _remove(engine, item)

    return (
        RemovalStep("dangling images", dangling, remove),
        RemovalStep("unused images", old, remove),
        _cache_step(engine, usage.get("BuildCache") or (), before),
    )


def _last_use(engine: Engine, image: Mapping[str, Any]) -> float:
    """When it was pulled or tagged; its own date is when somebody built it, maybe long ago."""
    tagged = (inspect_image(engine, image["Id"]).get("Metadata") or {}).get("LastTagTime")
    return max(_seconds(tagged), float(image["Created"]))


def _seconds(text: str | None) -> float:
    if not text or text.startswith("0001-"):  # Go's zero time
        return 0.0
    moment = datetime.fromisoformat(text[:19]).replace(tzinfo=timezone.utc)
    zone = text[19:].lstrip(".0123456789")
    if zone not in ("", "Z"):
        sign = -1 if zone[0] == "-" else 1
        hours, minutes = zone[1:].split(":")
        return moment.timestamp() - sign * (int(hours) * 3600 + int(minutes) * 60)
    return moment.timestamp()


def _remove(engine: Engine, item: Removable) -> str | None:
    for name in item.name.split(" "):
        with sdk_errors(engine, f"removing {name}"):
            try:
                engine.client.api.remove_image(name, force=False)
            except ImageNotFound:
                continue  # it went with an image that was built on it
            except APIError as error:
                return f"{name} stays: {sdk_answer(error)}"
    return None


def _cache_step(engine: Engine, cache: Sequence[Mapping[str, Any]], before: float) -> RemovalStep:
    going = [
        record
        for record in cache
        if not record["InUse"] and _seconds(record.get("LastUsedAt")) < before
    ]
    size = sum(int(record["Size"]) for record in going if not record.get("Shared"))
    items = (Removable(f"{len(going)} records", size),) if going else ()

    def remove(item: Removable) -> str | None:
        del item
        # A duration: 20.10 takes nothing else here.
        until: Any = {"until": [f"{int(time.time() - before)}s"]}
        with sdk_errors(engine, "removing build cache"):
            engine.client.api.prune_builds(filters=until, all=True)
        return None

    return RemovalStep("build cache", items, remove)
