"""A cluster's YAML file -> checked values, every mistake with its line. No AWS, no network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slipway.core import BadInputError, SlipwayError, UsageError, did_you_mean
from slipway.matrix import Problem, YamlFile, read_yaml, region_partition, region_suffixes

CLUSTER_TAG = "slipway:cluster"
"""On everything that is made for a cluster: its name. `delete` finds what there is by it."""
PART_TAG = "slipway:part"
"""Which part of the cluster a thing is; one cluster has each part once."""

CONTROLLER, LOGIN = "controller", "login"
_LONGEST_BUCKET = 63
THING_PRICES = {
    "storage": "dollars for a GiB of the file system, a month",
    "nat": "dollars for the NAT gateway, an hour",
    "nat_gb": "dollars for each GB that passes the NAT gateway",
    "address": "dollars for the NAT gateway's public address, an hour",
}
"""What `prices` may have beside types of instances, in AWS's own units."""

FilePath = tuple["str | int", ...]

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]
_InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z][a-z0-9-]*\.[a-z0-9]+$")]
_Subnet = Annotated[str, Field(pattern=r"^subnet-[0-9a-f]{8,17}$")]
_SecurityGroup = Annotated[str, Field(pattern=r"^sg-[0-9a-f]{8,17}$")]
_Role = Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$")]
_Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class InstanceGroupEntry(_Part):
    """Nodes of one type."""

    instance: _InstanceType
    count: Annotated[int, Field(ge=1, le=6758)]
    partition: Annotated[str, Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*$")] | None = None
    volume_gb: Annotated[int, Field(ge=1, le=16384)] = 500
    threads_per_core: Annotated[int, Field(ge=1, le=2)] | None = None
    training_plan: (
        Annotated[
            str, Field(pattern=r"^arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:[0-9]{12}:training-plan/.+$")
        ]
        | None
    ) = None
    health_checks: list[Literal["InstanceStress", "InstanceConnectivity"]] = []


class NetworkEntry(_Part):
    """A network that there is already."""

    subnet: _Subnet
    security_group: _SecurityGroup


class StorageEntry(_Part):
    """FSx for Lustre: to be made (`capacity_gib`), or there already (`file_system`)."""

    capacity_gib: Annotated[int, Field(ge=1200, le=2_000_000)] = 1200
    throughput: Literal[125, 250, 500, 1000] = 250
    file_system: Annotated[str, Field(pattern=r"^fs-[0-9a-f]{8,17}$")] | None = None
    mount_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,8}$")] | None = None


class RolesEntry(_Part):
    """Roles that whoever runs Slipway gives to jobs, endpoints and builds."""

    jobs: _Role | None = None
    endpoints: _Role | None = None
    builds: _Role | None = None


class ClusterEntry(_Part):
    """The whole file."""

    name: _Name
    region: str
    account: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    zone: Annotated[str, Field(pattern=r"^[a-z]{3,5}[0-9]-az[0-9]+$")]
    controller: _InstanceType
    login: _InstanceType | None = None
    groups: Annotated[dict[_Name, InstanceGroupEntry], Field(min_length=1, max_length=90)]
    network: Literal["make"] | NetworkEntry = "make"
    storage: StorageEntry = StorageEntry()
    slurm: Literal["api", "legacy"] = "api"
    strategy: Literal["Managed", "Overwrite", "Merge"] = "Managed"
    recovery: Literal["Automatic", "None"] = "Automatic"
    image_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")] | None = None
    repositories: list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/-]*\*?$")]] = []
    builds: bool = False
    buckets: list[_Bucket] = []
    consumers: list[Annotated[str, Field(pattern=r"^[0-9]{12}$")]] = []
    roles: RolesEntry = RolesEntry()
    prices: dict[str, Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]] = {}


@dataclass(frozen=True)
class ClusterFile:
    """What the file asks for, and where each part of it stands."""

    entry: ClusterEntry
    path: str
    lines: Mapping[FilePath, int] = field(repr=False)

    @property
    def name(self) -> str:
        """The cluster's."""
        return self.entry.name

    @property
    def region(self) -> str:
        """Where it is."""
        return self.entry.region

    @property
    def partition(self) -> str:
        """What ARNs of the region begin with: aws, aws-cn, aws-us-gov."""
        return region_partition(self.region)

    def arn(self, service: str, resource: str) -> str:
        """The name of a resource of this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.entry.account}:{resource}"

    @property
    def role_name(self) -> str:
        """Of the role that nodes have."""
        return f"slipway-{self.name}-{self.region}"

    @property
    def role_arn(self) -> str:
        """Of the role that nodes have."""
        return f"arn:{self.partition}:iam::{self.entry.account}:role/{self.role_name}"

    @property
    def bucket(self) -> str:
        """Of the lifecycle scripts; HyperPod wants `sagemaker-` in front of its name."""
        return f"sagemaker-{self.name}-{self.entry.account}-{self.region}"

    @property
    def tags(self) -> list[dict[str, str]]:
        """What everything of this cluster carries."""
        return [{"Key": CLUSTER_TAG, "Value": self.name}]

    def instance_counts(self) -> Iterator[tuple[FilePath, str, int]]:
        """(place in the file, instance type, how many), of every group."""
        yield (CONTROLLER,), self.entry.controller, 1
        if self.entry.login:
            yield (LOGIN,), self.entry.login, 1
        for name, group in self.entry.groups.items():
            yield ("groups", name, "instance"), group.instance, group.count

    def price(self, thing: str) -> Decimal | None:
        """Dollars, as the file has it: of a type of instances an hour, or of THING_PRICES."""
        text = self.entry.prices.get(thing)
        return Decimal(text) if text else None

    def priced_things(self) -> list[str]:
        """Those of THING_PRICES that are made for this cluster."""
        network = ["nat", "nat_gb", "address"] if self.entry.network == "make" else []
        return network + (["storage"] if self.entry.storage.file_system is None else [])

    def where(self, place: FilePath) -> str:
        """FILE:LINE of a place, or of the nearest thing around it that the file has."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines.get(place, 1)}"


def read_cluster_file(path: Path) -> ClusterFile:
    """Read and check one file. Raises UsageError with the line of each mistake."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(
            f"the cluster's file cannot be read: {reason}",
            where=str(path),
            cure="docs/cluster.md has one to begin with.",
        ) from error
    if not text.strip():
        raise UsageError(
            "the cluster's file is empty",
            where=f"{path}:1",
            cure="docs/cluster.md has one to begin with.",
        )
    file = read_yaml(text, str(path))
    if not file.problems:
        entry, problems = _checked(file)
        file.problems += problems
        if entry is not None and not file.problems:
            return ClusterFile(entry, str(path), file.lines)
    raise BadInputError([_error(file, problem) for problem in file.problems])


def _error(file: YamlFile, problem: Problem) -> SlipwayError:
    name, line = file.place(problem)
    return UsageError(problem.what, where=f"{name}:{line}", cure=problem.cure)


def _checked(file: YamlFile) -> tuple[ClusterEntry | None, list[Problem]]:
    try:
        entry = ClusterEntry.model_validate(_with_fractions(file, file.data, ()))
    except ValidationError as error:
        return None, [_problem(each) for each in error.errors() if not _other_member(each)]
    return entry, list(_contradictions(entry))


def _with_fractions(file: YamlFile, value: Any, path: FilePath) -> Any:
    """The values with prices as text: a fraction has no exact place in YAML's own numbers."""
    if isinstance(value, dict):
        return {key: _with_fractions(file, item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_fractions(file, item, (*path, at)) for at, item in enumerate(value)]
    number = isinstance(value, int) and not isinstance(value, bool)
    if (number and path[:1] == ("prices",)) or (isinstance(value, float) and math.isnan(value)):
        return file.texts[path]
    return value


_CURES = {
    "account": 'twelve digits, in quotes: "111122223333"',
    "zone": "the id, not the name, of a zone: usw2-az2; `aws ec2 describe-availability-zones` "
    "lists both, and the same name is another zone in another account",
    "region": "as in `us-west-2`",
    "instance": "as HyperPod names them: ml.p5.48xlarge",
    "controller": "as HyperPod names them: ml.c5.xlarge",
    "login": "as HyperPod names them: ml.c5.xlarge",
    "name": "small letters, digits and single hyphens, 40 of them at most",
}


def _other_member(error: Any) -> bool:
    """Whether an error is that of the member of a union that was not meant."""
    return error["type"] == "literal_error" and isinstance(error["input"], dict)


def _problem(error: Any) -> Problem:
    # Members of a union and keys of a mapping have names of their own in pydantic's places.
    path = tuple(
        part
        for part in error["loc"]
        if part not in ("[key]", "NetworkEntry") and not str(part).startswith("literal[")
    )
    title = ".".join(map(str, path)) or "the file"
    last = next((str(part) for part in reversed(path) if str(part) in _CURES), "")
    cure = _CURES.get(last, "docs/cluster.md explains every entry")
    kind = error["type"]
    if kind == "missing":
        return Problem(path[:-1], f"{title} is missing", cure)
    if kind == "extra_forbidden":
        owner: Any = {1: ClusterEntry, 3: InstanceGroupEntry}.get(len(path), StorageEntry)
        owner = {"network": NetworkEntry, "roles": RolesEntry}.get(str(path[0]), owner)
        hint = did_you_mean(str(path[-1]), list(owner.model_fields))
        return Problem(path, f"{title} is no entry of a cluster's file{hint}", cure)
    if kind == "string_pattern_mismatch":
        return Problem(path, f"{title}: {error['input']!r} is not of the form it has", cure)
    words = str(error["msg"])
    return Problem(path, f"{title}: {words[:1].lower()}{words[1:]}", cure)


def _contradictions(entry: ClusterEntry) -> Iterator[Problem]:
    """What each entry by itself allows, and all together do not."""
    if entry.region not in region_suffixes():
        hint = did_you_mean(entry.region, region_suffixes())
        yield Problem(("region",), f"AWS has no region {entry.region!r}{hint}", _CURES["region"])
        return
    bucket = f"sagemaker-{entry.name}-{entry.account}-{entry.region}"
    if len(bucket) > _LONGEST_BUCKET:
        yield Problem(
            ("name",),
            f"the bucket of the scripts would be {bucket}, which is longer than the "
            f"{_LONGEST_BUCKET} characters that S3 allows",
            f"a name of {len(entry.name) - len(bucket) + _LONGEST_BUCKET} characters at most",
        )
    for name in (CONTROLLER, LOGIN):
        if name in entry.groups:
            yield Problem(("groups", name), f"{name} is no group of workers", "rename it")
    capacity = entry.storage.capacity_gib
    if capacity != 1200 and capacity % 2400:
        yield Problem(
            ("storage", "capacity_gib"),
            f"FSx for Lustre has no file system of {capacity} GiB",
            "1200, or a multiple of 2400 (FSx API reference, CreateFileSystem, StorageCapacity)",
        )
    if (entry.storage.file_system is None) != (entry.storage.mount_name is None):
        yield Problem(
            ("storage",),
            "file_system and mount_name of a file system that there is belong together",
            "`aws fsx describe-file-systems` has both",
        )
    file = ClusterFile(entry, "", {})
    types = {instance for _, instance, _ in file.instance_counts()}
    for thing in entry.prices:
        if thing in THING_PRICES and thing not in file.priced_things():
            what = "a price, and it is not made: the file names one that there is"
            yield Problem(("prices", thing), f"{thing} has {what}", "remove the price")
        elif thing not in types | THING_PRICES.keys():
            hint = did_you_mean(thing, [*types, *THING_PRICES])
            yield Problem(("prices", thing), f"no group is of {thing}{hint}", "remove the price")
