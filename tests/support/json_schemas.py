"""As much of JSON Schema (draft 2020-12) as the schema of versions.yaml uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": Mapping,
    "array": list,
    "string": (str, date),  # editors read a date of YAML 1.1 as the text that it is
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
_KNOWN = {
    "$ref", "anyOf", "const", "enum", "type", "properties", "additionalProperties", "required",
    "patternProperties", "propertyNames", "items", "minItems", "minLength", "pattern",
    "exclusiveMinimum", "maxItems", "minProperties", "if", "then", "else",
}  # fmt: skip
_TELLING = {"$schema", "$defs", "title", "description", "default", "format"}


def violations(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any]) -> Iterator[str]:
    """What the schema does not allow. Raises KeyError for a keyword that is not known here."""
    if unknown := schema.keys() - _KNOWN - _TELLING:
        raise KeyError(*unknown)
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        yield from violations(root["$defs"][name], value, root)
    branches: Sequence[Mapping[str, Any]] = schema.get("anyOf", ())
    if branches and all(any(violations(branch, value, root)) for branch in branches):
        yield f"{value!r} is nothing of anyOf"
    if "if" in schema:
        branch = "else" if any(violations(schema["if"], value, root)) else "then"
        yield from violations(schema.get(branch, {}), value, root)
    if "const" in schema and value != schema["const"]:
        yield f"{value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is none of {schema['enum']}"
    # In Python a truth value is an integer, too.
    if "type" in schema and (
        not isinstance(value, _TYPES[schema["type"]])
        or (isinstance(value, bool) and schema["type"] != "boolean")
    ):
        yield f"{value!r} is no {schema['type']}"
        return
    yield from _of_its_type(schema, value, root)


def _of_its_type(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(value, Mapping):
        if len(value) < schema.get("minProperties", 0):
            yield "too few keys"
        yield from (
            f"{name} is missing" for name in schema.get("required", ()) if name not in value
        )
        for name, inner in value.items():
            yield from violations(schema.get("propertyNames", {}), name, root)
            patterns = schema.get("patternProperties", {}).items()
            matching = [inside for pattern, inside in patterns if re.search(pattern, name)]
            others = matching[0] if matching else schema.get("additionalProperties", {})
            below = schema.get("properties", {}).get(name, others)
            if below is False:
                yield f"{name} is not known"
            elif isinstance(below, Mapping):
                yield from violations(below, inner, root)
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield "too few items"
        if len(value) > schema.get("maxItems", len(value)):
            yield "too many items"
        for inner in value:
            yield from violations(schema.get("items", {}), inner, root)
    elif isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            yield "empty text"
        if not re.search(schema.get("pattern", ""), value):
            yield f"{value!r} is not {schema['pattern']}"
    elif isinstance(value, int) and value <= schema.get("exclusiveMinimum", value - 1):
        yield f"{value} is too small"
