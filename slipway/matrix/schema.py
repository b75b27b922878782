"""The shape of versions.yaml: one strict model an entry. What a key means is said in that file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from slipway.matrix.addons import AddonEntry, ArchiveEntry, ToolEntry
from slipway.matrix.field_types import (
    AbsolutePath,
    Account,
    AxisVersion,
    Carried,
    Cuda,
    Entry,
    Exact,
    Prose,
    Repository,
    Specifier,
    Text,
    TorchVersion,
    matching,
)
from slipway.matrix.model import Architecture, Platform


class Head(Entry):
    """The plain keys at the top level."""

    schema_: Literal[1] = Field(alias="schema")
    default: Text
    repository_prefix: Repository


class PublicEntry(Entry):
    """A gallery that serves some of a registry's repositories without a login."""

    prefix: Text
    repositories: list[Repository]


_HOST = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*$"


class RegistryEntry(Entry):
    """One of `registries`."""

    accounts: dict[Account, list[str]] = {}
    host: Annotated[str, matching(_HOST)] | None = None
    login: bool = False
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

    `torch`, `python` and `os` are always stated, or stand in the series' `unknown`. `torch: none`
    is a base without it, which an add-on may bring.
    """

    torch: TorchVersion | None = None
    python: Annotated[str, matching(r"^3\.[0-9]+$")] | None = None
    os: Annotated[str, matching("^[a-z0-9.]+$")] | None = None
    cuda: Cuda | None = None
    torch_cuda: Cuda | None = None
    transformers: Exact | None = None
    smp: Exact | None = None
    architecture: Architecture = "amd64"


class FlavourEntry(Entry):
    """The tags of one flavour, and what it carries beyond its series."""

    gpu: Text | None = None
    cpu: Text | None = None
    carries: dict[str, Carried] = {}


class FlavoursEntry(Entry):
    """What a series exists as."""

    sagemaker: FlavourEntry | None = None
    ec2: FlavourEntry | None = None
    plain: FlavourEntry | None = None


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


class ImageBaseEntry(Entry):
    """One of `bases` that is an image of the matrix: all else follows from that image."""

    image: Text


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
    requests: list[Text] = []
    aliases: dict[str, CellValues] = {}
    size_budget_mb: Annotated[int, Field(gt=0)]
    bytecode: bool = False
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
    versions: Specifier = ""
    because: Prose


SECTIONS: Mapping[str, type[Entry]] = {
    "registries": RegistryEntry,
    "families": FamilyEntry,
    "bases": SeriesEntry,
    "archives": ArchiveEntry,
    "addons": AddonEntry,
    "tools": ToolEntry,
    "images": GroupEntry,
    "references": ReferenceEntry,
    "left_out": LeftOutEntry,
}
OPTIONAL_SECTIONS = frozenset({"archives", "tools", "references", "left_out"})
