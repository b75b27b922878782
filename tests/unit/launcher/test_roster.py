"""Who trains on the nodes of a job with spares, and who comes when one goes, without sockets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import FAILED, HANG, OK, PEER, PREFLIGHT, STOPPED, Cause
from launcher.peers import (
    HALT,
    LEAVE,
    OVER,
    REPORT,
    TELL,
    TRAIN,
    NodeReport,
    Roster,
    RosterPolicy,
    RosterState,
    roster_from_wire,
)
from launcher.peers.roster import ASSEMBLE_SECONDS, HALT_SECONDS, report_of_node

HOSTS = ("a", "b", "c", "d")
POLICY = RosterPolicy(training=2, restarts=2, failures=False)
Sent = list[tuple[int, dict[str, Any]]]


def orders(sent: Sent, what: str) -> dict[int, dict[str, Any]]:
    return {node: m["data"] for node, m in sent if m["data"]["do"] == what}


class Job:
    """A leader and what its nodes would report; all nodes do at once what they are told."""

    def __init__(self, nodes: int = 3, policy: RosterPolicy = POLICY) -> None:
        self.state = RosterState(HOSTS[:nodes], policy)
        self.now = 0.0
        self.told: list[tuple[int, dict[str, Any]]] = []
        for node in range(nodes):
            assert self.state.join(node)
        for node in range(nodes):
            self.report(node, NodeReport())

    def _take(self, sent: Sent) -> Sent:
        self.told += [(node, message["data"]) for node, message in sent]
        return sent

    def report(self, node: int, report: NodeReport) -> Sent:
        message = {"kind": "relay", "topic": REPORT, "data": report.to_wire(), "to": None}
        return self._take(self.state.receive(node, message, self.now))

    def lose(self, node: int) -> Sent:
        return self._take(self.state.lost(node, self.now))

    def end(self, node: int, code: int, cause: Cause | None = None) -> Sent:
        return self.report(node, NodeReport(self.roster, code, cause))

    @property
    def roster(self) -> Roster:
        return [roster_from_wire(data["roster"]) for _, data in self.told if data["do"] == TRAIN][
            -1
        ]

    @property
    def over(self) -> dict[str, Any] | None:
        return next((data for _, data in self.told if data["do"] == OVER), None)


def test_the_first_nodes_train_once_all_have_come() -> None:
    state = RosterState(HOSTS[:3], POLICY)
    for node in range(3):
        assert state.join(node)
    hello = {"kind": "relay", "topic": REPORT, "data": NodeReport().to_wire()}
    assert state.receive(0, hello, 0) == []
    assert state.receive(1, hello, 0) == []
    told = orders(state.receive(2, hello, 0), TRAIN)
    assert sorted(told) == [0, 1, 2]
    assert told[2]["roster"] == {"restart": 0, "hosts": ["a", "b"]}
    assert told[2]["why"] == "all have met; a, b train, c waits"


@pytest.mark.parametrize(("lost", "next_hosts"), [(0, ("c", "b")), (1, ("a", "c"))])
def test_a_spare_takes_the_place_of_a_lost_node_once_all_ranks_have_ended(
    lost: int, next_hosts: tuple[str, ...]
) -> None:
    job = Job()
    other = 1 - lost
    assert sorted(orders(job.lose(lost), HALT)) == [other]
    told = orders(job.end(other, PEER), TRAIN)
    assert sorted(told) == [other, 2]
    assert job.roster == Roster(1, next_hosts)
    assert (
        f"{HOSTS[lost]}: the connection to its launcher was lost; c takes its place"
        in (told[2]["why"])
    )
    assert told[2]["lost"] == [HOSTS[lost]]


def test_a_lost_spare_is_told_of_and_changes_nothing() -> None:
    job = Job()
    told = orders(job.lose(2), TELL)
    assert sorted(told) == [0, 1]
    assert told[0]["why"] == "c: the connection to its launcher was lost; none waits"
    assert job.roster.restart == 0
    job.end(0, OK)
    job.end(1, OK)
    assert job.over == {"do": OVER, "why": "all is done", "code": OK}


def test_without_a_spare_left_the_job_ends() -> None:
    job = Job()
    job.lose(1)
    job.end(0, PEER)
    job.lose(2)
    job.end(0, PEER)
    assert job.over is not None
    assert job.over["code"] == PEER
    assert "no spare is left" in job.over["why"]


def test_a_hung_node_is_replaced_and_told_to_leave() -> None:
    job = Job()
    hang = Cause("Hang", "rank 1 hangs", HANG, host="b", rank=1)
    job.end(0, HANG, hang)
    sent = job.end(1, HANG, hang)
    assert orders(sent, LEAVE) == {1: {"do": LEAVE, "why": "it hangs"}}
    assert sorted(orders(sent, TRAIN)) == [0, 2]
    assert job.roster == Roster(1, ("a", "c"))
    assert "the job went on without this node: it hangs" in job.state.refusal(1)


def test_a_node_that_does_not_end_its_ranks_is_replaced() -> None:
    job = Job()
    job.end(0, PEER)
    job.now = HALT_SECONDS + 1
    sent = job._take(job.state.tick(job.now))
    assert sorted(orders(sent, LEAVE)) == [1]
    assert job.roster == Roster(1, ("a", "c"))


def test_a_node_that_fails_the_preflight_is_replaced() -> None:
    job = Job()
    job.end(0, PEER, Cause("PreflightError", "gpus: 7 of 8", PREFLIGHT, host="b"))
    job.end(1, PREFLIGHT, Cause("PreflightError", "gpus: 7 of 8", PREFLIGHT, host="b"))
    assert job.roster == Roster(1, ("a", "c"))


@pytest.mark.parametrize("failures", [False, True])
def test_a_failing_rank_begins_the_job_again_on_the_same_nodes_only_with_max_restarts(
    failures: bool,
) -> None:
    job = Job(policy=RosterPolicy(2, 1, failures))
    cause = Cause("TrainingError", "ValueError: bad batch", FAILED, host="b", rank=1)
    job.end(0, PEER, cause)
    job.end(1, FAILED, cause)
    if not failures:
        assert job.over is not None
        assert job.over["why"] == cause.headline()
        return
    assert job.roster == Roster(1, ("a", "b"))
    job.end(0, PEER, cause)
    job.end(1, FAILED, cause)
    assert job.over is not None
    assert "it was begun again 1 of 1 times" in job.over["why"]


def test_a_stop_is_no_reason_to_begin_again() -> None:
    job = Job()
    job.end(0, STOPPED)
    job.end(1, STOPPED)
    assert job.over is not None
    assert job.over["code"] == STOPPED
    assert job.roster.restart == 0


def test_a_node_that_is_lost_after_others_were_done_is_no_failure() -> None:
    job = Job()
    job.end(0, OK)
    job.lose(1)
    assert job.over is not None
    assert job.over["code"] == OK


def successor(
    policy: RosterPolicy, reports: dict[int, NodeReport], nodes: int = 3, passed: int = 1
) -> tuple[RosterState, Sent]:
    """The state of a leader whose predecessors were lost, after it has heard of these."""
    hosts = HOSTS[:nodes]
    state = RosterState(hosts[passed:] + hosts[:passed], policy, passed=passed)
    sent: Sent = []
    for node in reports:
        assert state.join(node)
    for node, report in reports.items():
        message = {"kind": "relay", "topic": REPORT, "data": report.to_wire()}
        sent += state.receive(node, message, 0)
    return state, sent


def test_the_next_leader_knows_how_often_it_was_begun_and_replaces_the_one_before() -> None:
    running = Roster(1, ("a", "b"))
    ended = NodeReport(running, PEER, certain=True)
    _, sent = successor(POLICY, {0: ended, 1: NodeReport(running, certain=True)})
    told = orders(sent, TRAIN)
    assert told[0]["roster"] == {"restart": 2, "hosts": ["c", "b"]}


def test_a_leader_that_only_waited_is_followed_without_a_stop() -> None:
    running = Roster(0, ("b", "c"))
    _, sent = successor(POLICY, {0: NodeReport(running), 1: NodeReport(running)})
    assert sent == []


@pytest.mark.parametrize(("certain", "what"), [(True, TRAIN), (False, OVER)])
def test_half_of_the_nodes_go_on_only_where_the_leader_is_certainly_dead(
    certain: bool, what: str
) -> None:
    policy = RosterPolicy(1, 1, failures=False)
    roster = Roster(0, ("a",))
    _, sent = successor(policy, {0: NodeReport(roster, certain=certain)}, nodes=2)
    assert [message["data"]["do"] for _, message in sent] == [what]


def test_nodes_that_do_not_come_to_the_next_leader_are_lost() -> None:
    running = Roster(0, ("a", "b"))
    state, sent = successor(POLICY, {0: NodeReport(running), 1: NodeReport(running)}, nodes=4)
    assert sent == []
    assert state.awaited() == {"start": ["d"]}
    # Two of four, and nothing is known of the others: they may go on elsewhere.
    told = orders(state.tick(ASSEMBLE_SECONDS + 1), OVER)
    assert sorted(told) == [0, 1]


REPORTS = st.builds(
    NodeReport,
    roster=st.none()
    | st.builds(Roster, st.integers(0, 9), st.lists(st.text(), max_size=3).map(tuple)),
    code=st.none() | st.integers(0, 255),
    cause=st.none() | st.builds(Cause, kind=st.text(), message=st.text(), host=st.text()),
    lost=st.lists(st.text(), max_size=3).map(tuple),
    certain=st.booleans(),
)


@given(REPORTS)
def test_a_report_arrives_as_it_was_sent(report: NodeReport) -> None:
    assert report_of_node(report.to_wire()) == report


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_else_is_no_report(data: Any) -> None:
    with pytest.raises(ValueError, match="not a report"):
        report_of_node(data)


@given(st.lists(st.sampled_from(["lose", "fail", "hang"]), max_size=6), st.data())
def test_whatever_happens_as_many_train_as_shall_and_nobody_who_is_out(
    happenings: list[str], data: st.DataObject
) -> None:
    job = Job(nodes=4, policy=RosterPolicy(2, 2, failures=True))
    out: set[str] = set()
    for happening in happenings:
        if job.over:
            break
        members = [HOSTS.index(host) for host in job.roster.hosts]
        culprit = data.draw(st.sampled_from(members))
        if happening == "lose":
            out.add(HOSTS[culprit])
            job.lose(culprit)
            members.remove(culprit)
        cause = None
        if happening == "hang":
            out.add(HOSTS[culprit])
            cause = Cause("Hang", "it hangs", HANG, host=HOSTS[culprit])
        for node in members:
            job.end(node, HANG if cause else PEER, cause)
        if not job.over:
            assert len(job.roster.hosts) == 2
            assert not out & {*job.roster.hosts}
    assert job.roster.restart <= 2
