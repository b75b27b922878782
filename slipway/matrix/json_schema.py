"""The JSON schema of versions.yaml, for editors: completion, and a first check while typing.

Made of the models that the loader uses. The loader says more (what has to agree between entries),
and says it with lines and cures, so it is the one that decides.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from slipway.matrix.field_types import Entry
from slipway.matrix.schema import SECTIONS, Head, ImageBaseEntry, SeriesEntry

SCHEMA_FILE = "versions.schema.json"
"""Beside versions.yaml, whose first line names it."""


def versions_schema() -> str:
    """The schema as it is committed.

    No key is asked for at the top: versions.d/*.yaml have the same schema, and hold what their
    owner wants.
    """
    models: list[type[Entry]] = [Head, *SECTIONS.values(), ImageBaseEntry]
    _, document = models_json_schema([(model, "validation") for model in models])
    definitions: dict[str, Any] = document["$defs"]
    head = definitions.pop(Head.__name__)
    sections = {
        section: {
            "type": "object",
            "description": definitions[model.__name__]["description"],
            "additionalProperties": _reference(model),
        }
        for section, model in SECTIONS.items()
    }
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "versions.yaml of Slipway",
        "type": "object",
        "additionalProperties": False,
        "properties": {**head["properties"], **sections},
        "$defs": definitions,
    }
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def _reference(model: type[Entry]) -> dict[str, Any]:
    """What an entry of a section may be."""
    reference = {"$ref": f"#/$defs/{model.__name__}"}
    if model is not SeriesEntry:
        return reference
    of_an_image = {"$ref": f"#/$defs/{ImageBaseEntry.__name__}"}
    return {"if": {"required": ["image"]}, "then": of_an_image, "else": reference}
