"""The session: an HTTP/2 client in the daemon's place calls it over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h2.config
import h2.connection
import h2.events
import pytest

from slipway.core import Credentials, SlipwayError, anonymous
from slipway.engine import Engine, EngineError
from slipway.engine.buildkit.grpc import GrpcServer, Handler
from slipway.engine.buildkit.protobuf import (
    encode_field,
    frame_message,
    message_fields,
    unframe_messages,
)
from slipway.engine.buildkit.session import MAX_SECRET, Session
from slipway.engine.errors import EngineDiedError

HEALTH = "/grpc.health.v1.Health/Check"
SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"


class Caller:
    """The daemon's side: gRPC calls as an HTTP/2 client, with HTTP/2's default 64 KiB windows."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._flush()

    def start(self, path: str, message: bytes) -> int:
        stream = self._h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)]
        self._h2.send_headers(stream, headers)
        self._h2.send_data(stream, frame_message(message), end_stream=True)
        self._flush()
        return stream

    def finish(self, *streams: int) -> dict[int, tuple[bytes, dict[str, str]]]:
        """(message, trailers) of each stream, once all have ended."""
        data = dict.fromkeys(streams, b"")
        headers: dict[int, dict[str, str]] = {stream: {} for stream in streams}
        ended: set[int] = set()
        while ended != set(streams):
            received = self._sock.recv(65536)
            assert received, "the server hung up"
            for event in self._h2.receive_data(received):
                if isinstance(event, h2.events.DataReceived):
                    data[event.stream_id] += event.data
                    self._h2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    headers[event.stream_id] |= {
                        name.decode(): value.decode() for name, value in event.headers
                    }
                elif isinstance(event, h2.events.StreamEnded):
                    ended.add(event.stream_id)
            self._flush()
        return {stream: (data[stream], headers[stream]) for stream in streams}

    def call(self, path: str, message: bytes = b"") -> tuple[bytes, dict[str, str]]:
        stream = self.start(path, message)
        return self.finish(stream)[stream]

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())


@contextmanager
def _served(methods: Mapping[str, Handler]) -> Iterator[tuple[GrpcServer, Caller]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    with closing(GrpcServer(ours, methods)) as server, theirs:
        yield server, Caller(theirs)


class Daemon:
    """A unix socket that accepts one session; an empty answer means that it hangs up."""

    def __init__(self, folder: Path, answer: bytes) -> None:
        self.path = folder / "d.sock"
        self.request: list[str] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(1)
        self._listener.settimeout(30)
        self._connection: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(30)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(4096)
        self.request = data.decode().split("\r\n")
        connection.sendall(self._answer)
        if not self._answer:
            connection.shutdown(socket.SHUT_RDWR)
        self._connection.append(connection)

    @property
    def engine(self) -> Engine:
        stand_in = SimpleNamespace(api=SimpleNamespace(base_url="http+docker://localhost"))
        return Engine(
            cast("Any", stand_in), f"unix://{self.path}", False, "20.10.24", "1.41", "/d", False
        )

    def connection(self) -> socket.socket:
        self._thread.join()
        return self._connection[0]

    def caller(self) -> Caller:
        return Caller(self.connection())

    def close(self) -> None:
        self._thread.join()
        for sock in (*self._connection, self._listener):
            sock.close()


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with closing(Daemon(tmp_path, UPGRADED)) as daemon:
        yield daemon


def test_the_health_check_answers_serving(daemon: Daemon) -> None:
    with closing(Session(daemon.engine, secrets={}, credentials=anonymous)):
        message, headers = daemon.caller().call(HEALTH)
    assert unframe_messages(message) == b"\x08\x01"
    assert headers["grpc-status"] == "0"


def test_the_upgrade_names_the_session_and_each_method_in_a_header_of_its_own(
    daemon: Daemon,
) -> None:
    with closing(Session(daemon.engine, secrets={}, credentials=anonymous)) as session:
        daemon.caller()
        prefix = "X-Docker-Expose-Session-Grpc-Method: "
        named = [line.removeprefix(prefix) for line in daemon.request if line.startswith(prefix)]
        assert sorted(named) == [HEALTH, SECRET, CREDENTIALS]
        assert f"X-Docker-Expose-Session-Uuid: {session.id}" in daemon.request
        assert daemon.request[0] == "POST /v1.41/session HTTP/1.1"


def test_a_secret_is_given_by_its_name(daemon: Daemon) -> None:
    secrets = {"ca": b"certificate", "other": b"no"}
    with closing(Session(daemon.engine, secrets=secrets, credentials=anonymous)):
        message, _ = daemon.caller().call(SECRET, encode_field(1, "ca"))
    assert list(message_fields(unframe_messages(message))) == [(1, b"certificate")]


def test_a_secret_larger_than_the_window_arrives_whole(daemon: Daemon) -> None:
    large = bytes(range(256)) * 1900
    assert 64 * 1024 < len(large) <= MAX_SECRET
    with closing(Session(daemon.engine, secrets={"ca": large}, credentials=anonymous)):
        message, headers = daemon.caller().call(SECRET, encode_field(1, "ca"))
    assert list(message_fields(unframe_messages(message))) == [(1, large)]
    assert headers["grpc-status"] == "0"


def test_a_secret_that_was_not_given_is_not_found(daemon: Daemon) -> None:
    with closing(Session(daemon.engine, secrets={}, credentials=anonymous)) as session:
        _, headers = daemon.caller().call(SECRET, encode_field(1, "ca"))
        assert headers["grpc-status"] == "5"
        assert session.failure is None


def test_a_secret_that_buildkit_would_refuse_is_refused_before_anything_is_opened(
    tmp_path: Path,
) -> None:
    nowhere = SimpleNamespace(url=f"unix://{tmp_path}/none", api_version="1.41")
    with pytest.raises(EngineError, match="secret ca has 512001 bytes"):
        Session(cast("Any", nowhere), secrets={"ca": bytes(MAX_SECRET + 1)}, credentials=anonymous)


def test_credentials_are_asked_for_the_host_at_each_call(daemon: Daemon) -> None:
    asked: list[str] = []

    def credentials(host: str) -> Credentials:
        asked.append(host)
        return Credentials("AWS", f"token {len(asked)}")

    with closing(Session(daemon.engine, secrets={}, credentials=credentials)):
        caller = daemon.caller()
        assert asked == []
        answers = [caller.call(CREDENTIALS, encode_field(1, "r.example"))[0] for _ in range(2)]
    assert asked == ["r.example", "r.example"]
    assert [list(message_fields(unframe_messages(answer))) for answer in answers] == [
        [(1, b"AWS"), (2, b"token 1")],
        [(1, b"AWS"), (2, b"token 2")],
    ]


def test_no_credentials_means_anonymous(daemon: Daemon) -> None:
    with closing(Session(daemon.engine, secrets={}, credentials=anonymous)):
        message, headers = daemon.caller().call(CREDENTIALS, encode_field(1, "r.example"))
    assert (unframe_messages(message), headers["grpc-status"]) == (b"", "0")


def test_an_error_of_the_credentials_reaches_the_caller_in_its_own_type(daemon: Daemon) -> None:
    def credentials(host: str) -> Credentials:
        raise SlipwayError(f"the AWS session for {host} has expired")

    with closing(Session(daemon.engine, secrets={}, credentials=credentials)) as session:
        _, headers = daemon.caller().call(CREDENTIALS, encode_field(1, "r.example"))
        assert headers["grpc-status"] == "2"
        assert isinstance(session.failure, SlipwayError)
        assert session.failure.what == "the AWS session for r.example has expired"


def test_health_is_answered_while_credentials_take_their_time() -> None:
    may_go_on = threading.Event()

    def slow(_: bytes) -> bytes:
        assert may_go_on.wait(30)
        return encode_field(1, "late")

    with _served({HEALTH: lambda _: encode_field(1, 1), CREDENTIALS: slow}) as (_, caller):
        waiting = caller.start(CREDENTIALS, b"")
        assert caller.call(HEALTH)[1]["grpc-status"] == "0"
        may_go_on.set()
        assert unframe_messages(caller.finish(waiting)[waiting][0]) == encode_field(1, "late")


def test_many_large_answers_share_the_connections_window() -> None:
    with _served({SECRET: lambda message: message * 1000}) as (_, caller):
        streams = [caller.start(SECRET, bytes([65 + n]) * 200) for n in range(8)]
        answers = caller.finish(*streams)
    assert [unframe_messages(answers[stream][0]) for stream in streams] == [
        bytes([65 + n]) * 200_000 for n in range(8)
    ]


def test_a_method_that_is_not_served_is_unimplemented() -> None:
    with _served({}) as (_, caller):
        message, headers = caller.call("/moby.filesync.v1.Auth/FetchToken")
    assert (message, headers["grpc-status"]) == (b"", "12")


def test_a_message_that_is_no_grpc_fails_that_call_alone() -> None:
    with _served({HEALTH: lambda _: encode_field(1, 1)}) as (_, caller):
        stream = caller._h2.get_next_available_stream_id()
        caller._h2.send_headers(
            stream,
            [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", HEALTH)],
            end_stream=True,
        )
        caller._flush()
        assert caller.finish(stream)[stream][1]["grpc-status"] == "2"
        assert caller.call(HEALTH)[1]["grpc-status"] == "0"


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100])
def test_a_peer_that_speaks_no_http2_ends_the_session_quietly(garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    with closing(GrpcServer(ours, {})), theirs:
        theirs.settimeout(30)
        theirs.sendall(garbage)
        theirs.shutdown(socket.SHUT_WR)
        while theirs.recv(4096):
            pass


def _session_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "buildkit" in thread.name}


def test_closing_ends_the_threads_even_in_the_middle_of_an_answer() -> None:
    ours, theirs = socket.socketpair()
    started = threading.Event()

    def large(_: bytes) -> bytes:
        started.set()
        return b"x" * 1_000_000

    with theirs:
        server = GrpcServer(ours, {SECRET: large})
        Caller(theirs).start(SECRET, b"")
        assert started.wait(30)
        assert _session_threads()
        server.close()
    assert not _session_threads()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\npage not found", "404 Not Found"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "400 Bad Request"),
    ],
)
def test_a_daemon_that_opens_no_session_is_told_with_its_answer(
    tmp_path: Path, answer: bytes, message: str
) -> None:
    with (
        closing(Daemon(tmp_path, answer)) as daemon,
        pytest.raises(EngineError, match=message),
    ):
        Session(daemon.engine, secrets={}, credentials=anonymous)


def test_a_daemon_that_hangs_up_instead_of_answering_has_died(tmp_path: Path) -> None:
    with closing(Daemon(tmp_path, b"")) as daemon, pytest.raises(EngineDiedError, match="hung up"):
        Session(daemon.engine, secrets={}, credentials=anonymous)


def test_what_the_daemon_sends_right_behind_the_upgrade_is_not_lost(tmp_path: Path) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(
        1,
        [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", HEALTH)],
    )
    client.send_data(1, frame_message(b""), end_stream=True)
    early = UPGRADED + client.data_to_send()
    with (
        closing(Daemon(tmp_path, early)) as daemon,
        closing(Session(daemon.engine, secrets={}, credentials=anonymous)),
    ):
        sock = daemon.connection()
        ended = False
        while not ended:
            events = client.receive_data(sock.recv(65536))
            ended = any(isinstance(event, h2.events.StreamEnded) for event in events)
