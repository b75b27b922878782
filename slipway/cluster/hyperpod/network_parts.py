"""The network of a cluster: private nodes, a NAT gateway to the internet, a gateway to S3.

Numbers: a node with many EFA interfaces takes dozens of addresses (ml.p5.48xlarge: 81, SageMaker
developer guide, "Setting up SageMaker HyperPod with a custom Amazon VPC"), hence the large subnet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slipway.cluster.documents import security_group_rules
from slipway.cluster.hyperpod.cluster_part import ClusterPart, ClusterSite
from slipway.core import SlipwayError

NETWORK, PUBLIC, NODES = "10.0.0.0/16", "10.0.0.0/24", "10.0.128.0/17"
EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class _Kind:
    """How EC2 calls one kind of thing: `answers` holds those there are, `answer` the one made."""

    describe: str
    answers: str
    key: str
    tag_type: str
    create: str
    answer: str
    delete: str
    #: States in which it is as good as gone, and those in which it can be used: EC2 shows some
    #: things for an hour after their end, and writes the states of endpoints in both cases.
    #: `unknown` is its code for an id that it does not know.
    gone: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()
    unknown: str = ""
    filters: str = "Filters"


_VPC = _Kind("DescribeVpcs", "Vpcs", "VpcId", "vpc", "CreateVpc", "Vpc", "DeleteVpc")
_GATEWAY = _Kind(
    *("DescribeInternetGateways", "InternetGateways", "InternetGatewayId", "internet-gateway"),
    *("CreateInternetGateway", "InternetGateway", "DeleteInternetGateway"),
)
_SUBNET = _Kind(
    *("DescribeSubnets", "Subnets", "SubnetId", "subnet"),
    *("CreateSubnet", "Subnet", "DeleteSubnet"),
)
_ADDRESS = _Kind(
    *("DescribeAddresses", "Addresses", "AllocationId", "elastic-ip"),
    *("AllocateAddress", "", "ReleaseAddress"),
)
_NAT = _Kind(
    *("DescribeNatGateways", "NatGateways", "NatGatewayId", "natgateway"),
    *("CreateNatGateway", "NatGateway", "DeleteNatGateway"),
    gone=("deleted", "failed"),
    usable=("available",),
    unknown="NatGatewayNotFound",
    filters="Filter",
)
_ROUTES = _Kind(
    *("DescribeRouteTables", "RouteTables", "RouteTableId", "route-table"),
    *("CreateRouteTable", "RouteTable", "DeleteRouteTable"),
)
_ENDPOINT = _Kind(
    *("DescribeVpcEndpoints", "VpcEndpoints", "VpcEndpointId", "vpc-endpoint"),
    *("CreateVpcEndpoint", "VpcEndpoint", "DeleteVpcEndpoints"),
    gone=("deleted", "failed"),
    usable=("available",),
    unknown="InvalidVpcEndpointId.NotFound",
)
_GROUP = _Kind(
    *("DescribeSecurityGroups", "SecurityGroups", "GroupId", "security-group"),
    *("CreateSecurityGroup", "", "DeleteSecurityGroup"),
)


def _state(thing: Any) -> str:
    return str(thing.get("State", "")).lower()


def network_parts(site: ClusterSite) -> list[ClusterPart]:
    """In the order in which they are made; nothing where the file names a network."""
    network = site.cluster.entry.network
    if network != "make":
        site.ids["nodes-subnet"] = network.subnet
        site.ids["security-group"] = network.security_group
        return []
    return _Network(site).parts()


class _Network:
    def __init__(self, site: ClusterSite) -> None:
        self._site = site

    def parts(self) -> list[ClusterPart]:
        ids, zone = self._site.ids, self._site.cluster.entry.zone
        group = f"slipway-{self._site.cluster.name}"
        return [
            self._thing("vpc", f"network {NETWORK}", _VPC, lambda: {"CidrBlock": NETWORK}),
            self._thing("gateway", "internet gateway", _GATEWAY, dict),
            ClusterPart(
                "gateway-attachment",
                "internet gateway in the network",
                self._find_attachment,
                self._attach,
                self._detach,
            ),
            self._subnet("public-subnet", f"public subnet {PUBLIC} in {zone}", PUBLIC),
            self._subnet("nodes-subnet", f"nodes' subnet {NODES} in {zone}", NODES),
            self._thing(
                "address",
                "public address of the NAT gateway",
                _ADDRESS,
                lambda: {"Domain": "vpc"},
                costs="by the hour",
            ),
            self._thing(
                "nat",
                "NAT gateway",
                _NAT,
                lambda: {"SubnetId": ids["public-subnet"], "AllocationId": ids["address"]},
                costs="by the hour, and by what passes it",
            ),
            *self._routes("public", "public-subnet", "GatewayId", "gateway"),
            *self._routes("nodes", "nodes-subnet", "NatGatewayId", "nat"),
            self._thing(
                "s3-endpoint",
                "gateway to S3, past the NAT gateway",
                _ENDPOINT,
                lambda: {
                    "VpcId": ids["vpc"],
                    "VpcEndpointType": "Gateway",
                    "ServiceName": f"com.amazonaws.{self._site.cluster.region}.s3",
                    "RouteTableIds": [ids["nodes-routes"]],
                },
            ),
            self._thing(
                "security-group",
                "security group of the nodes",
                _GROUP,
                lambda: {"GroupName": group, "Description": group, "VpcId": ids["vpc"]},
            ),
            self._rule("AuthorizeSecurityGroupIngress", "IpPermissions", "ingress", "into"),
            self._rule("AuthorizeSecurityGroupEgress", "IpPermissionsEgress", "egress", "out of"),
        ]

    def _describe(self, part: str, kind: _Kind) -> Any:
        filters: dict[str, Any] = {kind.filters: self._site.filters(part)}
        answer = self._site.account.call("ec2", kind.describe, **filters)
        there = [each for each in answer[kind.answers] if _state(each) not in kind.gone]
        return there[0] if there else None

    def _thing(
        self,
        part: str,
        title: str,
        kind: _Kind,
        parameters: Callable[[], dict[str, Any]],
        costs: str = "",
    ) -> ClusterPart:
        """A thing that is made by one call, carries tags, and is removed by one call."""

        def find() -> str | None:
            there = self._describe(part, kind)
            return str(there[kind.key]) if there else None

        def make() -> str:
            tags = {"ResourceType": kind.tag_type, "Tags": self._site.tags(part)}
            answer = self._site.account.call(
                "ec2", kind.create, **parameters(), TagSpecifications=[tags]
            )
            return str((answer[kind.answer] if kind.answer else answer)[kind.key])

        def remove(identifier: str) -> None:
            many = kind is _ENDPOINT  # whose call takes several
            what: dict[str, Any] = (
                {f"{kind.key}s": [identifier]} if many else {kind.key: identifier}
            )
            answer = self._site.account.call("ec2", kind.delete, **what)
            for failure in answer.get("Unsuccessful", ()):
                if failure["Error"]["Code"] != kind.unknown:
                    raise SlipwayError(failure["Error"]["Message"], where=identifier)

        def ready(identifier: str) -> bool:
            if not kind.usable:
                return True
            answer = self._site.account.call(
                "ec2", kind.describe, (kind.unknown,), **{f"{kind.key}s": [identifier]}
            )
            (there,) = answer[kind.answers] if answer else ({},)
            if _state(there) == "failed":
                reason = there.get("FailureMessage") or there.get("LastError", {}).get("Message")
                raise SlipwayError(
                    f"the {title} has failed: {reason or 'AWS gives no reason'}",
                    where=identifier,
                    cure="Once that is mended, `./inv cluster.up` makes another one.",
                )
            return _state(there) in kind.usable

        return ClusterPart(part, title, find, make, remove, ready, costs)

    def _subnet(self, part: str, title: str, block: str) -> ClusterPart:
        return self._thing(
            part,
            title,
            _SUBNET,
            lambda: {
                "VpcId": self._site.ids["vpc"],
                "CidrBlock": block,
                "AvailabilityZoneId": self._site.cluster.entry.zone,
            },
        )

    def _routes(self, name: str, subnet: str, key: str, target: str) -> list[ClusterPart]:
        """A table of routes, its way out (`target`, a part, under `key`), and the subnet that goes
        by it."""
        ids, account = self._site.ids, self._site.account
        table = f"{name}-routes"

        def entries(kind: str) -> Any:
            there = self._describe(table, _ROUTES)
            return there[kind] if there else ()

        def way_out() -> Any:
            known = {route.get("DestinationCidrBlock"): route for route in entries("Routes")}
            return known.get(EVERYWHERE)

        def find_route() -> str | None:
            route = way_out()
            leads_there = route and route.get(key) == ids.get(target, route.get(key))
            return EVERYWHERE if leads_there else None

        def make_route() -> str:
            # One whose gateway has gone stays, and leads nowhere.
            change = "ReplaceRoute" if way_out() else "CreateRoute"
            account.call(
                "ec2",
                change,
                RouteTableId=ids[table],
                DestinationCidrBlock=EVERYWHERE,
                **{key: ids[target]},
            )
            return EVERYWHERE

        def find_association() -> str | None:
            links = [link for link in entries("Associations") if link.get("SubnetId")]
            return str(links[0]["RouteTableAssociationId"]) if links else None

        def make_association() -> str:
            answer = account.call(
                "ec2", "AssociateRouteTable", RouteTableId=ids[table], SubnetId=ids[subnet]
            )
            return str(answer["AssociationId"])

        def remove_association(identifier: str) -> None:
            account.call("ec2", "DisassociateRouteTable", AssociationId=identifier)

        return [
            self._thing(table, f"routes of the {subnet}", _ROUTES, lambda: {"VpcId": ids["vpc"]}),
            ClusterPart(f"{name}-route", f"way out of the {subnet}", find_route, make_route),
            ClusterPart(
                f"{name}-association",
                f"{subnet} goes by its routes",
                find_association,
                make_association,
                remove_association,
            ),
        ]

    def _rule(self, call: str, key: str, part: str, way: str) -> ClusterPart:
        ids = self._site.ids

        def find() -> str | None:
            group = self._describe("security-group", _GROUP)
            pairs = [
                pair["GroupId"]
                for rule in (group[key] if group else ())
                if rule["IpProtocol"] == "-1"
                for pair in rule["UserIdGroupPairs"]
            ]
            return part if group and group["GroupId"] in pairs else None

        def make() -> str:
            rules = security_group_rules(ids["security-group"])
            self._site.account.call("ec2", call, **rules[call])
            return part

        return ClusterPart(part, f"all traffic {way} nodes from each other (EFA)", find, make)

    def _find_attachment(self) -> str | None:
        gateway = self._describe("gateway", _GATEWAY)
        links = gateway["Attachments"] if gateway else []
        there = [link for link in links if _state(link) not in ("detaching", "detached")]
        return str(there[0]["VpcId"]) if there else None

    def _attach(self) -> str:
        ids = self._site.ids
        self._site.account.call(
            "ec2", "AttachInternetGateway", InternetGatewayId=ids["gateway"], VpcId=ids["vpc"]
        )
        return ids["vpc"]

    def _detach(self, identifier: str) -> None:
        gateway = self._describe("gateway", _GATEWAY)
        self._site.account.call(
            "ec2",
            "DetachInternetGateway",
            InternetGatewayId=gateway["InternetGatewayId"],
            VpcId=identifier,
        )
