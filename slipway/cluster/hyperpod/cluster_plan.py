"""What `cluster.up` would do: parts that are there and to be made, quotas, zones, costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.documents import ClusterFile, role_permissions
from slipway.cluster.hyperpod.account_parts import (
    bucket_parts,
    cluster_part,
    role_parts,
    script_parts,
    storage_parts,
)
from slipway.cluster.hyperpod.cluster_part import ClusterPart, ClusterSite
from slipway.cluster.hyperpod.network_parts import network_parts
from slipway.core import BadInputError, Project, SlipwayError, UsageError
from slipway.registry import NotAuthorisedError, caller_account

#: As AWS's own calculator has it (docs.aws.amazon.com/pricing-calculator).
HOURS_A_MONTH = 730


def _rounded(dollars: Decimal) -> Decimal:
    return dollars.quantize(Decimal("0.01"))


@dataclass(frozen=True)
class ClusterPlan:
    """`there` has the id of each part that exists; `problems` is why AWS would refuse, each with
    its line; `notes` is what could not be looked at."""

    site: ClusterSite
    parts: Sequence[ClusterPart]
    there: dict[str, str]
    problems: list[SlipwayError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def to_make(self) -> list[ClusterPart]:
        """Parts that are not there."""
        return [part for part in self.parts if part.name not in self.there]

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(part, state, what is paid for it)."""
        for part in self.parts:
            yield part.title, self.there.get(part.name, "to make"), part.costs

    def costs(self) -> Iterator[str]:
        """What it costs, as far as the file has prices."""
        cluster = self.site.cluster
        counts = Counter[str]()
        for _, instance, count in cluster.instance_counts():
            counts[instance] += count
        things = cluster.priced_things()
        unknown = [name for name in (*counts, *things) if cluster.price(name) is None]
        total = Decimal(0)
        for instance, count in counts.items():
            price = cluster.price(instance)
            if price is not None:
                total += price * count
                yield f"{count} x {instance}: ${price * count} an hour"
        if total:
            yield f"nodes together: ${total} an hour, ${total * 24} a day"
        around = Decimal(0)
        for thing in things:
            line, hourly = self._thing_cost(thing)
            around += hourly
            if line:
                yield line
        if around:
            both = _rounded(total + around)
            yield f"all of these: ${both} an hour, ${_rounded((total + around) * 24)} a day"
        if unknown:
            yield f"no price in the file: {', '.join(unknown)}"
        yield "nothing is paid for the gateway to S3; the bucket has a few kilobytes"

    def _thing_cost(self, thing: str) -> tuple[str, Decimal]:
        """One line ("" without a price), and dollars an hour."""
        price = self.site.cluster.price(thing)
        if price is None:
            return "", Decimal(0)
        if thing == "storage":
            capacity = self.site.cluster.entry.storage.capacity_gib
            hourly = price * capacity / HOURS_A_MONTH
            line = f"FSx for Lustre, {capacity} GiB: ${price * capacity} a month"
            return f"{line}, ${_rounded(hourly)} an hour; also while no node runs", hourly
        if thing == "nat_gb":
            return f"NAT gateway: ${price} for each GB that passes it", Decimal(0)
        names = {"nat": "NAT gateway", "address": "public address of the NAT gateway"}
        return f"{names[thing]}: ${price} an hour; also while no node runs", price

    def raise_problems(self) -> None:
        """Raise BadInputError where AWS would refuse."""
        if self.problems:
            raise BadInputError(self.problems)


def cluster_parts(site: ClusterSite, project: Project) -> list[ClusterPart]:
    """All parts of a cluster, in the order in which they are made."""
    return [
        *bucket_parts(site),
        *role_parts(site, role_permissions(site.cluster, project)),
        *network_parts(site),
        *storage_parts(site),
        *script_parts(site),
        cluster_part(site),
    ]


def find_parts(site: ClusterSite, parts: Sequence[ClusterPart]) -> dict[str, str]:
    """Name -> id of the parts that are there; the site knows them from then on."""
    there = {}
    for part in parts:
        identifier = part.find()
        if identifier is not None:
            there[part.name] = site.ids[part.name] = identifier
    return there


def open_site(cluster: ClusterFile) -> ClusterSite:
    """The site of a file, in the account that it names. Raises UsageError for another account."""
    account = caller_account(cluster.region)
    if account != cluster.entry.account:
        raise UsageError(
            f"the file is of account {cluster.entry.account}, and the credentials are of {account}",
            where=cluster.where(("account",)),
            cure="Choose the profile of that account (AWS_PROFILE), or change the file.",
        )
    return ClusterSite(cluster, AwsAccount(cluster.region))


def plan_cluster(root: Path, cluster: ClusterFile) -> ClusterPlan:
    """Look at what there is and what would be refused. Changes nothing."""
    site = open_site(cluster)
    parts = cluster_parts(site, Project.at(root))
    plan = ClusterPlan(site, parts, find_parts(site, parts))
    if "cluster" not in plan.there:
        _check_zone(plan)
        _check_quotas(plan)
    return plan


def _check_zone(plan: ClusterPlan) -> None:
    """Whether the zone has every type, and a subnet that there is already is in it."""
    site, entry = plan.site, plan.site.cluster.entry
    network = entry.network
    if network != "make":
        answer = site.account.call("ec2", "DescribeSubnets", SubnetIds=[network.subnet])
        zone = answer["Subnets"][0]["AvailabilityZoneId"]
        if zone != entry.zone:
            plan.problems.append(
                _problem(
                    plan,
                    ("network",),
                    f"{network.subnet} is in {zone}, not in {entry.zone}",
                    "Nodes and file system are to be in one zone: change `zone`, or the subnet.",
                )
            )
    types = sorted({name for _, name, _ in site.cluster.instance_counts()})
    filters = [{"Name": "instance-type", "Values": [name.removeprefix("ml.") for name in types]}]
    zones: dict[str, set[str]] = {}
    for offer in site.account.pages(
        "ec2",
        "DescribeInstanceTypeOfferings",
        "InstanceTypeOfferings",
        LocationType="availability-zone-id",
        Filters=filters,
    ):
        zones.setdefault(f"ml.{offer['InstanceType']}", set()).add(offer["Location"])
    for place, instance, _ in site.cluster.instance_counts():
        offered = zones.get(instance, set())
        if entry.zone not in offered:
            where = f"in {', '.join(sorted(offered))}" if offered else f"nowhere in {entry.region}"
            plan.problems.append(
                _problem(
                    plan,
                    place,
                    f"EC2 has no {instance.removeprefix('ml.')} in {entry.zone}",
                    f"It is {where}: change `zone` or the type.",
                )
            )


def _check_quotas(plan: ClusterPlan) -> None:
    """Whether the account may have as many of each type in clusters."""
    wanted = Counter[str]()
    for _, instance, count in plan.site.cluster.instance_counts():
        wanted[instance] += count
    try:
        quotas = _quotas(plan.site.account, wanted)
    except NotAuthorisedError as error:
        plan.notes.append(f"quotas were not read: {error.what}")
        return
    for place, instance, _ in plan.site.cluster.instance_counts():
        if instance not in quotas:
            plan.notes.append(f"Service Quotas has no entry for {instance} in clusters")
        elif quotas[instance] < wanted[instance]:
            plan.problems.append(
                _problem(
                    plan,
                    place,
                    f"the account may have {quotas[instance]:g} {instance} in clusters, and this "
                    f"one has {wanted[instance]}",
                    f"Ask for `{_quota_name(instance)}` in Service Quotas (SageMaker).",
                )
            )


def _quotas(account: AwsAccount, wanted: Counter[str]) -> dict[str, float]:
    """Instance type -> how many; what was never raised is among the defaults only."""
    names = {_quota_name(instance): instance for instance in wanted}
    quotas: dict[str, float] = {}
    for call in ("ListServiceQuotas", "ListAWSDefaultServiceQuotas"):
        if len(quotas) == len(names):
            break
        for quota in account.pages("service-quotas", call, "Quotas", ServiceCode="sagemaker"):
            instance = names.get(quota["QuotaName"])
            if instance is not None:
                quotas.setdefault(instance, quota["Value"])
    return quotas


def _quota_name(instance: str) -> str:
    return f"{instance} for cluster usage"


def _problem(plan: ClusterPlan, place: tuple[Any, ...], what: str, cure: str) -> UsageError:
    return UsageError(what, where=plan.site.cluster.where(place), cure=cure)
