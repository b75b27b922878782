"""Machines behind links of their own: network namespaces on a bridge, held to a rate by `tc` (tbf).

Needs root and iproute2.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

ORIGIN_ADDRESS = "10.88.0.250"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Network:
    """Namespaces `sf-NAME` on a bridge."""

    names: list[str] = field(default_factory=list)

    def add(self, name: str, address: str, rate: float) -> None:
        space = f"sf-{name}"
        ip("netns", "add", space)
        self.names.append(space)
        ip("link", "add", "eth0", "netns", space, "type", "veth",
           "peer", "name", f"p{name}", "netns", "sf-switch")  # fmt: skip
        ip("-n", "sf-switch", "link", "set", f"p{name}", "master", "br0", "up")
        ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", space, "link", "set", device, "up")
        for place, device in ((space, "eth0"), ("sf-switch", f"p{name}")):
            subprocess.run(
                ["ip", "netns", "exec", place, "tc", "qdisc", "add", "dev", device, "root", "tbf",
                 "rate", f"{rate * 8:.0f}mbit", "burst", "256kb", "latency", "100ms"],
                check=True,
            )  # fmt: skip

    def sent(self, name: str) -> int:
        """Bytes that a namespace has sent, with all that is around them."""
        text = subprocess.run(
            ["ip", "-n", f"sf-{name}", "-j", "-s", "link", "show", "eth0"],
            check=True,
            capture_output=True,
        ).stdout
        count: int = json.loads(text)[0]["stats64"]["tx"]["bytes"]
        return count


@contextmanager
def network(nodes: int, node_rate: float, origin_rate: float) -> Iterator[Network]:
    made = Network()
    try:
        ip("netns", "add", "sf-switch")
        made.names.append("sf-switch")
        ip("-n", "sf-switch", "link", "add", "br0", "type", "bridge")
        ip("-n", "sf-switch", "link", "set", "br0", "up")
        made.add("origin", ORIGIN_ADDRESS, origin_rate)
        for number in range(nodes):
            made.add(f"n{number}", address(number), node_rate)
        yield made
    finally:
        for name in reversed(made.names):
            subprocess.run(["ip", "netns", "del", name], check=False)


def address(node: int) -> str:
    return f"10.88.0.{node + 1}"
