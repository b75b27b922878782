"""docs/versions.md and docs/settings.md: every key of versions.yaml and invoke.yaml, from the code.

The keys of versions.yaml are those of its schema, which the loader's own classes give; those of
invoke.yaml are said where they stand.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from slipway.core import SlipwayError

_VERSIONS_HEAD = """# versions.yaml

Written by `./inv generate` from the schema, which editors read, too
([versions.schema.json](../versions.schema.json)). Files of `versions.d/` have the same keys.
"""
_SETTINGS_HEAD = """# Settings

Written by `./inv generate` from [invoke.yaml](../invoke.yaml). A flag of a task wins over the
variable, the variable over your own `~/.invoke.yaml`, and that over the file.
"""
_SETTING = re.compile(r"^  (?P<key>\w+): (?P<value>\"[^\"]*\"|[^#\s]+) *(?:# (?P<text>.*))?$")
_WIDTH = 118


def versions_page(text: str) -> str:
    """The page of versions.yaml by its schema: the file's own keys, then those of each entry."""
    schema = json.loads(text)
    kinds = schema["$defs"]
    top = {**schema, "description": "The keys of a file."}
    lines = [_VERSIONS_HEAD, *_section("The file", top)]
    for name in _in_order(schema):
        lines += _section(name.removesuffix("Entry").lower(), kinds[name])
    return "\n".join(lines)


def _in_order(schema: Mapping[str, Any]) -> list[str]:
    """The kinds of entries in the order in which the file comes to them."""
    order: list[str] = []

    def visit(part: Any) -> None:
        if isinstance(part, Mapping):
            reference = str(part.get("$ref", "")).rpartition("/")[2]
            if reference and reference not in order:
                order.append(reference)
                visit(schema["$defs"][reference])
            for key in sorted(part):
                visit(part[key])
        elif isinstance(part, list):
            for item in part:
                visit(item)

    visit(schema["properties"])
    return order


def _section(title: str, kind: Mapping[str, Any]) -> Iterator[str]:
    text = " ".join(str(kind.get("description", "")).split())
    yield f"## {title}"
    yield ""
    yield from textwrap.wrap(text, _WIDTH, break_on_hyphens=False, break_long_words=False)
    yield ""
    required = kind.get("required", [])
    if kind.get("properties"):
        yield "| key | takes | without it |"
        yield "|---|---|---|"
    for key, value in kind.get("properties", {}).items():
        absent = "must be there" if key in required else _absent(value)
        yield f"| `{key}` | {_takes(value)} | {absent} |"
    yield ""


def _absent(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if default in (None, "", [], {}):
        return "nothing"
    return f"`{json.dumps(default)}`".replace("|", r"\|")


def _takes(value: Mapping[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in value:
        name = str(value["$ref"]).rpartition("/")[2].removesuffix("Entry").lower()
        return f"[{name}](#{name})"
    for many in ("anyOf", "oneOf"):
        if many in value:
            kinds = [_takes(one) for one in value[many] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "if" in value:
        return " or ".join(_takes(value[branch]) for branch in ("else", "then"))
    if "enum" in value or "const" in value:
        choices = value.get("enum", [value.get("const")])
        return ", ".join(f"`{choice}`" for choice in choices)
    if value.get("type") == "array":
        return f"list of {_takes(value.get('items', {}))}"
    if value.get("type") == "object":
        inner: object = value.get("additionalProperties") or next(
            iter(value.get("patternProperties", {}).values()), {}
        )
        return f"names of {_takes(inner) if isinstance(inner, Mapping) else 'anything'}"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(
        str(value.get("type")), "anything"
    )


def settings_page(text: str) -> str:
    """The page of invoke.yaml, whose lines say what they are for.

    Raises SlipwayError for a setting that does not say it.
    """
    rows = ["| setting | default | variable | meaning |", "|---|---|---|---|"]
    for line in text.splitlines():
        found = _SETTING.match(line)
        if found is None:
            continue
        key, meaning = found["key"], found["text"]
        if not meaning:
            raise SlipwayError(
                f"invoke.yaml does not say what {key} is for",
                cure="Say it behind the value, after a `#`.",
            )
        default = found["value"].strip('"')
        shown = f"`{default}`" if default else ""
        rows.append(f"| `slipway.{key}` | {shown} | `INVOKE_SLIPWAY_{key.upper()}` | {meaning} |")
    return "\n".join([_SETTINGS_HEAD, *rows, ""])
