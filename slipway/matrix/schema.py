"""The shape of versions.yaml: one strict model an entry. What a key means is said in that file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from slipway.matrix.model import Platform


def _fail(what: str, cure: str) -> PydanticCustomError:
    return PydanticCustomError("slipway", "{what}", {"what": what, "cure": cure})


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _exact(text: str) -> str:
    """A version that means one release: parsed, without operators, wildcards or a local part."""
    try:
        if Version(text).local is None and text == text.strip().lower():
            return text
    except InvalidVersion:
        pass
    raise _fail(
        f"{text!r} is not one exact version",
        "pin one release, as 5.1.4: no ranges, no `latest`, no local part (+cpu)",
    )


def _exact_or(word: str, text: str) -> str:
    return text if text == word else _exact(text)


def _release(text: str) -> str:
    """One exact version of a package: a build of its own may have a local part."""
    public, plus, local = text.partition("+")
    if plus and not re.fullmatch("[a-z0-9]+([.][a-z0-9]+)*", local):
        raise _fail(f"{text!r} is not one exact version", "as 2.8.3+cu130torch2.13")
    return _exact(public) and text


def _release_or(word: str, text: str) -> str:
    return text if text == word else _release(text)


def _account(text: str) -> str:
    if not re.fullmatch("[0-9]{12}", text):
        raise _fail(
            f"{text!r} is not an AWS account: those have twelve digits",
            "keep leading zeros, and quote it",
        )
    return text


def _single_lines(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        if not value.isprintable():
            raise _fail(f"the value of {name} is more than a line of text", "keep it on one line")


def _environment(env: Mapping[str, str]) -> Mapping[str, str]:
    _single_lines(env)
    for name in env:
        if not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            raise _fail(f"{name!r} cannot name an environment variable", "as PYTHONUNBUFFERED")
        if name.startswith(("NCCL_", "FI_")):
            raise _fail(
                f"{name} must not be in an image: pyxis lets the image's environment win over the "
                "job's, so a job could not change it",
                "leave it to the launcher, which knows the instance and its network",
            )
    return env


def _pattern(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=pattern, min_length=1)


Text = Annotated[str, StringConstraints(min_length=1)]
Prose = Annotated[str, StringConstraints(min_length=1), AfterValidator(_one_line)]
Exact = Annotated[str, AfterValidator(_exact)]
Account = Annotated[str, AfterValidator(_account)]
AbsolutePath = Annotated[str, _pattern("^/[^ ]*$")]
Repository = Annotated[str, _pattern(r"^[a-z0-9]+([._/-][a-z0-9]+)*$")]
Cuda = Annotated[str, _pattern(r"^[0-9]{2}\.[0-9]$")]
Carried = Annotated[str, AfterValidator(lambda text: _exact_or("unknown", text))]
AxisVersion = Annotated[str, AfterValidator(lambda text: _release_or("none", text))]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]


class Entry(BaseModel):
    """Nothing is converted, and nothing unknown is let through."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Head(Entry):
    """The plain keys at the top level."""

    schema_: Literal[1] = Field(alias="schema")
    default: Text
    repository_prefix: Repository


class PublicEntry(Entry):
    """A gallery that serves some of a registry's repositories without a login."""

    prefix: Text
    repositories: list[Repository]


class RegistryEntry(Entry):
    """One of `registries`."""

    accounts: dict[Account, list[str]]
    public: PublicEntry | None = None
    region_groups: dict[str, list[str]] = {}
    without: dict[Repository, list[str]] = {}


class FamilyEntry(Entry):
    """One of `families`."""

    package_manager: Literal["apt", "dnf"]
    python: AbsolutePath
    workdir: AbsolutePath
    user: Text
    cuda_home: AbsolutePath | None = None
    moves: dict[str, Prose] = {}


class FactsEntry(Entry):
    """What is true of a series; `cuda` and `torch_cuda` of its GPU bases only.

    `torch`, `python` and `os` are always stated, or stand in the series' `unknown`.
    """

    torch: Exact | None = None
    python: Annotated[str, _pattern(r"^3\.[0-9]+$")] | None = None
    os: Annotated[str, _pattern("^[a-z0-9.]+$")] | None = None
    cuda: Cuda | None = None
    torch_cuda: Cuda | None = None
    transformers: Exact | None = None
    smp: Exact | None = None


class FlavourEntry(Entry):
    """The tags of one flavour, and what it carries beyond its series."""

    gpu: Text | None = None
    cpu: Text | None = None
    carries: dict[str, Carried] = {}


class FlavoursEntry(Entry):
    """What a series exists as."""

    sagemaker: FlavourEntry | None = None
    ec2: FlavourEntry | None = None


class SeriesEntry(Entry):
    """One of `bases`: as many bases as it has tags."""

    registry: Text | None = None
    repository: Repository
    grammar: Text
    family: Text
    facts: FactsEntry
    cuda_mismatch: Prose | None = None
    carries: dict[str, Carried] = {}
    end_of_patch: date | None = None
    unverified: dict[str, Prose] = {}
    unknown: dict[str, Prose] = {}
    without: list[str] = []
    flavours: FlavoursEntry


class ReplaceEntry(Entry):
    """The oldest version that may stay where a base carries the add-on."""

    version: Exact
    because: Prose


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise _fail(f"{text!r} names no versions", 'as "<2.6" or "==2.3.*"') from None
    return text


def _requirement(text: str) -> str:
    try:
        parsed = Requirement(text)
    except InvalidRequirement:
        raise _fail(f"{text!r} is not a requirement", 'as "transformers[torch]>=5,<6"') from None
    if parsed.url is not None:
        raise _fail(
            f"{text!r} names a place and no version: nothing of it could be locked for others",
            "publish it to an index that pip knows, and name it with its version",
        )
    return text


def _labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    _single_lines(labels)
    for name in labels:
        if not re.fullmatch(r"[a-z0-9]+([.\-/_][a-z0-9]+)*", name):
            raise _fail(f"{name!r} cannot name a label", "as com.example.team")
        if name.startswith(("org.opencontainers.image.", "io.slipway.")):
            raise _fail(f"{name} is written by Slipway", "choose a name of your own domain")
    return labels


class OnlyEntry(Entry):
    """The images that an add-on is for. A key that is not there matches everything."""

    images: list[Text] = []
    groups: list[Text] = []
    bases: list[Text] = []
    families: list[Text] = []
    device: Literal["gpu", "cpu"] | None = None
    torch: Annotated[str, AfterValidator(_specifier)] = ""
    python: Annotated[str, AfterValidator(_specifier)] = ""


class MismatchEntry(Entry):
    """What an add-on needs on a base whose CUDA toolkit is not the one of its torch."""

    env: Environment
    because: Prose


class AddonEntry(Entry):
    """One of `addons`: a package of its own name and `version`, or `requires`, or settings only."""

    version: Annotated[str, AfterValidator(lambda text: _release_or("axis", text))] | None = None
    tag: Annotated[str, _pattern("^[a-z]{1,16}$")] | None = None
    requires: list[Annotated[str, AfterValidator(_requirement)]] = []
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = {}
    only: OnlyEntry | None = None
    because: Prose
    platforms: list[Platform] | None = None
    with_: dict[str, Exact] = Field(default={}, alias="with")
    env: Environment = {}
    replace_below: ReplaceEntry | None = None
    on_cuda_mismatch: MismatchEntry | None = None


class ToolEntry(Entry):
    """One of `tools`."""

    version: Exact
    wheel: Annotated[str, _pattern(r"^[a-z0-9-]+==[0-9][0-9a-z.]*$")]
    member: Annotated[str, _pattern("^[^/ ][^ ]*$")]
    path: AbsolutePath
    because: Prose


class CellsEntry(Entry):
    """Some cells of a group, by the values of its axes. What is not named matches everything."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)

    @property
    def conditions(self) -> Mapping[str, str]:
        """Axis -> the value that a cell has to have: a glob for `base` and `platform`."""
        return self.__pydantic_extra__


class ExcludeEntry(CellsEntry):
    """Cells that are not built."""

    because: Prose


class DowngradeEntry(CellsEntry):
    """Cells that may have less of an add-on than the base carries, and why."""

    addon: Text
    because: Prose


class AxesEntry(Entry):
    """What a group varies over: the first two, and any add-on of one version by its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[list[AxisVersion], Field(min_length=1)]] = Field(
        init=False
    )

    base: Annotated[list[Text], Field(min_length=1)]
    platform: Annotated[list[Platform], Field(min_length=1)]

    @property
    def addons(self) -> Mapping[str, list[str]]:
        """Add-on -> its versions; "none" for a cell without it."""
        return self.__pydantic_extra__


def _all_cells(value: Any) -> Any:
    return {} if value == "all" else value


CellValues = Annotated[
    dict[str, str],
    BeforeValidator(_all_cells),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "all"},
                {"type": "object", "additionalProperties": {"type": "string"}},
            ]
        }
    ),
]
"""The cells that an alias is for: `all`, or the values of axes."""


class GroupEntry(Entry):
    """One of `images`."""

    repository: Repository
    axes: AxesEntry
    name: Text
    aliases: dict[str, CellValues] = {}
    size_budget_mb: Annotated[int, Field(gt=0)]
    exclude: list[ExcludeEntry] = []
    downgrade: list[DowngradeEntry] = []


class ReferenceEntry(Entry):
    """One of `references`."""

    registry: Text
    repository: Repository
    grammar: Text
    tag: Text
    because: Prose
    without: list[str] = []


class LeftOutEntry(Entry):
    """One of `left_out`."""

    table: Text
    versions: Annotated[str, AfterValidator(_specifier)] = ""
    because: Prose


SECTIONS: Mapping[str, type[Entry]] = {
    "registries": RegistryEntry,
    "families": FamilyEntry,
    "bases": SeriesEntry,
    "addons": AddonEntry,
    "tools": ToolEntry,
    "images": GroupEntry,
    "references": ReferenceEntry,
    "left_out": LeftOutEntry,
}
OPTIONAL_SECTIONS = frozenset({"tools", "references", "left_out"})
