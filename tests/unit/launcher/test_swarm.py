"""Nodes that fetch one file together: the schedule, and nodes that lie, are killed or late."""

from __future__ import annotations

import json
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.fetch.partial_file import PartialFile
from launcher.fetch.piece_server import PieceServer, fetch_from_peer
from launcher.fetch.schedule import MOST_ORIGIN_TAKES, ORIGIN, WIDE, Assignment, Schedule
from launcher.fetch.sqsh_sidecar import parse_sidecar
from launcher.fetch.swarm import Over, SwarmOrders, SwarmState, piece_bits, piece_numbers
from launcher.peers import GatePlace
from launcher.peers.wire import GREETING_BYTES, HELLO
from tests.support.launcher.sqsh_files import ServedFile, sidecar_text, write_sqsh

LAUNCHER = Path(__file__).parents[3] / "entrypoints" / "launcher"
KEY = b"k" * 32
PATIENCE = 60.0


# --- the schedule: simulated nodes, in any order of events ---


@settings(max_examples=40)
@given(data=st.data(), nodes=st.integers(1, 9), pieces=st.integers(0, 30))
def test_every_node_gets_everything_whatever_fails(
    data: st.DataObject, nodes: int, pieces: int
) -> None:
    """Nodes come with any part of the file, transfers end in any order, fail, and nodes leave."""
    schedule = Schedule([2 << 20] * pieces, nodes)
    lacks = {
        node: data.draw(st.sets(st.integers(0, pieces - 1)) if pieces else st.just(set()))
        for node in range(nodes)
    }
    # Of what a node may have in an older file, some turns out to be damaged.
    pending = {
        node: data.draw(st.sets(st.integers(0, pieces - 1)) if pieces else st.just(set()))
        for node in range(nodes)
    }
    here = {node: set(range(pieces)) - missing - pending[node] for node, missing in lacks.items()}
    joined: set[int] = set()
    running: list[Assignment] = []
    choose = random.Random(data.draw(st.integers(0, 999)))
    origin_done: Counter[int] = Counter()
    troubles = 6
    while True:
        if len(joined) < nodes and (not running or choose.random() < 0.3):
            node = next(node for node in lacks if node not in joined)
            joined.add(node)
            schedule.join(node, lacks[node] - pending[node], pending[node])
        elif (unsettled := [node for node in joined & lacks.keys() if pending[node]]) and (
            not running or choose.random() < 0.3
        ):
            node = choose.choice(unsettled)
            piece = choose.choice(sorted(pending[node]))
            pending[node].discard(piece)
            good = piece not in lacks[node]
            here[node] |= {piece} if good else set()
            schedule.settle(node, {piece} if good else (), () if good else {piece})
        elif not running:
            break
        else:
            order = running.pop(choose.randrange(len(running)))
            if order.node in lacks:
                if order.source != ORIGIN and order.source not in lacks:
                    schedule.failed(order.node, order.piece)
                elif troubles and choose.random() < 0.1:
                    troubles -= 1
                    if choose.random() < 0.5:
                        schedule.failed(order.node, order.piece)
                    else:  # the node is gone
                        schedule.leave(order.node)
                        del lacks[order.node]
                        joined.add(order.node)
                else:
                    assert order.source == ORIGIN or order.piece in here[order.source]
                    origin_done[order.piece] += order.source == ORIGIN
                    here[order.node].add(order.piece)
                    schedule.got(order.node, order.piece, choose.choice((0.1, 3.0)))
        fresh = schedule.assign()
        running += fresh
        alive = [order for order in running if order.node in lacks]
        assert len({(order.node, order.piece) for order in alive}) == len(alive)
        takes, gives = WIDE
        between = [order for order in alive if order.source != ORIGIN]
        assert max(Counter(order.node for order in between).values(), default=0) <= takes
        assert max(Counter(order.source for order in between).values(), default=0) <= gives
        at_origin = Counter(order.piece for order in alive if order.source == ORIGIN)
        assert max(at_origin.values(), default=0) <= 1
        assert len(at_origin) <= MOST_ORIGIN_TAKES
    assert schedule.finished
    for node in lacks:
        assert here[node] == set(range(pieces))


@pytest.mark.parametrize("nodes", [1, 2, 16, 64])
def test_without_failures_the_origin_gives_each_piece_once(nodes: int) -> None:
    schedule = Schedule([9] * 50, nodes)
    for node in range(nodes):
        schedule.join(node, range(50))
    running, from_origin = schedule.assign(), Counter[int]()
    choose = random.Random(1)
    while running:
        order = running.pop(choose.randrange(len(running)))
        from_origin[order.piece] += order.source == ORIGIN
        schedule.got(order.node, order.piece, 1.0)
        running += schedule.assign()
    assert schedule.finished
    assert set(from_origin.values()) == {1}


def test_what_a_node_may_have_is_not_asked_of_the_origin_until_it_is_known() -> None:
    """One reads its older file, which has two of three pieces right; the other has nothing."""
    schedule = Schedule([9] * 3, 2)
    schedule.join(0, (), range(3))
    schedule.join(1, range(3))
    assert schedule.assign() == []
    schedule.settle(0, {0}, ())
    assert schedule.assign() == [Assignment(1, 0, 0)]
    assert not schedule.finished
    schedule.settle(0, {1}, {2})
    fresh = schedule.assign()
    assert {order.piece for order in fresh if order.source == ORIGIN} == {2}
    with pytest.raises(ValueError, match="not to settle"):
        schedule.settle(0, {1}, ())


def test_where_who_may_have_a_piece_is_gone_the_origin_gives_it() -> None:
    schedule = Schedule([9], 2)
    schedule.join(0, (), {0})
    schedule.join(1, {0})
    schedule.leave(0)
    assert schedule.assign() == [Assignment(1, 0, ORIGIN)]


@given(st.sets(st.integers(0, 200)), st.integers(0, 200))
def test_pieces_travel_as_bits(numbers: set[int], more: int) -> None:
    count = max(numbers, default=-1) + 1 + more
    assert piece_numbers(piece_bits(numbers, count), count) == numbers


HOSTILE_MESSAGES: list[Any] = [
    {"say": "join", "digest": "d", "host": "x", "port": 0, "missing": "00", "pending": "00"},
    {"say": "join", "digest": "d", "host": "x", "port": "1", "missing": "00", "pending": "00"},
    {"say": "join", "digest": "d", "host": "x", "port": 1, "missing": "ff", "pending": "00"},
    {"say": "join", "digest": "d", "host": "x", "port": 1, "missing": "0" * 9999, "pending": "00"},
    {"say": "join", "digest": "d"},
    {"say": "join", "digest": "d", "host": "x", "port": 1, "missing": "03", "pending": "02"},
    {"say": "join", "digest": "d", "host": "x", "port": 1, "missing": "03", "pending": "40"},
    {"say": "settled", "has": "01", "lacks": "00"},
    {"say": "settled", "has": "00"},
    {"say": "got", "piece": 2, "seconds": 1},
    {"say": "got", "piece": "x", "seconds": 1},
    {"say": "got", "piece": 99, "seconds": 1},
    {"say": "failed", "piece": -1},
    {"say": "nothing"},
    {},
    [],
    None,
    5,
]


@pytest.mark.parametrize("data", HOSTILE_MESSAGES, ids=repr)
def test_a_member_that_says_nonsense_ends_its_own_connection_alone(data: Any) -> None:
    """The gate's server drops whoever it raises these for."""
    state = SwarmState(["a", "b"], "d", [1] * 6)
    good = {
        "say": "join",
        "digest": "d",
        "host": "x",
        "port": 9,
        "missing": piece_bits({0, 1}, 6),
        "pending": "00",
    }
    for node in (0, 1):
        assert state.join(node)
    state.receive(0, {"kind": "relay", "topic": "fetch", "data": good}, 0.0)
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        state.receive(1, {"kind": "relay", "topic": "fetch", "data": data}, 0.0)
    assert state.lost(1, 0.0) == []
    out = state.receive(
        0,
        {"kind": "relay", "topic": "fetch", "data": {"say": "got", "piece": 0, "seconds": 1}},
        0.0,
    )
    assert [(to, message["data"]) for to, message in out] == [(0, {"take": [[1, "", 0]]})]


def test_nodes_that_do_not_come_are_not_waited_for_without_end() -> None:
    state = SwarmState(["a", "b"], "d", [1])
    assert state.join(0)
    whole = {"say": "join", "digest": "d", "host": "x", "port": 9, "missing": "0", "pending": "0"}
    assert state.receive(0, {"kind": "relay", "topic": "fetch", "data": whole}, 5.0) == []
    deadline = state.next_deadline()
    assert deadline is not None
    (told,) = state.tick(deadline)
    assert (told[0], told[1]["data"]) == (0, {"over": True})


# --- pieces from node to node ---


@contextmanager
def serving(folder: Path, pieces: list[bytes]) -> Iterator[tuple[PieceServer, PartialFile]]:
    folder.mkdir()
    file = PartialFile(folder / "x.sqsh", parse_sidecar(sidecar_text(pieces), "x"))
    for number, piece in enumerate(file.sidecar.pieces):
        os.pwrite(file.handle, pieces[number], piece.starts[0])
        file.finish_piece(number)
    server = PieceServer(KEY, file.handle, file.sidecar, lambda number: number not in file.missing)
    try:
        yield server, file
    finally:
        server.close()
        file.close()


def empty(folder: Path, pieces: list[bytes]) -> PartialFile:
    folder.mkdir()
    return PartialFile(folder / "x.sqsh", parse_sidecar(sidecar_text(pieces), "x"))


def place(key: bytes = KEY) -> GatePlace:
    return GatePlace(("a", "b"), 1, "job", 1, key)


def test_a_piece_comes_from_a_node_that_has_it_and_from_no_other(tmp_path: Path) -> None:
    pieces = [os.urandom(3_000_000), os.urandom(10)]
    with serving(tmp_path / "a", pieces) as (server, theirs):
        file = empty(tmp_path / "b", pieces)
        address = "127.0.0.1", server.port
        assert fetch_from_peer(address, place(), file, 0) == 3_000_000
        assert os.pread(file.handle, 3_000_000, 0) == pieces[0]
        theirs.missing.add(1)
        with pytest.raises(ConnectionError, match="does not have"):
            fetch_from_peer(address, place(), file, 1)
        os.pwrite(theirs.handle, b"!", 5)  # damaged on its disk since
        with pytest.raises(ValueError, match="another digest"):
            fetch_from_peer(address, place(), file, 0)
        with pytest.raises(OSError, match=r"closes|key"):
            fetch_from_peer(address, place(b"x" * 32), file, 0)
        file.close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0" * 3, b"GET / HTTP/1.1\r\n\r\n", HELLO + b"\0" * 32 + b"\0" * 36, os.urandom(500)],
)
def test_a_stranger_learns_nothing_of_the_pieces(sent: bytes, tmp_path: Path) -> None:
    pieces = [b"secret" * 1000]
    with serving(tmp_path / "a", pieces) as (server, _):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as stranger:
            told = b""
            with suppress(ConnectionError, TimeoutError):
                stranger.sendall(sent)
                stranger.settimeout(1.0 if len(sent) < GREETING_BYTES else PATIENCE)
                while part := stranger.recv(4096):
                    told += part
        assert told == b"" or (len(told) == GREETING_BYTES and told.startswith(HELLO))
        file = empty(tmp_path / "b", pieces)
        assert fetch_from_peer(("127.0.0.1", server.port), place(), file, 0) == 6000
        file.close()


# --- whole nodes ---


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number: int = probe.getsockname()[1]
        return number


def node(rank: int, count: int, gate: int, uri: str, folder: Path) -> subprocess.Popen[str]:
    hosts = ",".join(f"127.0.0.{number + 1}" for number in range(count))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(LAUNCHER), "fetch", uri, "--to", str(folder), "--json",
         "--hosts", hosts, "--node-rank", str(rank), "--port", str(gate)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "LAUNCH_SECRET": "of this job alone"},
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def test_nodes_take_each_piece_from_the_origin_once(tmp_path: Path) -> None:
    """One has nothing, one a whole file, one an older file, and two share a folder."""
    pieces = [os.urandom(100_000) for _ in range(24)]
    content = b"".join(pieces)
    write_sqsh(tmp_path / "n1" / "older.sqsh", [*pieces[:8], b"other"])
    folders = ["n0", "n1", "n2", "shared", "shared"]
    with ServedFile(pieces, slow=0.02) as (host, asked):
        gate = port()
        uri = f"registry://{host}/r:t"
        nodes = [node(n, 5, gate, uri, tmp_path / name) for n, name in enumerate(folders)]
        results = [result(process) for process in nodes]
    for name in set(folders):
        assert (tmp_path / name / "x.sqsh").read_bytes() == content
    assert Counter(asked).most_common(1)[0][1] == 1
    assert results[1]["from_older"] == 800_000
    # What one has of an older file, the others get from it where it has joined before.
    assert sum(r["from_origin"] for r in results) <= len(content)
    assert sum(r["from_peers"] for r in results) > len(content)
    assert sorted((r["from_origin"] + r["from_peers"]) > 0 for r in results[3:]) == [False, True]


@pytest.mark.parametrize("killed", [0, 2], ids=["the first node", "another node"])
def test_a_node_that_is_killed_costs_the_others_little(killed: int, tmp_path: Path) -> None:
    pieces = [os.urandom(100_000) for _ in range(40)]
    with ServedFile(pieces, slow=0.6) as (host, asked):
        gate, uri = port(), f"registry://{host}/r:t"
        nodes = [node(n, 4, gate, uri, tmp_path / f"n{n}") for n in range(4)]
        deadline = time.monotonic() + PATIENCE
        while len(asked) < 12 or len(list(tmp_path.glob("n?/.x.sqsh.partial"))) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        before = len(asked)
        nodes[killed].kill()
        nodes[killed].communicate()
        for rank, process in enumerate(nodes):
            if rank != killed:
                result(process)
                assert (tmp_path / f"n{rank}" / "x.sqsh").read_bytes() == b"".join(pieces)
    if killed:
        # Again only what it had and had given to nobody yet, or what was on its way to it.
        assert len(asked) <= 40 + before
    assert not (tmp_path / f"n{killed}" / "x.sqsh").exists()


def test_damaged_pieces_of_a_node_are_fetched_elsewhere(tmp_path: Path) -> None:
    """It believes that its file was checked: its mark says so."""
    pieces = [os.urandom(100_000) for _ in range(12)]
    with ServedFile(pieces) as (host, asked):
        uri = f"registry://{host}/r:t"
        gate = port()
        result(node(0, 1, gate, uri, tmp_path / "n0"))
        before = len(asked)
        path = tmp_path / "n0" / "x.sqsh"
        status = path.stat()
        with path.open("r+b") as stream:
            stream.seek(550_000)
            stream.write(b"damage")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        nodes = [node(n, 3, gate, uri, tmp_path / f"n{n}") for n in range(3)]
        results = [result(process) for process in nodes]
        assert len(asked) - before <= 12
    for name in ("n1", "n2"):
        assert (tmp_path / name / "x.sqsh").read_bytes() == b"".join(pieces)
    assert sum(r["again"] for r in results) >= 1


def test_where_nodes_cannot_meet_each_fetches_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program is at the port: node 0 cannot listen, and the other finds a stranger."""
    pieces = [os.urandom(1000) for _ in range(3)]
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(PATIENCE)

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        host, asked = stack.enter_context(ServedFile(pieces))
        uri, gate = f"registry://{host}/r:t", listener.getsockname()[1]
        first = node(0, 2, gate, uri, tmp_path / "n0")
        assert result(first)["from_origin"] == 3000
    assert len(asked) == 3


def test_orders_of_a_node_0_that_lies_are_not_followed(tmp_path: Path) -> None:
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    orders = SwarmOrders(place(), "d", [1] * 4, inbox.put)
    hear = orders._gate.topics["fetch"]
    for rows in ([[4, "", 0]], [[-1, "", 0]], [["x", "", 0]], [[1]], 5):
        with pytest.raises((ValueError, TypeError)):
            hear({"take": rows})
    assert inbox.empty()
    hear({"over": True})
    assert isinstance(inbox.get(), Over)
