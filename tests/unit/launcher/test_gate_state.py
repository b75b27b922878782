"""The gate's rules, without sockets: what each node is told, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import GATE, PEER, Cause, cause_from_wire
from launcher.peers.gate_state import COLLECT_SECONDS, GateState

HOSTS = ["a", "b", "c"]
Sent = list[tuple[int, dict[str, Any]]]


def meeting(nodes: int = 3) -> GateState:
    made = GateState(HOSTS[:nodes])
    for node in range(nodes):
        assert made.join(node)
    return made


def failed(message: str, age: float = 0.0, secondary: bool = False) -> dict[str, Any]:
    cause = Cause("TrainingError", message, 1, age=age, secondary=secondary)
    return {"kind": "failed", "cause": cause.to_wire()}


NOTHING = {"kind": "failed", "cause": None}


def verdicts(sent: Sent) -> dict[int, str]:
    return {
        node: cause_from_wire(message["cause"]).message
        for node, message in sent
        if message["kind"] == "end"
    }


@given(st.permutations(range(3)))
def test_a_gather_ends_with_the_last_value_and_keeps_node_order(order: Sequence[int]) -> None:
    gate = meeting()
    *early, last = order
    for node in early:
        assert gate.receive(node, {"kind": "gather", "name": "x", "value": node * 10}, 0) == []
    sent = gate.receive(last, {"kind": "gather", "name": "x", "value": last * 10}, 0)
    message = {"kind": "gathered", "name": "x", "values": [0, 10, 20]}
    assert sent == [(0, message), (1, message), (2, message)]


def test_two_gathers_do_not_mix() -> None:
    gate = meeting(2)
    gate.receive(0, {"kind": "gather", "name": "x", "value": 1}, 0)
    gate.receive(0, {"kind": "gather", "name": "y", "value": 2}, 0)
    sent = gate.receive(1, {"kind": "gather", "name": "y", "value": 3}, 0)
    assert {message["name"] for _, message in sent} == {"y"}


def test_after_the_first_failure_every_node_is_asked_and_the_oldest_error_wins() -> None:
    gate = meeting()
    asked = gate.receive(1, failed("late", age=1.0), 10)
    assert asked == [(node, {"kind": "collect"}) for node in range(3)]
    assert gate.receive(0, failed("first", age=2.0), 10.5) == []
    sent = gate.receive(2, NOTHING, 11)
    assert verdicts(sent) == dict.fromkeys(range(3), "first")


def test_ages_count_on_while_the_others_are_asked() -> None:
    gate = meeting(2)
    gate.receive(0, failed("reported first", age=0.5), 10)
    # 1.2 s later 1.6 s old: it happened after the other one.
    sent = gate.receive(1, failed("happened later", age=1.6), 11.2)
    assert verdicts(sent)[0] == "reported first"


def test_an_echo_never_wins_over_an_error_of_its_own() -> None:
    gate = meeting(2)
    gate.receive(0, failed("Connection closed by peer", age=9, secondary=True), 10)
    sent = gate.receive(1, failed("bad batch"), 11)
    assert verdicts(sent) == {0: "bad batch", 1: "bad batch"}


def test_a_node_that_does_not_answer_is_not_waited_for() -> None:
    gate = meeting()
    gate.receive(1, failed("bad batch"), 10)
    assert gate.next_deadline() == 10 + COLLECT_SECONDS
    assert gate.tick(10 + COLLECT_SECONDS - 0.1) == []
    assert verdicts(gate.tick(10 + COLLECT_SECONDS)) == dict.fromkeys(range(3), "bad batch")


def test_a_lost_node_is_a_failure_that_names_it() -> None:
    gate = meeting()
    assert gate.lost(2, 5) == [(0, {"kind": "collect"}), (1, {"kind": "collect"})]
    gate.receive(0, NOTHING, 5.1)
    gate.receive(1, failed("Connection reset by peer", age=0.1, secondary=True), 5.2)
    assert gate.verdict is not None
    assert (gate.verdict.kind, gate.verdict.host, gate.verdict.code) == ("NodeLost", "c", PEER)


def test_a_node_that_said_goodbye_is_not_lost() -> None:
    gate = meeting(2)
    gate.receive(1, {"kind": "bye"}, 0)
    assert gate.lost(1, 1) == []
    gate.receive(0, {"kind": "bye"}, 2)
    assert gate.over


def test_a_gather_without_a_node_that_has_left_fails_at_once() -> None:
    gate = meeting(2)
    gate.receive(1, {"kind": "bye"}, 0)
    sent = gate.receive(0, {"kind": "gather", "name": "x", "value": 1}, 0)
    assert sent == [(0, {"kind": "collect"})]


def test_a_gather_that_takes_too_long_names_who_is_missing() -> None:
    gate = GateState(HOSTS)
    gate.join(0)
    gate.receive(0, {"kind": "gather", "name": "start", "value": 1, "timeout": 30}, 100)
    assert gate.tick(129) == []
    gate.tick(130)
    gate.receive(0, NOTHING, 130.1)
    assert gate.verdict is not None
    assert gate.verdict.code == GATE
    assert gate.verdict.message == "b, c did not come to 'start'"


def test_a_node_that_comes_after_the_verdict_learns_it() -> None:
    gate = GateState(HOSTS)
    gate.join(0)
    gate.receive(0, failed("bad batch"), 1)
    assert gate.join(1)
    assert verdicts(gate.welcome(1)) == {1: "bad batch"}


def test_after_a_failure_nodes_that_never_came_are_not_waited_for() -> None:
    gate = GateState(HOSTS)
    gate.join(0)
    gate.receive(0, failed("bad batch"), 1)
    gate.receive(0, {"kind": "bye"}, 2)
    assert gate.over


def test_after_node_0_has_left_nodes_that_never_came_are_not_waited_for() -> None:
    gate = GateState(HOSTS)
    gate.join(0)
    gate.join(1)
    gate.receive(0, {"kind": "bye"}, 2)
    assert not gate.over
    gate.receive(1, {"kind": "bye"}, 3)
    assert gate.over


def test_a_node_can_not_join_twice_nor_from_outside() -> None:
    gate = meeting(2)
    assert not gate.join(1)
    assert not gate.join(7)


def test_a_stop_is_told_to_everyone() -> None:
    cause = Cause("Stopped", "stopped by SIGTERM", 143).to_wire()
    sent = meeting().receive(2, {"kind": "stop", "cause": cause}, 0)
    assert sent == [(node, {"kind": "stop", "cause": cause}) for node in range(3)]


def test_an_unknown_message_is_refused() -> None:
    with pytest.raises(ValueError, match="dance"):
        meeting().receive(0, {"kind": "dance"}, 0)


@given(
    st.builds(
        Cause,
        kind=st.text(),
        message=st.text(),
        code=st.integers(),
        host=st.text(),
        rank=st.integers(-1),
        age=st.floats(0, 1e6),
        detail=st.text(),
        secondary=st.booleans(),
    )
)
def test_a_cause_survives_the_wire(cause: Cause) -> None:
    assert cause_from_wire(cause.to_wire()) == cause


def test_a_message_for_one_node_goes_to_that_node_alone() -> None:
    gate = meeting()
    sent = {"kind": "relay", "topic": "t", "data": 1}
    assert gate.receive(2, {**sent, "to": 0}, 0) == [(0, sent)]
    assert gate.receive(2, {**sent, "to": None}, 0) == [(0, sent), (1, sent), (2, sent)]
