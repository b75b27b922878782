"""versions.yaml against AWS's image tables: what is new, gone, past its patches, or different.

Pure: the tables and the day come from outside. A version that we leave out on purpose stands in
`left_out` of versions.yaml with the reason; everything else that the tables list is in the matrix,
or is said here. Nothing is passed over: a table that is new and looks like one of ours is a finding
as well, since that is how a family moves (pytorch-amzn2023 came beside pytorch).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Literal

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from slipway.matrix.model import (
    Base,
    LeftOut,
    Matrix,
    Reference,
    Registry,
    WaitingBase,
    past_support,
)
from slipway.matrix.upstream.upstream_tables import (
    SERVING_TABLES,
    TRAINING_TABLES,
    PublishedImage,
    Table,
    published_images,
    repositories_of,
)

FindingKind = Literal["new", "gone", "different", "table", "past"]

_OURS = ("pytorch", "huggingface", "smdistributed", "djl", "vllm", "sglang", "hyperpod")
"""Words of tables and repositories that belong to what Slipway extends or points to."""


@dataclass(frozen=True)
class CurrencyFinding:
    """One thing that versions.yaml does not say, or says otherwise.

    `past` is a notice and no arrears: a base without patches is still what it was.
    """

    kind: FindingKind
    subject: str
    sentence: str
    published: PublishedImage | None = None

    @property
    def is_arrears(self) -> bool:
        """Whether versions.yaml is behind by it."""
        return self.kind != "past"


@dataclass(frozen=True)
class _Stated:
    """What versions.yaml says of one series, whether it waits or not."""

    series: str
    repository: str
    tags: tuple[str, ...]
    torch: str
    transformers: str | None
    smp: str | None
    cuda: str | None
    registry: Registry


def compare_with_tables(
    matrix: Matrix, tables: Mapping[str, Table], on: date
) -> tuple[CurrencyFinding, ...]:
    """Every finding, tables first, then in the tables' order."""
    published, unreadable = published_images(tables)
    stated = _stated(matrix)
    findings = [*_tables(matrix, tables)]
    findings += [
        CurrencyFinding("table", name, f"the table {name} has another form than before: {why}")
        for name, why in unreadable.items()
    ]
    matched: set[str] = set()
    for image in published:
        if image.table not in TRAINING_TABLES:
            continue
        hits = [series for series in stated if _is(series, image)]
        matched |= {series.series for series in hits}
        for series in hits:
            findings += _differences(series.series, series.registry, image)
            findings += _other_cuda(series, image)
        if not hits and not is_left_out(matrix.left_out, image):
            sentence = f"{image.title} is published ({', '.join(image.tags.values()) or 'no tag'})"
            sentence += f" in {len(image.accounts)} regions, and no series of `bases` has it"
            findings.append(CurrencyFinding("new", image.title, sentence, image))
    read = {
        repository
        for name, repository in TRAINING_TABLES.items()
        if name in tables and name not in unreadable
    }
    for series in stated:
        if series.repository in read and series.series not in matched:
            sentence = f"{series.series} is in no table of {series.repository} any more"
            findings.append(CurrencyFinding("gone", series.series, sentence))
    for reference in matrix.references.values():
        findings += _reference(reference, published)
    return (*findings, *_past(matrix, on))


def _stated(matrix: Matrix) -> list[_Stated]:
    series: dict[str, _Stated] = {}
    bases: list[Base | WaitingBase] = [*matrix.bases, *matrix.waiting]
    for base in bases:
        if base.registry is None:
            continue
        known = series.get(base.series)
        series[base.series] = _Stated(
            base.series,
            base.repository,
            (*(known.tags if known else ()), base.tag),
            base.facts.torch,
            base.facts.transformers,
            base.facts.smp,
            base.facts.cuda or (known.cuda if known else None),
            base.registry,
        )
    return list(series.values())


def _is(series: _Stated, image: PublishedImage) -> bool:
    """Whether a series is this version. A table may name it without its patch version."""
    if series.repository != image.repository:
        return False
    if set(series.tags) & set(image.tags.values()):
        return True  # also where the series still asks which torch it is
    if "smp" in image.facts:
        return series.smp == image.facts["smp"]
    torch = image.facts["torch"]
    same = series.torch == torch or (
        torch.count(".") == 1 and Version(series.torch or "0").release[:2] == Version(torch).release
    )
    return same and series.transformers == image.facts.get("transformers")


def is_left_out(left_out: tuple[LeftOut, ...], image: PublishedImage) -> bool:
    """Whether versions.yaml leaves this version out on purpose."""
    return any(
        fnmatchcase(image.table, rule.table)
        and SpecifierSet(rule.versions).contains(image.version, prereleases=True)
        for rule in left_out
    )


def _tables(matrix: Matrix, tables: Mapping[str, Table]) -> Iterator[CurrencyFinding]:
    """Tables that we read and that are gone, and tables like ours that nobody reads."""
    read = {**TRAINING_TABLES, **SERVING_TABLES}
    used = {base.repository for base in matrix.bases}
    used |= {base.repository for base in matrix.waiting}
    used |= {reference.repository for reference in matrix.references.values()}
    for name, repository in read.items():
        if name not in tables and repository in used:
            sentence = f"the table {name} is gone: what lists {repository} now?"
            yield CurrencyFinding("table", name, sentence)
    known = {*read.values()}
    for name, table in sorted(tables.items()):
        if name in read or any(
            not rule.versions and fnmatchcase(name, rule.table) for rule in matrix.left_out
        ):
            continue
        repositories = repositories_of(table)
        words = " ".join([name, *sorted(repositories)])
        if repositories & known or any(word in words for word in _OURS):
            sentence = f"the table {name} lists {', '.join(sorted(repositories)) or 'nothing'}"
            sentence += ", and nothing reads it: read it, or name it in `left_out` with a reason"
            yield CurrencyFinding("table", name, sentence)


def _differences(
    subject: str, registry: Registry, image: PublishedImage
) -> Iterator[CurrencyFinding]:
    """Regions and accounts, a sentence each kind."""
    ours, theirs = registry.accounts, image.accounts
    groups = {
        "is also in": sorted(theirs.keys() - ours.keys()),
        "is stated for regions that the table does not list:": sorted(ours.keys() - theirs.keys()),
        "is another account's in": sorted(
            region for region in ours.keys() & theirs.keys() if ours[region] != theirs[region]
        ),
    }
    for words, regions in groups.items():
        if regions:
            sentence = f"{subject} {words} {', '.join(regions)}"
            yield CurrencyFinding("different", subject, sentence, image)


def _other_cuda(series: _Stated, image: PublishedImage) -> Iterator[CurrencyFinding]:
    theirs = image.facts.get("cuda")
    if theirs and series.cuda and theirs != series.cuda:
        sentence = f"{series.series} has CUDA {theirs} in the table, {series.cuda} is stated"
        yield CurrencyFinding("different", series.series, sentence, image)


def _reference(reference: Reference, published: list[PublishedImage]) -> Iterator[CurrencyFinding]:
    """A reference points at the newest of its repository."""
    same = [image for image in published if image.repository == reference.repository]
    if not same:
        return
    newest = max(same, key=lambda image: (Version(image.version), _numbers(image.tags["gpu"])))
    tag = newest.tags["gpu"]
    subject = f"references.{reference.name}"
    if _numbers(tag) > _numbers(reference.tag):
        sentence = f"{subject} points at {reference.tag}, and {tag} is the newest"
        yield CurrencyFinding("different", subject, sentence, newest)
    elif tag == reference.tag:
        yield from _differences(subject, reference.registry, newest)


def _numbers(tag: str) -> tuple[int, ...]:
    """The numbers of a tag in their order: those of one naming scheme can be compared."""
    digits = "".join(character if character.isdigit() else " " for character in tag)
    return tuple(int(number) for number in digits.split())


def _past(matrix: Matrix, on: date) -> Iterator[CurrencyFinding]:
    told_series: set[str] = set()
    for base in matrix.bases:
        text = past_support(base, on)
        if text and base.series not in told_series:
            told_series.add(base.series)
            yield CurrencyFinding("past", base.series, f"{base.series} is {text}")
