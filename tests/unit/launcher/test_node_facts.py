"""Nodes compare digests, and name what differs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from launcher.causes import GATE, LaunchError
from launcher.checks import meet_nodes
from launcher.peers import LonePeers
from launcher.platforms import local_topology
from launcher.stop_request import StopRequest

FACTS = {"hosts": ["a", "b"], "arguments": ["t.py"], "version of torch": "2.13.0"}


class Table:
    """Peers around one table: a gather ends when all have spoken. Counts what is said."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.values: dict[str, dict[int, Any]] = {}
        self.changed = threading.Condition()


class Seat(LonePeers):
    """One node's place at it."""

    def __init__(self, table: Table, node: int) -> None:
        super().__init__()
        self._table, self._node = table, node

    def gather(self, name: str, value: Any, **_: Any) -> list[Any]:
        table = self._table
        with table.changed:
            values = table.values.setdefault(name, {})
            values[self._node] = value
            table.changed.notify_all()
            assert table.changed.wait_for(lambda: len(values) == table.nodes, 30)
        return [values[node] for node in range(table.nodes)]


def meet(facts: list[dict[str, Any]], procs: list[int]) -> tuple[Table, list[Any]]:
    """What each node learns: the numbers of ranks, or why they do not fit together."""
    table = Table(len(facts))
    hosts = [f"n{node}" for node in range(len(facts))]
    outcomes: list[Any] = [None] * len(facts)

    def come(node: int) -> None:
        topology = local_topology(hosts=hosts, node_rank=node, job="j")
        seat = Seat(table, node)
        try:
            outcomes[node] = meet_nodes(
                seat, topology, facts[node], procs[node], timeout=1, halt=StopRequest()
            )
        except LaunchError as error:
            outcomes[node] = error

    threads = [threading.Thread(target=come, args=(node,)) for node in range(len(facts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return table, outcomes


def test_like_nodes_pass_even_with_unlike_numbers_of_gpus() -> None:
    table, outcomes = meet([FACTS] * 3, [8, 4, 8])
    assert outcomes == [[8, 4, 8]] * 3
    assert list(table.values) == ["start"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arguments": ["u.py"]}, "differ in arguments: n0 has ['t.py'], n1 has ['u.py']"),
        ({"version of torch": "2"}, "differ in version of torch: n0 has '2.13.0', n1 has '2'"),
        ({"image": "x"}, "differ in image: n0 has None, n1 has 'x'"),
        (
            {"arguments": ["u.py"], "version of torch": "2"},
            "differ in arguments: n0 has ['t.py'], n1 has ['u.py']; in version of torch: n0 has",
        ),
    ],
)
def test_unlike_nodes_are_told_apart_by_name(change: dict[str, object], told: str) -> None:
    _, outcomes = meet([FACTS, {**FACTS, **change}], [1, 1])
    for outcome in outcomes:
        assert isinstance(outcome, LaunchError)
        assert outcome.code == GATE
        assert told in str(outcome)


def test_of_many_nodes_the_odd_one_is_named_and_only_two_give_details() -> None:
    facts = [dict(FACTS) for _ in range(9)]
    facts[6]["script"] = "other"
    table, outcomes = meet(facts, [1] * 9)
    assert {str(outcome) for outcome in outcomes} == {
        "the nodes differ in script: n0 and 7 more have None, n6 has 'other'"
    }
    for name in ("digests of facts", "facts that differ"):
        assert [node for node, value in table.values[name].items() if value] in ([0, 6], [6, 0])
    assert table.values["facts that differ"][0] == {"script": "None"}
