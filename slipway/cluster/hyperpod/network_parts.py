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
    #: States in which it is as good as gone.
    gone: tuple[str, ...] = ()
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
    gone=("deleted",),
    filters="Filter",
)
_ROUTES = _Kind(
    *("DescribeRouteTables", "RouteTables", "RouteTableId", "route-table"),
    *("CreateRouteTable", "RouteTable", "DeleteRouteTable"),
)
_ENDPOINT = _Kind(
    *("DescribeVpcEndpoints", "VpcEndpoints", "VpcEndpointId", "vpc-endpoint"),
    *("CreateVpcEndpoint", "VpcEndpoint", "DeleteVpcEndpoints"),
    gone=("deleted",),
)
_GROUP = _Kind(
    *("DescribeSecurityGroups", "SecurityGroups", "GroupId", "security-group"),
    *("CreateSecurityGroup", "", "DeleteSecurityGroup"),
)


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
                ready=self._nat_ready,
                costs="by the hour, and by what passes it",
            ),
            *self._routes("public", "public-subnet", lambda: {"GatewayId": ids["gateway"]}),
            *self._routes("nodes", "nodes-subnet", lambda: {"NatGatewayId": ids["nat"]}),
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
        there = [each for each in answer[kind.answers] if each.get("State") not in kind.gone]
        return there[0] if there else None

    def _thing(
        self,
        part: str,
        title: str,
        kind: _Kind,
        parameters: Callable[[], dict[str, Any]],
        ready: Callable[[str], bool] | None = None,
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
                raise SlipwayError(failure["Error"]["Message"], where=identifier)

        extra: dict[str, Any] = {"ready": ready} if ready else {}
        return ClusterPart(part, title, find, make, remove, costs=costs, **extra)

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

    def _routes(
        self, name: str, subnet: str, target: Callable[[], dict[str, Any]]
    ) -> list[ClusterPart]:
        """A table of routes, its way out, and the subnet that goes by it."""
        ids, account = self._site.ids, self._site.account
        table = f"{name}-routes"

        def entries(key: str) -> Any:
            there = self._describe(table, _ROUTES)
            return there[key] if there else ()

        def find_route() -> str | None:
            known = [route.get("DestinationCidrBlock") for route in entries("Routes")]
            return EVERYWHERE if EVERYWHERE in known else None

        def make_route() -> str:
            account.call(
                "ec2",
                "CreateRoute",
                RouteTableId=ids[table],
                DestinationCidrBlock=EVERYWHERE,
                **target(),
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

    def _nat_ready(self, _identifier: str) -> bool:
        there = self._describe("nat", _NAT)
        return bool(there and there["State"] == "available")

    def _find_attachment(self) -> str | None:
        gateway = self._describe("gateway", _GATEWAY)
        links = gateway["Attachments"] if gateway else []
        return str(links[0]["VpcId"]) if links else None

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
