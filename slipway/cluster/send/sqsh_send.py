"""`inv sqsh.send`: a file to nodes, and how it went on each."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.cluster.option_values import absolute_path
from slipway.cluster.send.node_channel import NodeChannel, NodeOrder, SentFile
from slipway.cluster.send.send_nodes import Targets, job_nodes, named_nodes
from slipway.core import (
    Project,
    SlipwayError,
    UsageError,
    error_text,
    human_bytes,
    print_json,
    print_table,
)
from slipway.sqsh import fetch_program, read_sidecar

#: Ports at which the nodes of one sending meet: below those that Linux gives to whoever asks for
#: any, and seldom another sending's.
_FIRST_PORT, _PORTS = 29000, 400


@dataclass(frozen=True)
class SendOptions:
    """Where to: `nodes` as words, or the nodes of `job`; `folder` on them ("": their own disk's).

    `alone`: nodes give nothing to each other.
    """

    nodes: tuple[str, ...] = ()
    job: str = ""
    folder: str = ""
    alone: bool = False


@dataclass(frozen=True)
class NodeSending:
    """How it went on a node: what its program says, or why it failed."""

    node: str
    result: Mapping[str, Any]
    error: str = ""


def send_sqsh(project: Project, path: Path, options: SendOptions, *, as_json: bool = False) -> None:
    """Bring the .sqsh at `path` to nodes, and tell how it went.

    Raises UsageError, and SlipwayError where one of them has not got it; the others have.
    """
    folder = absolute_path(options.folder, "--to") if options.folder else ""
    if options.job and options.nodes:
        raise UsageError("--job has nodes of its own", cure="Name nodes, or give --job.")
    targets = job_nodes(project, options.job) if options.job else named_nodes(options.nodes)
    file = _open_file(path)
    nodes = _Nodes({}, {}, {})
    try:
        nodes = _start_all(targets)
        orders = _orders(project, nodes.addresses, folder, alone=options.alone)

        def serve(name: str) -> NodeSending:
            try:
                return NodeSending(name, nodes.channels[name].serve(orders[name], file))
            except (SlipwayError, OSError) as error:
                return NodeSending(name, {}, _why(error))

        with ThreadPoolExecutor(max(1, len(nodes.channels))) as pool:
            try:
                done = dict(zip(nodes.channels, pool.map(serve, nodes.channels), strict=True))
            except BaseException:
                _close(nodes.channels)
                raise
    finally:
        _close(nodes.channels)
        file.close()
    ended = done | nodes.failures
    _report(path, [ended[name] for name in targets], as_json=as_json)


def _why(error: Exception) -> str:
    return error_text(error) if isinstance(error, OSError) else str(error)


def _close(channels: Mapping[str, NodeChannel]) -> None:
    for channel in channels.values():
        channel.close()


def _open_file(path: Path) -> SentFile:
    sidecar = read_sidecar(path)
    beside = path.with_name(path.name + ".json")
    if sidecar is None:
        raise SlipwayError(
            f"{beside} is not there: a .sqsh is sent by its sidecar",
            cure="Copy the two together, or export the image again.",
        )
    start, pieces = 0, {}
    for piece in sidecar.pieces:
        pieces[piece.sha256] = start, piece.size
        start += piece.size
    try:
        if path.stat().st_size != sidecar.size:
            raise SlipwayError(
                f"{path} has {path.stat().st_size} bytes, and its sidecar says {sidecar.size}",
                cure="Copy it again, or export the image again with --force.",
            )
        return SentFile(path, beside.read_bytes(), pieces)
    except OSError as error:
        raise SlipwayError(f"{path} cannot be read: {error.strerror}") from error


@dataclass
class _Nodes:
    """Those that answer, where the others reach them, and how it went where one does not."""

    channels: dict[str, NodeChannel]
    addresses: dict[str, str]
    failures: dict[str, NodeSending]


def _start_all(targets: Targets) -> _Nodes:
    """All at once."""
    opened: dict[str, NodeChannel] = {}

    def start(name: str) -> tuple[str, str]:
        """Its address, or "" and why there is none."""
        try:
            opened[name] = targets[name]()
            return _address(opened[name].hear_hello(), name), ""
        except SlipwayError as error:
            return "", str(error)

    with ThreadPoolExecutor(len(targets)) as pool:
        try:
            answers = dict(zip(targets, pool.map(start, targets), strict=True))
        except BaseException:
            _close(opened)  # the threads end with their processes
            raise
    addresses = {name: address for name, (address, _) in answers.items() if address}
    failures = {name: NodeSending(name, {}, why) for name, (_, why) in answers.items() if why}
    _close({name: opened[name] for name in failures if name in opened})
    return _Nodes({name: opened[name] for name in addresses}, addresses, failures)


def _address(hello: Mapping[str, Any], name: str) -> str:
    """Where other nodes reach it: the address that ssh has reached, else its name."""
    try:
        address = ipaddress.ip_address(str(hello.get("address", "")))
    except ValueError:
        return name
    own = address.is_loopback or address.is_link_local or address.is_unspecified
    return name.rpartition("@")[2] if own else str(address)


def _orders(
    project: Project, addresses: Mapping[str, str], folder: str, *, alone: bool
) -> dict[str, NodeOrder]:
    """Several nodes give pieces to each other, and know each other by a secret of this sending."""
    program = fetch_program(project.launcher)
    words = ["sender:", "--json", *(["--to", folder] if folder else [])]
    if alone or len(addresses) < 2:
        order = NodeOrder(program, (*words, "--alone"), {})
        return dict.fromkeys(addresses, order)
    env = {"LAUNCH_SECRET": secrets.token_hex(32)}
    port = _FIRST_PORT + secrets.randbelow(_PORTS)
    words += ["--hosts", ",".join(addresses.values()), "--port", str(port), "--job", "sqsh.send"]
    return {
        name: NodeOrder(program, (*words, "--node-rank", str(rank)), env)
        for rank, name in enumerate(addresses)
    }


def _report(path: Path, sendings: list[NodeSending], *, as_json: bool) -> None:
    failed = [sending for sending in sendings if sending.error]
    if as_json:
        print_json(
            [{"node": one.node, "error": one.error or None, **one.result} for one in sendings]
        )
    else:
        print_table(
            ("node", "file", "s", "from here", "from nodes", "was there"),
            [_row(sending) for sending in sendings if not sending.error],
        )
    if failed:
        told = "\n".join(f"{sending.node}: {sending.error}" for sending in failed)
        raise SlipwayError(
            f"{len(failed)} of {len(sendings)} nodes have not got {path.name}:\n{told}"
        )


def _row(sending: NodeSending) -> list[str]:
    told = sending.result
    whole = not (told["from_origin"] or told["from_peers"] or told["from_older"])
    there = told["size"] if whole else told["from_older"]
    counts = (told["from_origin"], told["from_peers"], there)
    return [sending.node, str(told["path"]), f"{told['seconds']:.1f}", *map(human_bytes, counts)]
