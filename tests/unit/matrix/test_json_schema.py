"""The schema for editors takes what the loader takes, and no key that the loader does not know."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.matrix import SCHEMA_FILE, versions_schema
from slipway.matrix.entries import read_entries
from slipway.matrix.yaml_file import YamlFile, read_yaml
from tests.support.json_schemas import violations
from tests.support.matrix_samples import SMALL

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads(versions_schema())
FILES = {
    "sample": SMALL,
    "real": (ROOT / "versions.yaml").read_text(),
    **{path.stem: path.read_text() for path in (ROOT / "examples" / "matrix").glob("*.yaml")},
}


def complaints(data: Any) -> list[str]:
    return list(violations(SCHEMA, data, SCHEMA))


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_the_loader_takes_the_schema_takes(name: str) -> None:
    assert complaints(read_yaml(FILES[name]).data) == []


def mappings(data: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a file, outermost first."""
    if isinstance(data, dict):
        yield data
        for inner in data.values():
            yield from mappings(inner)
    elif isinstance(data, list):
        for inner in data:
            yield from mappings(inner)


def test_a_key_is_known_to_the_schema_where_it_is_known_to_the_loader() -> None:
    data = read_yaml(SMALL).data
    for at in range(len(list(mappings(data)))):
        changed = copy.deepcopy(data)
        list(mappings(changed))[at]["no-such-key"] = {"no-such": ["thing"]}
        refused = read_entries(YamlFile(data=changed)).problems
        assert bool(complaints(changed)) == bool(refused), refused


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("package_manager: dnf", "package_manager: yum"),
        ("platform: [hyperpod]", "platform: [laptop]"),
        ("platform: [hyperpod]", "platform: []"),
        ("size_budget_mb: 150", "size_budget_mb: 0"),
        ("size_budget_mb: 150", "size_budget_mb: many"),
        ("python: /opt/venv/bin/python", "python: python3"),
        ('python: "3.12", os', "python: 3.12, os"),
        ("schema: 1", "schema: 2"),
        ("    repository: pytorch\n    axes", "    axes"),
        ("because: one is enough", 'because: ""'),
    ],
)
def test_an_editor_shows_a_mistake_while_it_is_typed(old: str, new: str) -> None:
    assert old in SMALL
    assert complaints(read_yaml(SMALL.replace(old, new)).data)


@pytest.mark.parametrize("more", ["", "facts: {}, ", "x: y, "])
def test_a_base_that_is_an_image_has_no_other_key(more: str) -> None:
    text = f"bases:\n  team: {{{more}image: local}}\n"
    assert bool(complaints(read_yaml(text).data)) == bool(more)


def test_a_file_of_ones_own_needs_no_more_than_what_it_adds() -> None:
    assert complaints({"addons": {"ours": {"env": {"A": "b"}, "because": "it is"}}}) == []


def test_versions_yaml_names_the_schema_that_is_committed() -> None:
    first = FILES["real"].splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE}"
    assert (ROOT / SCHEMA_FILE).is_file()
