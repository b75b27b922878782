"""The resolved cell: all that decides an image, as plain values."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from slipway.matrix.model import Addon, Facts, Family, Image


def explain_image(image: Image) -> dict[str, Any]:
    """The resolved cell: what decides an image, as plain values, the same on every machine and day.

    It goes into the image as a label, so it holds nothing that may change without the content:
    no digest, no date, no alias, no budget, no wording.
    """
    base = image.base
    return {
        "name": image.name,
        "platform": image.platform,
        "base": {
            "name": base.name,
            "registry": base.registry.name if base.registry else None,
            "repository": base.repository,
            "tag": base.tag,
            "flavour": base.flavour,
            **({"image": base.image.name} if base.image else {}),
            "facts": _explain_facts(base.facts),
            "family": {**_plain_values(base.family)},
            "carries": dict(base.carries),
        },
        "addons": [_explain_addon(addon) for addon in image.addons],
        **({"bytecode": True} if image.bytecode else {}),
    }


@functools.lru_cache(maxsize=1024)  # hundreds of images have one base
def _plain_values(value: Facts | Family) -> Mapping[str, Any]:
    return asdict(value)


def _explain_facts(facts: Facts) -> dict[str, Any]:
    """The architecture is said where it is not the one that all images had at first."""
    values = {**_plain_values(facts)}
    if facts.architecture == "amd64":
        del values["architecture"]
    return values


def _explain_addon(addon: Addon) -> dict[str, Any]:
    """Keys that an add-on does not use are left out: a new one changes no label."""
    files = [[each.target, each.mode, each.owner] for each in addon.files]
    source = addon.source and {
        "folder": addon.source.folder,
        "gives": list(addon.source.gives),
        "inputs": {each.name: each.sha256 for each in addon.source.inputs},
    }
    more = {
        "files": files,
        "workdir": addon.workdir,
        "user": addon.user,
        "source": source,
        "system": list(addon.system.names) if addon.system else None,
    }
    return {
        "name": addon.name,
        "action": addon.action,
        "version": addon.version,
        "requirements": list(addon.requirements),
        "env": dict(addon.env),
        **{key: value for key, value in more.items() if value},
    }
