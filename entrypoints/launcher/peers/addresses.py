"""Addresses and interfaces: where node 0 listens, and by which way nodes reach each other.

A host's own name says little: Debian lets it resolve to 127.0.1.1, and clusters have several
networks. What is certain is a connection that stands: its two ends are addresses at which these two
nodes reach each other, and the interface that has such an address is the one for gloo and NCCL.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Of the other hosts, how many are looked up to see whether this job is one on loopback.
SAMPLE_HOSTS = 3

# rtnetlink(7): RTM_GETADDR and what it answers.
_RTM_NEWADDR, _RTM_GETADDR, _NLMSG_DONE, _NLMSG_ERROR = 20, 22, 3, 2
_NLM_F_DUMP_REQUEST = 0x301
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


@dataclass(frozen=True)
class PeerRoute:
    """How this node and node 0 reach each other.

    `local` is this node's own address, `master` node 0's as this node reaches it, `interface` the
    one that has `local`; "" where the kernel does not tell.
    """

    local: str
    master: str
    interface: str


def find_route(local: str, master: str) -> PeerRoute:
    """With the interface looked up."""
    return PeerRoute(local, master, interface_of(local))


def interface_of(address: str) -> str:
    """The interface that has an address; "" when none has it."""
    try:
        wanted = ipaddress.ip_address(address.partition("%")[0])
        for index, found in _interface_addresses():
            if found == wanted:
                return socket.if_indextoname(index)
        if wanted.version == 4 and wanted.is_loopback:  # 127.0.0.2 is nobody's, and lo's
            return next((name for _, name in socket.if_nameindex() if name == "lo"), "")
    except (OSError, ValueError, struct.error):
        return ""  # a sandbox without netlink: the variables stay as they are
    return ""


def _interface_addresses() -> list[tuple[int, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """(interface number, address) of this host, second addresses of an interface included."""
    found: list[tuple[int, ipaddress.IPv4Address | ipaddress.IPv6Address]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.settimeout(5)
        netlink.bind((0, 0))
        request = struct.pack("=IHHII", 24, _RTM_GETADDR, _NLM_F_DUMP_REQUEST, 1, 0)
        netlink.send(request + struct.pack("=BBBBi", 0, 0, 0, 0, 0))
        while True:
            data = netlink.recv(1 << 18)
            while len(data) >= 16:
                size, kind = struct.unpack_from("=IH", data)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR) or size < 16:
                    return found
                if kind == _RTM_NEWADDR:
                    index: int = struct.unpack_from("=BBBBI", data, 16)[4]
                    raw = _address_attribute(data[24:size])
                    if raw is not None:
                        found.append((index, ipaddress.ip_address(raw)))
                data = data[(size + 3) & ~3 :]


def _address_attribute(data: bytes) -> bytes | None:
    """IFA_LOCAL, which on a point-to-point link is ours, else IFA_ADDRESS."""
    values: dict[int, bytes] = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4:
            break
        values[kind] = data[4:size]
        data = data[(size + 3) & ~3 :]
    return values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))


def resolve_host(host: str) -> list[str]:
    """A name's addresses of both families, best first; [] when it has none."""
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


def master_name(host: str, address: str) -> str:
    """Node 0 for ranks on this node: its name where that leads to `address`, else the address."""
    return host if address in resolve_host(host) else address


def is_loopback(address: str) -> bool:
    """Whether an address reaches this host alone."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def bind_addresses(hosts: Sequence[str]) -> list[str]:
    """Where node 0 listens: its own addresses, so that no other network reaches the gate.

    [] for all interfaces: where its name does not resolve, or to loopback although the others'
    names do not.
    """
    own = resolve_host(hosts[0])
    outward = [address for address in own if not is_loopback(address)]
    if outward or not own:
        return outward
    others = [address for host in hosts[1 : 1 + SAMPLE_HOSTS] for address in resolve_host(host)]
    return own if all(map(is_loopback, others)) else []


def listen(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Node 0's listening sockets; OSError when the port is taken."""
    addresses = bind_addresses(hosts)
    if addresses:
        try:
            return _listen_on(addresses, port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            # The name may belong to a load balancer or a NAT address.
    return [listen_everywhere(port)]


def _listen_on(addresses: Iterable[str], port: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    try:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.socket(family)
            listeners.append(listener)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _begin(listener, address, port)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def listen_everywhere(port: int) -> socket.socket:
    """Both families by one socket; the old one alone where the kernel has no IPv6."""
    try:
        listener = socket.socket(socket.AF_INET6)
    except OSError:
        listener = socket.socket()
    try:
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _begin(listener, "", port)
    except OSError:
        listener.close()
        raise
    return listener


def _begin(listener: socket.socket, address: str, port: int) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(4096)
    listener.setblocking(False)


def plain_address(address: str) -> str:
    """An address as people write it: without the IPv6 form of an IPv4 one (::ffff:10.0.0.1)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped) if mapped is not None else address


def own_end(listener: socket.socket) -> tuple[str, int]:
    """Where node 0 itself connects to: a listener's own address, whatever names resolve to."""
    address, port = listener.getsockname()[:2]
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what was bound, not a wish
    return anywhere.get(address, address), port
