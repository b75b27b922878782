"""versions.yaml -> the matrix, or every error of the file at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from slipway.core import BadInputError, SlipwayError, UsageError
from slipway.matrix.addons import read_archive
from slipway.matrix.entries import MatrixEntries, read_entries
from slipway.matrix.image_bases import expand_all
from slipway.matrix.model import (
    Base,
    Family,
    LeftOut,
    Matrix,
    Reference,
    Registry,
    Tool,
    WaitingBase,
)
from slipway.matrix.rules import (
    check_consistency,
    facts_of,
    flavours_of,
    order_addons,
    regions_without,
    tags_of,
    take_requirement_files,
    waits,
)
from slipway.matrix.yaml_file import Problem, YamlFile, merge_files, read_yaml


def load_matrix(path: Path) -> Matrix:
    """Read, check and expand versions.yaml and, after it, the files of versions.d beside it.

    Raises BadInputError with all errors of all files, each as ``file:line``, what is wrong and the
    cure; UsageError where there is no such file.
    """
    more = [_read_own(own) for own in _own_files(path.with_suffix(".d"))]
    file = _read(path)
    file = merge_files([file, *more]) if more else file
    source = read_entries(file)
    take_requirement_files(source, path.parent)
    check_consistency(source)
    order_addons(source)
    matrix = expand_matrix(source)
    if matrix is None:
        raise _bad(file, source.problems)
    return matrix


def _read(path: Path) -> YamlFile:
    """One file; what is wrong with it is in its problems."""
    shown = _shown(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            cure="run this in a checkout of the project, which has a versions.yaml",
        ) from error
    try:
        file = read_yaml(content.decode("utf-8-sig"), shown)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = Problem(None, "not UTF-8 text", "save the file as UTF-8", line)
        file = YamlFile(name=shown, problems=[problem])
    return file


def _own_files(folder: Path) -> list[Path]:
    """What is in versions.d, by name: all but documents, and what is hidden or an editor's copy."""
    if not folder.is_dir():
        return [folder] if folder.exists() or folder.is_symlink() else []
    return sorted(
        path
        for path in folder.iterdir()
        if not re.match(r"[.#]", path.name) and not re.search(r"(~|\.md)$", path.name)
    )


def _read_own(path: Path) -> YamlFile:
    """A file of versions.d; one that is none is a problem of its own, and never passed over."""
    what = cure = ""
    if path.suffix != ".yaml":
        what, cure = "files of versions.d end in .yaml", f"rename {path.name}, or move it elsewhere"
        if path.suffix == ".d":
            what, cure = "versions.d is no folder", "make one of it, with files NAME.yaml"
    elif not path.is_file():
        what, cure = "this is no file that can be read", "put the file itself here, or remove it"
    if what:
        return YamlFile(name=_shown(path), problems=[Problem(None, what, cure, 1)])
    return _read(path)


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the working folder is gone
        return str(path)


def _bad(file: YamlFile, problems: list[Problem]) -> BadInputError:
    unique = dict.fromkeys(problems)
    places = [(file.place(problem), problem) for problem in unique]
    order = list(dict.fromkeys([file.name, *sorted(name for (name, _), _ in places)]))
    places.sort(key=lambda found: (order.index(found[0][0]), found[0][1]))
    errors: list[SlipwayError] = [
        UsageError(problem.what, where=f"{name}:{line}", cure=problem.cure)
        for (name, line), problem in places
    ]
    return BadInputError(errors)


def expand_matrix(source: MatrixEntries) -> Matrix | None:
    """The whole matrix; None (and more problems in the source) where it cannot be made."""
    registries = {
        name: Registry(
            name,
            MappingProxyType(
                {region: a for a, regions in e.accounts.items() for region in regions}
            ),
            e.public.prefix if e.public else None,
            tuple(e.public.repositories) if e.public else (),
            host=e.host,
            login=e.login,
        )
        for name, e in source.registries.items()
    }
    bases = _bases(source, registries)
    images = expand_all(source, bases)
    if source.problems or source.head is None:
        return None
    return Matrix(
        images=tuple(images.values()),
        bases=tuple(bases.values()),
        registries=MappingProxyType(registries),
        tools=MappingProxyType(
            {
                name: Tool(name, e.version, e.wheel, e.member, e.path, e.because)
                for name, e in source.tools.items()
            }
        ),
        default_image=source.head.default,
        repository_prefix=source.head.repository_prefix,
        references=MappingProxyType(
            {
                name: Reference(
                    name,
                    _narrowed(source, registries[e.registry], e.repository, e.without),
                    e.repository,
                    e.tag,
                    e.because,
                )
                for name, e in source.references.items()
            }
        ),
        archives=MappingProxyType(
            {name: read_archive(name, entry) for name, entry in source.archives.items()}
        ),
        waiting=tuple(_waiting(source, registries)),
        read_files=MappingProxyType(dict(source.read_files)),
        left_out=tuple(
            LeftOut(name, e.table, e.versions, e.because) for name, e in source.left_out.items()
        ),
    )


def _narrowed(
    source: MatrixEntries, registry: Registry, repository: str, without: Sequence[str] = ()
) -> Registry:
    """The registry as far as it has one repository, and of it one version: fewer regions."""
    entry = source.registries[registry.name]
    words = [*entry.without.get(repository, ()), *without]
    if not words:
        return registry
    missing = regions_without(entry, words)
    accounts = {r: a for r, a in registry.accounts.items() if r not in missing}
    return replace(registry, accounts=MappingProxyType(accounts), without=tuple(sorted(missing)))


def _waiting(source: MatrixEntries, registries: Mapping[str, Registry]) -> Iterator[WaitingBase]:
    """The bases of which a fact is asked for."""
    for series, entry in source.bases.items():
        registry = registries.get(entry.registry or "")
        if registry is None or not waits(entry):
            continue
        for flavour, device, tag in tags_of(entry):
            yield WaitingBase(
                f"{series}-{flavour}-{device}",
                _narrowed(source, registry, entry.repository, entry.without),
                entry.repository,
                tag,
                entry.grammar,
                series,
                facts_of(entry, device),
                MappingProxyType(dict(entry.unknown)),
            )


def _bases(source: MatrixEntries, registries: Mapping[str, Registry]) -> dict[str, Base]:
    families = {
        name: Family(name, e.package_manager, e.python, e.workdir, e.user, e.cuda_home)
        for name, e in source.families.items()
    }
    bases = {}
    for series, entry in source.bases.items():
        family = families.get(entry.family)
        registry = registries.get(entry.registry or "")
        if family is None or (entry.registry and registry is None):
            source.broken["bases"].add(series)  # already reported
            continue
        if waits(entry):
            continue  # until what is asked for is stated
        if registry is not None:
            registry = _narrowed(source, registry, entry.repository, entry.without)
        for flavour, device, tag in tags_of(entry):
            carries = {**entry.carries, **flavours_of(entry)[flavour].carries}
            name = f"{series}-{flavour}-{device}"
            bases[name] = Base(
                name=name,
                registry=registry,
                repository=entry.repository,
                tag=tag,
                grammar=entry.grammar,
                family=family,
                flavour=flavour,
                facts=facts_of(entry, device),
                carries=MappingProxyType(
                    {key: None if value == "unknown" else value for key, value in carries.items()}
                ),
                end_of_patch=entry.end_of_patch,
                cuda_mismatch=entry.cuda_mismatch if device == "gpu" else None,
                moves=MappingProxyType(dict(source.families[entry.family].moves)),
                series=series,
                unverified=MappingProxyType(dict(entry.unverified)),
            )
    return bases
