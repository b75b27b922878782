"""The gate with real sockets: members meet whatever strangers do, and strangers learn nothing."""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import GATE, Cause, LaunchError
from launcher.peers import Gate, GatePlace, PeerError, addresses, gate_server, wire
from launcher.peers.gate import prove_membership
from launcher.peers.gate_server import GateServer
from launcher.peers.gate_state import GateState
from launcher.stop_request import StopRequest

KEY = b"k" * 32
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
PATIENCE = 60.0


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


def gate(node: int, port: int, key: bytes = KEY, job: str = "job", nodes: int = 2) -> Gate:
    return Gate(GatePlace(HOSTS[:nodes], node, job, port, key), StopRequest())


@contextmanager
def together(*gates: Gate) -> Iterator[list[Any]]:
    """A job's launchers, all of them joined; they leave in the end."""
    with ExitStack() as leaving:
        for one in gates:
            one.connect(PATIENCE)
            leaving.callback(one.leave)
        # Connected is not joined yet: an answer says that all have their places.
        nodes = list(range(len(gates)))
        assert gather_on_all(list(gates), "met", lambda n: n) == [nodes] * len(gates)
        yield list(gates)


def gather_on_all(gates: list[Gate], name: str, value: Callable[[int], Any]) -> list[Any]:
    """What each of them gets, asked from a thread each."""
    answers: list[Any] = [None] * len(gates)

    def ask(node: int) -> None:
        answers[node] = gates[node].gather(name, value(node))

    threads = [threading.Thread(target=ask, args=(node,)) for node in range(len(gates))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return answers


def test_nodes_meet_and_exchange_values(port: int) -> None:
    with together(*(gate(node, port, nodes=3) for node in range(3))) as gates:
        assert gather_on_all(gates, "x", lambda n: {"n": n}) == [[{"n": n} for n in range(3)]] * 3
        large = "x" * 3_000_000
        assert gather_on_all(gates, "large", lambda _: large) == [[large] * 3] * 3


def test_a_failure_is_the_same_on_all_nodes(port: int) -> None:
    with together(gate(0, port), gate(1, port)) as (first, second):
        verdicts: list[Cause | None] = []
        other = threading.Thread(target=lambda: verdicts.append(first.fail(None)))
        other.start()
        verdicts.append(second.fail(Cause("TrainingError", "bad batch", host="b")))
        other.join(PATIENCE)
        assert [item.message if item else None for item in verdicts] == ["bad batch"] * 2
        with pytest.raises(PeerError, match="bad batch"):
            first.gather("later", 1)


def hello() -> bytes:
    return wire.greeting()


STRANGERS: dict[str, list[bytes]] = {
    "nothing": [],
    "a line of 60 kB": [b"[" * 60_000 + b"\n"],
    "60 kB of JSON": [b'{"protocol":"slipway-launch/1","node":1,"job":"' + b"a" * 60_000 + b'"}\n'],
    "deep nesting": [b"[" * 100_000],
    "deep nesting after the greeting": [hello(), b"[" * 100_000],
    "HTTP": [b"GET / HTTP/1.1\r\nHost: gate\r\n\r\n"],
    "TLS": [bytes.fromhex("1603010200010001fc0303") + os.urandom(500)],
    "half a greeting": [hello()[:20]],
    "a greeting alone": [hello()],
    "a wrong proof": [hello(), b"\0" * wire.PROOF_BYTES],
    "the number of a node and a wrong proof": [hello(), b"\0\0\0\1" + os.urandom(32)],
    "noise": [os.urandom(1000)],
    "huge lengths": [hello(), b"\xff" * 200],
}


@pytest.mark.parametrize("name", STRANGERS)
def test_whatever_a_stranger_says_it_learns_nothing_and_members_meet(name: str, port: int) -> None:
    first = gate(0, port)
    first.connect(PATIENCE)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as stranger:
        told = b""
        with suppress(ConnectionError):  # turned away before it had finished
            for piece in STRANGERS[name]:
                stranger.sendall(piece)
                if len(piece) == wire.GREETING_BYTES:
                    told += stranger.recv(4096)
        second = gate(1, port)
        second.connect(PATIENCE)
        assert gather_on_all([first, second], "x", lambda n: n) == [[0, 1]] * 2
        second.leave()
        stranger.settimeout(0.2)
        with suppress(OSError):  # silence, or a reset
            told += stranger.recv(4096)
        # Random bytes at most: no name, no proof.
        assert told == b"" or (len(told) == wire.GREETING_BYTES and told.startswith(wire.HELLO))
    first.leave()


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_of_a_stranger_leave_the_gate_as_it_was(data: bytes, greet: bool) -> None:
    server, end = SHARED_SERVER
    with socket.create_connection(end, timeout=PATIENCE) as stranger, suppress(ConnectionError):
        stranger.sendall((hello() if greet else b"") + data)  # fails where it is closed already
    assert server._thread.is_alive()


def _shared_server() -> tuple[GateServer, tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = GateServer(GateState(HOSTS), "job", KEY, [listener])
    server.start()
    return server, listener.getsockname()


SHARED_SERVER = _shared_server()


def _idle(port: int, count: int, ready: Any, over: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 100)), hard))
    held = []
    for _ in range(count):
        held.append(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
    ready.set()
    over.wait(PATIENCE)


def test_eleven_hundred_idle_connections_do_not_keep_members_out(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    context = multiprocessing.get_context("spawn")
    ready, over = context.Event(), context.Event()
    crowd = context.Process(target=_idle, args=(port, 1100, ready, over))
    try:
        first = gate(0, port)
        first.connect(PATIENCE)
        crowd.start()
        assert ready.wait(PATIENCE)
        second = gate(1, port)
        second.connect(PATIENCE)
        assert gather_on_all([first, second], "x", lambda n: n) == [[0, 1]] * 2
        second.leave()
        first.leave()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        over.set()
        crowd.join(PATIENCE)


def test_without_a_file_to_accept_with_the_gate_waits_and_goes_on(port: int) -> None:
    first = gate(0, port)
    first.connect(PATIENCE)
    second = gate(1, port)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    callers = [socket.socket() for _ in range(4)]
    highest = max(caller.fileno() for caller in callers)
    try:
        # No descriptor above those that are there: accept(2) fails with EMFILE.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(used, highest) + 1, hard))
        filler = []
        with suppress(OSError):  # full
            while True:
                filler.append(os.dup(0))
        for caller in callers:
            caller.connect(("127.0.0.1", port))
        time.sleep(3 * gate_server.PAUSE_SECONDS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in filler:
            os.close(number)
        for caller in callers:
            caller.close()
    second.connect(PATIENCE)
    assert gather_on_all([first, second], "x", lambda n: n) == [[0, 1]] * 2
    second.leave()
    first.leave()


def test_a_member_that_reads_nothing_stops_nobody(port: int) -> None:
    first = gate(0, port, nodes=3)
    first.connect(PATIENCE)
    # Node 2 proves itself, joins, and then never reads.
    with socket.create_connection(("127.0.0.1", port)) as deaf:
        place = GatePlace(HOSTS, 2, "job", port, KEY)
        channel = prove_membership(deaf, place, PATIENCE)
        deaf.setblocking(False)
        channel.put(wire.encode({"kind": "join", "job": "job"}))
        large = "x" * 5_000_000
        for name in ("x", "y"):
            body = {"kind": "gather", "name": name, "value": "", "timeout": None}
            channel.put(wire.encode(body))
        channel.send(deaf)
        second = gate(1, port, nodes=3)
        second.connect(PATIENCE)
        assert gather_on_all([first, second], "x", lambda _: large) == [[large, large, ""]] * 2
        assert gather_on_all([first, second], "y", lambda n: n) == [[0, 1, ""]] * 2
        second.leave()
    first.leave()


def test_nobody_takes_the_place_of_a_node_that_is_there(port: int) -> None:
    with together(gate(0, port), gate(1, port)) as (first, second):
        again = gate(1, port)
        again.connect(PATIENCE)
        with pytest.raises(PeerError, match="unknown here or connected already"):
            again.gather("x", 1)
        again.leave()
        assert gather_on_all([first, second], "x", lambda n: n) == [[0, 1]] * 2


def test_a_member_of_another_job_with_the_same_secret_is_told_so(port: int) -> None:
    with together(gate(0, port), gate(1, port)):
        other = gate(1, port, job="other")
        other.connect(PATIENCE)
        with pytest.raises(PeerError, match="belongs to job 'job', not 'other'"):
            other.gather("x", 1)
        other.leave()


def test_a_hello_that_was_given_up_is_no_lost_node(port: int) -> None:
    """A caller may time out between its proof and its join, and come again."""
    first = gate(0, port)
    first.connect(PATIENCE)
    with socket.create_connection(("127.0.0.1", port)) as early:
        prove_membership(early, GatePlace(HOSTS[:2], 1, "job", port, KEY), PATIENCE)
    second = gate(1, port)
    second.connect(PATIENCE)
    assert gather_on_all([first, second], "x", lambda n: n) == [[0, 1]] * 2
    second.leave()
    first.leave()


def _answers(listener: socket.socket, said: bytes | None, close: bool) -> None:
    with ExitStack() as held:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if said is not None:
                connection.sendall(said)
            if close:
                connection.close()
            else:
                held.enter_context(connection)


@pytest.mark.parametrize(
    ("said", "close", "words"),
    [
        (None, False, "it does not answer"),
        (None, True, "it closes the connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False, "it does not speak as a launcher does"),
        (b'{"kind": "collect"}\n', False, "it does not speak as a launcher does"),
        (wire.greeting(), False, "it does not answer"),
        (wire.greeting() + b"\0" * 32, False, "it does not know this job's key"),
    ],
)
def test_a_stranger_on_the_gates_port_is_named_and_not_waited_for(
    said: bytes | None, close: bool, words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_answers, args=(listener, said, close), daemon=True)
        answering.start()
        with pytest.raises(LaunchError, match=words) as caught:
            gate(1, listener.getsockname()[1]).connect(1)
        listener.shutdown(socket.SHUT_RDWR)
        answering.join(PATIENCE)
    assert caught.value.code == GATE
    assert "is not this job's gate" in str(caught.value)


def test_another_key_is_not_let_in(port: int) -> None:
    first = gate(0, port)
    first.connect(PATIENCE)
    with pytest.raises(LaunchError, match="LAUNCH_SECRET or the job's name differ"):
        gate(1, port, key=b"other" * 8).connect(1)
    first.leave()


def test_a_launcher_that_says_nothing_any_more_is_lost(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOPped: its kernel goes on answering for it."""
    monkeypatch.setattr(wire, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(wire, "DEAF_SECONDS", 1.0)
    first = gate(0, port)
    first.connect(PATIENCE)
    joined = threading.Event()
    first.topics["joined"] = lambda _: joined.set()
    first.announce("joined", None, node=0)
    assert joined.wait(PATIENCE)
    with socket.create_connection(("127.0.0.1", port)) as silent:
        channel = prove_membership(silent, GatePlace(HOSTS[:2], 1, "job", port, KEY), PATIENCE)
        channel.put(wire.encode({"kind": "join", "job": "job"}))
        channel.send(silent)
        with pytest.raises(PeerError):
            first.gather("x", 1)
        verdict = first.fail(None)
    assert verdict is not None
    assert (verdict.kind, verdict.host) == ("NodeLost", HOSTS[1])
    first.leave()


def test_a_gate_that_says_nothing_any_more_is_lost(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "BEAT_SECONDS", 0.2)
    first, second = gate(0, port), gate(1, port)
    with together(first, second):
        monkeypatch.setattr(wire, "DEAF_SECONDS", 1.0)
        assert first._server is not None
        monkeypatch.setattr(first._server, "_look", lambda _: None)  # its sign of life
        # A slow machine may have node 0 miss a word of its own before node 1 does.
        with pytest.raises(PeerError):
            second.gather("x", 1)
        verdict = second.fail(None)
        assert verdict is not None
        assert "lost" in verdict.headline()


def channels() -> tuple[wire.Channel, wire.Channel]:
    caller, answer = wire.greeting(), wire.greeting()
    return (
        wire.Channel(KEY, caller, answer, 1, at_gate=False),
        wire.Channel(KEY, caller, answer, 1, at_gate=True),
    )


def bytes_of(channel: wire.Channel) -> bytes:
    """What a channel would send."""
    out = b"".join(bytes(piece) for piece in channel._waiting)
    channel._waiting.clear()
    return out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.lists(JSON, max_size=6), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_messages_arrive_whole_and_in_order_however_they_are_cut(
    values: list[Any], cuts: list[int]
) -> None:
    sender, receiver = channels()
    for value in values:
        sender.put(wire.encode({"kind": "relay", "topic": "t", "data": value}))
    data, arrived = bytes_of(sender), []
    position, turn = 0, 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        arrived += receiver.feed(data[position : position + size])
        position, turn = position + size, turn + 1
    assert [message["data"] for message in arrived] == values


@given(st.integers(2, 10_000), st.integers(1, 255))
def test_a_changed_byte_ends_the_connection(where: int, change: int) -> None:
    sender, receiver = channels()
    sender.put(wire.encode({"kind": "relay", "topic": "t", "data": "abc"}))
    data = bytearray(bytes_of(sender))
    data[where % len(data)] ^= change
    with suppress(ValueError):
        assert receiver.feed(bytes(data)) == []  # a longer length: waits for the rest
        while True:
            assert receiver.feed(b"\0" * (1 << 20)) == []


def test_a_message_can_not_be_repeated_left_out_or_sent_back() -> None:
    sender, receiver = channels()
    bodies = []
    for number in range(2):
        sender.put(wire.encode({"kind": "relay", "topic": "t", "data": number}))
        bodies.append(bytes_of(sender))
    with pytest.raises(ValueError, match="seal"):
        channels()[1].feed(bodies[0])  # another connection's
    with pytest.raises(ValueError, match="seal"):
        receiver.feed(bodies[1])
    receiver = channels()[1]
    sender, receiver = channels()
    sender.put(wire.encode(wire.BEAT))
    once = bytes_of(sender)
    assert receiver.feed(once) == [wire.BEAT]
    with pytest.raises(ValueError, match="seal"):
        receiver.feed(once)
    with pytest.raises(ValueError, match="seal"):
        sender.feed(once)


@given(st.lists(JSON, max_size=8))
def test_runs_give_back_what_they_were_made_of(values: list[Any]) -> None:
    message = {"kind": "gathered", "name": "x", "values": values}
    assert wire.decode(wire.encode(message)) == message


def test_a_thousand_equal_answers_are_sent_as_one() -> None:
    values: list[Any] = [[8, "d" * 32]] * 1000
    assert len(wire.encode({"kind": "gathered", "name": "start", "values": values})) < 120
    assert wire.to_runs([1, True, 1.0, None]) == [[1, 1], [1, True], [1, 1.0], [1, None]]


@pytest.mark.parametrize("body", [b"[]", b"1", b"{}", b"[" * 100_000, b"\xff", b'"kind"', b"null"])
def test_what_is_no_message_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.decode(body)


@pytest.mark.parametrize(
    ("names", "bound"),
    [
        ({"a": ["10.0.0.1"], "b": ["10.0.0.2"]}, ["10.0.0.1"]),
        ({"a": ["127.0.1.1"], "b": ["10.0.0.2"]}, []),
        ({"a": ["127.0.1.1", "10.0.0.1"], "b": ["10.0.0.2"]}, ["10.0.0.1"]),
        ({"a": ["127.0.0.1"], "b": ["127.0.0.2"]}, ["127.0.0.1"]),
        ({"a": ["::1"], "b": ["::1"]}, ["::1"]),
        ({"a": ["fd00::1"], "b": ["fd00::2"]}, ["fd00::1"]),
        ({"a": ["fd00::1", "10.0.0.1"], "b": ["fd00::2"]}, ["fd00::1", "10.0.0.1"]),
        ({"a": ["::1"], "b": ["fd00::2"]}, []),
        ({"a": [], "b": ["10.0.0.2"]}, []),
        ({"a": ["127.0.1.1"], "b": []}, ["127.0.1.1"]),
    ],
)
def test_node_0_listens_where_the_others_can_reach_it(
    names: dict[str, list[str]], bound: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "resolve_host", names.__getitem__)
    assert addresses.bind_addresses(list(names)) == bound


def test_the_way_to_the_peers_is_that_of_the_connection(port: int) -> None:
    with together(gate(0, port), gate(1, port)) as (first, second):
        gather_on_all([first, second], "x", lambda n: n)
        for one in (first, second):
            route = one.route()
            assert route == addresses.PeerRoute("127.0.0.1", "127.0.0.1", "lo")


def test_every_address_of_this_host_has_its_interface() -> None:
    assert addresses.interface_of("127.0.0.1") == "lo"
    assert addresses.interface_of("127.0.0.77") == "lo"
    assert addresses.interface_of("203.0.113.9") == ""
    assert addresses.interface_of("not an address") == ""


@pytest.mark.skipif(not socket.has_ipv6, reason="this kernel has no IPv6")
def test_hosts_with_ipv6_alone_meet() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    hosts = ("::1", "localhost6")
    first = Gate(GatePlace(hosts, 0, "job", port, KEY), StopRequest())
    second = Gate(GatePlace(hosts, 1, "job", port, KEY), StopRequest())
    with together(first, second):
        assert gather_on_all([first, second], "x", lambda n: n) == [[0, 1]] * 2
        route = second.route()
        assert route is not None
        assert (route.local, route.master, route.interface) == ("::1", "::1", "lo")


def test_a_name_is_kept_where_it_leads_to_the_address_that_was_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(addresses, "resolve_host", lambda host: ["127.0.1.1"])
    assert addresses.master_name("a", "10.0.0.1") == "10.0.0.1"
    monkeypatch.setattr(addresses, "resolve_host", lambda host: ["10.0.0.1"])
    assert addresses.master_name("a", "10.0.0.1") == "a"


def test_too_few_open_files_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    with pytest.raises(LaunchError, match="4000 nodes need 4144 open files"):
        gate_server.file_room(4000)
    assert gate_server.file_room(100) == gate_server.UNPROVEN
