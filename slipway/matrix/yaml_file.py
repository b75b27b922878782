"""One YAML file as plain values, with the line of every key: what good error messages need."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from slipway.core import error_text

Path = tuple["str | int", ...]

_WHOLE = re.compile("[0-9]{1,12}")


@dataclass(frozen=True)
class Problem:
    """One error of the file: at a place in the data, or (`path` None) at `line` itself."""

    path: Path | None
    what: str
    cure: str
    line: int = 0
    file: str = ""  # with `line`: which one of several


@dataclass
class YamlFile:
    """The values of one file. `lines` has the line of every key and list item, counted from 1;
    `texts` has every scalar as it is written, so that a cure can quote it. Where several files are
    taken together, `owners` has the file of each of their keys and of their keys' keys."""

    data: Any = None
    name: str = ""
    lines: dict[Path, int] = field(default_factory=lambda: {(): 1})
    texts: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    owners: dict[Path, str] = field(default_factory=dict)
    is_empty: bool = False  # comments at most

    def place(self, problem: Problem) -> tuple[str, int]:
        """The file and the line of a problem."""
        if problem.path is None:
            return problem.file or self.name, self.line(problem)
        owner = self.owners.get(problem.path[:2]) or self.owners.get(problem.path[:1])
        return owner or self.name, self.line(problem)

    def line(self, problem: Problem) -> int:
        """Where a problem is: the nearest enclosing thing that the file has."""
        if problem.path is None:
            return problem.line
        path = problem.path
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def merge_files(files: Sequence[YamlFile]) -> YamlFile:
    """Several files as one, whose sections are the sections of all; a name twice is a problem."""
    merged = YamlFile(data={} if any(isinstance(f.data, Mapping) for f in files) else None)
    merged.name = files[0].name if files else ""
    for file in files:
        if file.is_empty and file is not files[0]:
            continue  # it adds nothing yet
        merged.problems += [
            replace(problem, path=None, line=file.line(problem), file=file.name)
            for problem in file.problems
        ]
        if not isinstance(file.data, Mapping):
            if file.data is not None:
                what = "the file must be a mapping, not something else"
                merged.problems.append(Problem(None, what, "as addons: {name: ...}", 1, file.name))
            continue
        for key, value in file.data.items():
            _merge_key(merged, file, key, value)
    return merged


def _merge_key(merged: YamlFile, file: YamlFile, key: str, value: Any) -> None:
    first = key not in merged.data
    if value is None and not first:
        return  # a section whose entries are all comments
    both = isinstance(value, Mapping) and isinstance(merged.data.get(key, {}), Mapping)
    if not first and not both:
        merged.problems.append(_again(merged, file, (key,)))
        return
    if first:
        merged.owners[(key,)] = file.name
        merged.lines[(key,)] = file.lines[(key,)]
        merged.texts |= {path: text for path, text in file.texts.items() if path == (key,)}
    if not isinstance(value, Mapping):
        merged.data[key] = value
        _take(merged, file, (key,))
        return
    entries = merged.data.setdefault(key, {})
    for name, entry in value.items():
        path = (key, name)
        if name in entries:
            merged.problems.append(_again(merged, file, path))
            continue
        entries[name] = entry
        merged.owners[path] = file.name
        _take(merged, file, path)


def _take(merged: YamlFile, file: YamlFile, path: Path) -> None:
    """The lines and texts of a key and of all that is below it."""
    depth = len(path)
    merged.lines |= {
        key_path: line for key_path, line in file.lines.items() if key_path[:depth] == path
    }
    merged.texts |= {
        key_path: text for key_path, text in file.texts.items() if key_path[:depth] == path
    }


def _again(merged: YamlFile, file: YamlFile, path: Path) -> Problem:
    there, line = merged.place(Problem(path, "", ""))
    what = f"{'.'.join(map(str, path))} is stated here and in {there}:{line}"
    cure = "keep one of the two: a file of versions.d adds to versions.yaml, it replaces nothing"
    return Problem(None, what, cure, file.lines[path], file.name)


def read_yaml(text: str, name: str = "") -> YamlFile:
    """Read one document; what is wrong with it is in `problems`, never an exception."""
    file = YamlFile(name=name)
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        if root is None:
            file.is_empty = True
            file.problems.append(Problem((), "the file is empty", "restore it from git"))
        else:
            file.data = _value(file, root, ())
    except MarkedYAMLError as error:
        file.problems.append(_syntax(error))
    except YAMLError as error:  # a character that YAML does not allow; it has no line
        reason = error_text(error).splitlines()[0]
        file.problems.append(
            Problem((), f"not YAML: {reason}", "save the file as plain UTF-8 text")
        )
    except RecursionError:
        file.problems.append(Problem((), "nested too deeply", "three or four levels are enough"))
    except Exception as error:  # noqa: BLE001  the parser's own mistakes
        what = f"the YAML parser fails at it: {error_text(error)}"
        file.problems.append(Problem((), what, "write it in plain YAML, or restore it from git"))
    return file


def _syntax(error: MarkedYAMLError) -> Problem:
    mark, context = error.problem_mark or error.context_mark, error.context_mark
    where = f" (column {mark.column + 1})" if mark else ""
    if mark and context and context.line < mark.line:
        where += f"; what it belongs to begins on line {context.line + 1}"
    reason = " ".join(filter(None, (error.context, error.problem))) or "cannot be read"
    cure = "quote text that has `: `, `#` or brackets in it, and close every quote and bracket"
    if "'\\t'" in reason:
        cure = "indent with spaces: YAML does not take tabs"
    return Problem(None, f"not YAML: {reason}{where}", cure, mark.line + 1 if mark else 1)


_WORDS = {"int": "number", "float": "number", "bool": "truth value", "timestamp": "date"}


def _value(file: YamlFile, node: Node, path: Path) -> Any:
    tagged = not isinstance(node, ScalarNode) and _kind(node) not in ("map", "seq")
    if tagged or node.anchor is not None:
        problem = _shorthand(node)
        if problem in file.problems:  # an alias: this node again, perhaps inside itself
            return None
        file.problems.append(problem)
    if isinstance(node, MappingNode):
        return _mapping(file, node, path)
    if isinstance(node, SequenceNode):
        return [_item(file, child, (*path, index)) for index, child in enumerate(node.value)]
    return _scalar(file, node, path)


def _item(file: YamlFile, node: Node, path: Path) -> Any:
    file.lines[path] = node.start_mark.line + 1
    return _value(file, node, path)


def _mapping(file: YamlFile, node: MappingNode, path: Path) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            what, cure = "a list or a mapping is a key here", "write keys as plain words"
            file.problems.append(Problem(None, what, cure, line))
            continue
        key = _printable(key_node.value)
        if _kind(key_node) != "str":
            what = f"the key {key} is a {_WORDS.get(_kind(key_node), 'value')} to YAML, not text"
            file.problems.append(Problem(None, what, f'quote it: "{key}"', line))
        key_path = (*path, key)
        if key in values:
            what = f"{key!r} is here twice; it is on line {file.lines[key_path]} already"
            file.problems.append(Problem(None, what, "keep one of the two", line))
            continue
        file.lines[key_path] = line
        values[key] = _value(file, value_node, key_path)
    return values


def _scalar(file: YamlFile, node: Node, path: Path) -> Any:
    text = file.texts[path] = _printable(node.value)
    kind = _kind(node)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind in ("int", "float"):
        # Only whole numbers in plain digits are used as numbers; for all others the schema wants
        # text and shows what is written.
        return int(text) if _WHOLE.fullmatch(text) else math.nan
    if kind == "timestamp":
        try:
            return date.fromisoformat(text)
        except ValueError:
            return text
    if kind != "str":
        file.problems.append(_shorthand(node))
    return text


def _kind(node: Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _printable(text: str) -> str:
    """Without the lone surrogates that a "\\ud800" escape can make and no terminal can show."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _shorthand(node: Node) -> Problem:
    what = "YAML anchors, aliases and tags are not used in this file"
    line = node.start_mark.line + 1
    return Problem(None, what, "write the value out where it is needed", line)
