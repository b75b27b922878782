"""versions.yaml -> the matrix, or every error of the file at once."""

from __future__ import annotations

from pathlib import Path

from slipway.errors import BadInputError, SlipwayError, UsageError
from slipway.matrix.check import check
from slipway.matrix.expand import expand
from slipway.matrix.model import Matrix
from slipway.matrix.source import read_source
from slipway.matrix.yamlfile import Problem, YamlFile, read_yaml


def load(path: Path) -> Matrix:
    """Read, check and expand one file.

    Raises BadInputError with all errors of the file, each as ``file:line``, what is wrong and the
    cure; UsageError where there is no such file.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        problem = Problem(None, "not UTF-8 text", "save the file as UTF-8", line)
        raise _bad(path, YamlFile(), [problem]) from error
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            cure="run this in a checkout of the project, which has a versions.yaml",
        ) from error
    file = read_yaml(text)
    source = read_source(file)
    check(source)
    matrix = expand(source)
    if matrix is None:
        raise _bad(path, file, source.problems)
    return matrix


def _bad(path: Path, file: YamlFile, problems: list[Problem]) -> BadInputError:
    try:
        shown = path.relative_to(Path.cwd())
    except (ValueError, OSError):  # elsewhere, or the working folder is gone
        shown = path
    unique = dict.fromkeys(problems)
    errors: list[SlipwayError] = [
        UsageError(problem.what, where=f"{shown}:{file.line(problem)}", cure=problem.cure)
        for problem in sorted(unique, key=file.line)
    ]
    return BadInputError(errors)
