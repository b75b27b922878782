"""versions.yaml as checked entries: each entry by itself, so that one error hides no other."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Union, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from slipway.core import did_you_mean
from slipway.matrix.addons import AddonEntry, ArchiveEntry, ToolEntry
from slipway.matrix.field_types import Entry
from slipway.matrix.schema import (
    OPTIONAL_SECTIONS,
    SECTIONS,
    FamilyEntry,
    GroupEntry,
    Head,
    ImageBaseEntry,
    LeftOutEntry,
    ReferenceEntry,
    RegistryEntry,
    SeriesEntry,
)
from slipway.matrix.yaml_file import Path, Problem, YamlFile


@dataclass
class MatrixEntries:
    """What is good in the file, and the names of what is not (`broken`, by section)."""

    head: Head | None = None
    registries: dict[str, RegistryEntry] = field(default_factory=dict)
    families: dict[str, FamilyEntry] = field(default_factory=dict)
    bases: dict[str, SeriesEntry] = field(default_factory=dict)
    image_bases: dict[str, ImageBaseEntry] = field(default_factory=dict)  # of `bases`, too
    archives: dict[str, ArchiveEntry] = field(default_factory=dict)
    addons: dict[str, AddonEntry] = field(default_factory=dict)
    tools: dict[str, ToolEntry] = field(default_factory=dict)
    images: dict[str, GroupEntry] = field(default_factory=dict)
    references: dict[str, ReferenceEntry] = field(default_factory=dict)
    left_out: dict[str, LeftOutEntry] = field(default_factory=dict)
    broken: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in SECTIONS})
    problems: list[Problem] = field(default_factory=list)
    read_files: dict[str, str] = field(default_factory=dict)  # beside the YAML files -> sha256

    def names(self, section: str) -> set[str]:
        """All names of a section: what points to a broken entry is not itself wrong."""
        return {*cast("Mapping[str, Entry]", getattr(self, section)), *self.broken[section]}

    def unknown(self, path: Path, section: str, noun: str, name: str) -> bool:
        """Report a name that its section does not have; True where it was reported."""
        known = self.names(section)
        if name in known:
            return False
        what = f"no {noun} {name!r}{did_you_mean(name, known)}"
        cure = f"`{section}` has {', '.join(sorted(known)) or 'none'}"
        self.problems.append(Problem(path, what, cure))
        return True


def read_entries(file: YamlFile) -> MatrixEntries:
    """Check every entry of the file against its model."""
    source = MatrixEntries(problems=list(file.problems))
    if not isinstance(file.data, Mapping):
        if file.data is not None:
            source.problems.append(_type_problem((), "a mapping", "schema: 1"))
        return source
    top = dict(file.data)
    for section in SECTIONS:
        _read_section(source, file, section, top)
    try:
        source.head = Head.model_validate(top)
    except ValidationError as error:
        source.problems += _problems(file, (), Head, error)
    return source


def _read_section(source: MatrixEntries, file: YamlFile, section: str, top: dict[str, Any]) -> None:
    entries = top.pop(section, None)
    if entries is None and section in OPTIONAL_SECTIONS:
        return
    if not isinstance(entries, Mapping):
        source.problems.append(_type_problem((section,), "a mapping", f"{section}: {{name: ...}}"))
        return
    for name, raw in entries.items():
        model, good = SECTIONS[section], getattr(source, section)
        if section == "bases" and isinstance(raw, Mapping) and "image" in raw:
            model, good = ImageBaseEntry, source.image_bases
        try:
            good[name] = model.model_validate(raw)
        except ValidationError as error:
            source.broken[section].add(name)
            source.problems += _problems(file, (section, name), model, error)


def _problems(
    file: YamlFile, prefix: Path, model: type[Entry], error: ValidationError
) -> Iterable[Problem]:
    return [_problem(file, prefix, model, details) for details in error.errors()]


def _problem(file: YamlFile, prefix: Path, model: type[Entry], details: ErrorDetails) -> Problem:
    inside = tuple(part for part in details["loc"] if part != "[key]")
    path: Path = (*prefix, *inside)
    key = path[-1] if path else ""
    context = details.get("ctx", {})
    kind = details["type"]
    if kind == "slipway":
        return Problem(path, details["msg"], str(context["cure"]))
    if kind == "extra_forbidden":
        known = _keys(model, inside[:-1]) | (set() if prefix else set(SECTIONS))
        what = f"unknown key {key!r}{did_you_mean(str(key), known)}"
        return Problem(path, what, f"known here: {', '.join(sorted(known))}")
    if kind == "missing":
        cure = "say why" if key == "because" else f"add `{key}: ...`"
        return Problem(path, f"`{key}` is missing from {_dotted(path[:-1]) or 'the file'}", cure)
    if kind == "literal_error":
        what = f"{_dotted(path)} is {_shown(file, path, details)}"
        return Problem(path, what, f"it may be {context['expected']}")
    if kind == "greater_than":
        what = f"{_dotted(path)} is {_shown(file, path, details)}"
        return Problem(path, what, f"it has to be more than {context['gt']}")
    if kind in _EXPECTED:
        return _type_problem(path, *_EXPECTED[kind], _shown(file, path, details))
    if kind == "string_type":
        text = file.texts.get(path)
        written = f'quote it: {key}: "{text}"' if text else f"as {key}: text"
        return _type_problem(path, "text", written, _shown(file, path, details))
    what = f"{_dotted(path)} is {_shown(file, path, details)}: {details['msg']}"
    return Problem(path, what, "see the other entries of this file for the form")


_EXPECTED = {
    "dict_type": ("a mapping", "as {key: value}"),
    "model_type": ("a mapping", "as {key: value}"),
    "list_type": ("a list", "as [first, second]"),
    "int_type": ("a whole number", "in plain digits, as 350"),
    "date_type": ("a date", "as 2027-07-20, without quotes"),
}


def _type_problem(path: Path, expected: str, cure: str, shown: str = "something else") -> Problem:
    return Problem(path, f"{_dotted(path) or 'the file'} must be {expected}, not {shown}", cure)


def _shown(file: YamlFile, path: Path, details: ErrorDetails) -> str:
    """The value as it is written, and what YAML makes of it where that is not text."""
    value, text = details["input"], file.texts.get(path)
    if text is None:
        if value is None:
            return "an alias"  # which is refused where it stands, too
        return "a list" if isinstance(value, list) else "a mapping"
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"the truth value {text}"
    if isinstance(value, int | float):
        # The classic trap: a version 2.10 is the number 2.1.
        trap = re.fullmatch(r"[0-9]+\.[0-9]+", text)
        return f"the number {float(text):g}" if trap else f"the number {text}"
    return f"the date {text}" if isinstance(value, date) else repr(text)


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _keys(model: type[BaseModel], inside: Path) -> set[str]:
    """The keys that are known at a place inside an entry."""
    annotation: Any = model
    for part in inside:
        annotation = _inner(annotation, part)
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return set()
    return {info.alias or name for name, info in annotation.model_fields.items()}


def _inner(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        names = {info.alias or name: info for name, info in annotation.model_fields.items()}
        if str(part) not in names:  # of a model that takes names which only the file knows
            return typing.get_args(annotation.__annotations__["__pydantic_extra__"])[-1]
        annotation = names[str(part)].annotation
        if typing.get_origin(annotation) in (Union, types.UnionType):
            return next(arg for arg in typing.get_args(annotation) if arg is not type(None))
        return annotation
    return typing.get_args(annotation)[-1]  # of list[X] and dict[str, X]
