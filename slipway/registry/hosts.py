"""What a registry's host name tells: loopback, an ECR registry of which account, or another."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from slipway.core import UsageError

PUBLIC_ECR = "public.ecr.aws"

# Docker Hub is named docker.io in references and serves its API elsewhere
# (distribution/reference, normalize.go).
_API_HOSTS = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}

# awslabs/amazon-ecr-credential-helper:ecr-login/api/client.go has the same shape, with the
# suffixes written out; here they come from botocore's partition data.
_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr(?P<dual>[.-])ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(?P<suffix>[a-z0-9.-]+)"
)
# Dual-stack hosts end in "on.<something>", which partition data does not carry
# (ECR user guide, "Making requests to Amazon ECR registries").
_DUAL_STACK = {"aws": "on.aws", "aws-us-gov": "on.aws", "aws-cn": "on.amazonwebservices.com.cn"}

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # RFC 1123, 2.1
_LONGEST_NAME = 253
_PORT = re.compile(r"(^|[^:]|\]):[0-9]{1,9}$")


@dataclass(frozen=True)
class EcrHost:
    """The parts of a private ECR registry's host name."""

    account: str
    region: str
    partition: str
    fips: bool = False
    dual_stack: bool = False


@cache
def _partitions() -> list[dict[str, Any]]:
    # Read as a file, as slipway.matrix.references does: importing botocore for it is slow.
    data = json.loads((files("botocore") / "data" / "partitions.json").read_text("utf-8"))
    return cast("list[dict[str, Any]]", data["partitions"])


def partition_of(region: str) -> tuple[str, str] | None:
    """(partition id, DNS suffix) of a region, None where AWS has no such region.

    From botocore's partitions.json; the pattern finds regions newer than the installed botocore.
    """
    for partition in _partitions():
        if region in partition["regions"] or re.match(partition["regionRegex"], region):
            return partition["id"], partition["outputs"]["dnsSuffix"]
    return None


def parse_ecr_host(host: str) -> EcrHost | None:
    """The account, region and partition of `{account}.dkr.ecr.{region}.{suffix}`, else None.

    FIPS (`ecr-fips`) and dual-stack (`dkr-ecr`) spellings included. A suffix that does not
    belong to the region's partition is not an ECR host: a token must not be sent there.
    """
    match = _ECR.fullmatch(host.lower())
    known = partition_of(match["region"]) if match else None
    if match is None or known is None:
        return None
    partition, suffix = known
    dual = match["dual"] == "-"
    if match["suffix"] != (_DUAL_STACK.get(partition) if dual else suffix):
        return None
    return EcrHost(match["account"], match["region"], partition, bool(match["fips"]), dual)


def check_host(host: str) -> None:
    """Raises UsageError for what cannot be a registry's host[:port]; shows no login in it."""
    reason = ""
    name, colon, port = host.rpartition(":") if _PORT.search(host) else (host, "", "")
    if "@" in host:
        host, reason = host.rpartition("@")[2], "a login does not belong into it"
    elif name.startswith("[") or name.count(":") > 1:
        try:
            ipaddress.IPv6Address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            reason = "the part in brackets is no IPv6 address"
        if not (name.startswith("[") and name.endswith("]")):
            reason = "an IPv6 address stands in brackets: [::1]:5000"
    elif not name or len(name) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, name.split("."))):
        reason = "a name has letters, digits and hyphens, with dots between its parts"
    if not reason and colon and not 0 < int(port) < 1 << 16:
        reason = "a port is a number from 1 to 65535"
    if reason:
        raise UsageError(
            f"{host[:100]!r} is no registry's name: {reason}",
            cure="Name it as HOST/REPOSITORY or HOST:PORT/REPOSITORY; logins are `docker login`'s.",
        )


def is_loopback(host: str) -> bool:
    """Whether host[:port] is this machine: 127.0.0.0/8, ::1 or localhost."""
    bracketed = host.startswith("[")
    name = host[1:].partition("]")[0] if bracketed else host.rsplit(":", 1)[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_private_address(name: str) -> bool:
    """Whether a host name (no port) is an address that means something else on each machine.

    Loopback, link-local (cloud metadata services) and unspecified addresses, and localhost.
    """
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return address.is_loopback or address.is_link_local or address.is_unspecified


def api_host(host: str) -> str:
    """Where the registry of a reference's host serves its API."""
    return _API_HOSTS.get(host, host)


def api_repository(host: str, repository: str) -> str:
    """The repository's name in the API: Docker Hub's official images are under `library/`."""
    return f"library/{repository}" if host in _API_HOSTS and "/" not in repository else repository
