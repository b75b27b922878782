"""What the schedule alone costs: nodes whose links are all that takes time, and share fairly."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from launcher.fetch.schedule import ORIGIN, Schedule

PIECE = 8 << 20
Flow = tuple[int, int, int]  # node, piece, source


def fair_rates(flows: Iterable[Flow], node_rate: float, origin_rate: float) -> dict[Flow, float]:
    """Max-min fair: the link with the least for each of its flows is shared first, and so on."""
    links: dict[tuple[str, int], set[Flow]] = {}
    for flow in flows:
        for link in (("down", flow[0]), ("up", flow[2])):
            links.setdefault(link, set()).add(flow)
    left = {link: origin_rate if link == ("up", ORIGIN) else node_rate for link in links}
    rates: dict[Flow, float] = {}
    while links:
        tight = min(links, key=lambda link: left[link] / len(links[link]))
        share = left[tight] / len(links[tight])
        for flow in list(links[tight]):
            rates[flow] = share
            for link in (("down", flow[0]), ("up", flow[2])):
                left[link] -= share
                links[link].discard(flow)
        links = {link: members for link, members in links.items() if members}
    return rates


def seconds(nodes: int, pieces: int, node_rate: float, origin_rate: float) -> float:
    """Until every node has every piece."""
    schedule = Schedule([PIECE] * pieces, nodes)
    for node in range(nodes):
        schedule.join(node, range(pieces))
    now = 0.0
    left: dict[Flow, float] = {}
    began: dict[Flow, float] = {}
    while True:
        for order in schedule.assign():
            flow = order.node, order.piece, order.source
            left[flow], began[flow] = float(PIECE), now
        if not left:
            assert schedule.finished
            return now
        rates = fair_rates(left, node_rate, origin_rate)
        step = min(left[flow] / rates[flow] for flow in left)
        now += step
        for flow in list(left):
            left[flow] -= rates[flow] * step
            if left[flow] < 1:
                del left[flow]
                schedule.got(flow[0], flow[1], now - began[flow])


@pytest.mark.parametrize(
    ("nodes", "megabytes", "node_rate", "origin_rate", "most"),
    [(16, 159, 10e6, 20e6, 1.6), (16, 394, 10e6, 20e6, 2.0), (2, 495, 100e6, 200e6, 1.6)],
)
def test_many_nodes_take_little_longer_than_one(
    nodes: int, megabytes: int, node_rate: float, origin_rate: float, most: float
) -> None:
    """The bounds are those that a fetch as a whole is to keep, with hashing and copying in it."""
    pieces = megabytes * 10**6 // PIECE
    one = seconds(1, pieces, node_rate, origin_rate)
    assert one == pytest.approx(pieces * PIECE / node_rate, rel=0.01)
    # Some of it is to be left for what is no link.
    assert seconds(nodes, pieces, node_rate, origin_rate) < one * (1 + 0.6 * (most - 1))
