"""Uploads that were ended and run again: they go on where the registry says that they are."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from slipway.core import anonymous
from slipway.registry import RegistryClient, RegistryError, RetryPolicy
from slipway.registry.distribution import blob_upload
from slipway.registry.distribution.blob_upload import upload_blob
from tests.support.loopback_files import serve_requests

SIZE = 1000
DATA = random.Random(3).randbytes(4 * SIZE + 1)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Registry:
    """One that keeps what a piece brought before a cut, as Distribution 3 does.

    `strict`: it drops a session that is taken up at another offset than it has, as 2.8 does.
    """

    def __init__(self) -> None:
        self.host = ""
        self.strict = False
        self.sessions: list[bytearray | None] = []
        self.blobs: set[str] = set()
        self.pieces: list[tuple[int, int, int]] = []  # session, offset, bytes

    def handle(self, method: str, url: str, body: bytes, offset: str) -> tuple[int, str, str]:
        """Status, Location and Range."""
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        if method == "HEAD":
            return (200 if path.rpartition("/")[2] in self.blobs else 404), "", ""
        if method == "POST":
            self.sessions.append(bytearray())
            return 202, self.place(len(self.sessions) - 1), ""
        number = int(path.rpartition("/")[2])
        session = self.sessions[number]
        if session is not None and self.strict and int(query["at"][0]) != len(session):
            self.sessions[number] = session = None
        if session is None:
            return 404, "", ""
        if method == "PATCH":
            if int(offset.partition("-")[0]) != len(session):
                return 416, "", ""
            self.pieces.append((number, len(session), len(body)))
            session += body
            return 202, self.place(number), ""
        if method == "GET":
            return 204, self.place(number), f"0-{max(0, len(session) - 1)}"
        digest = query["digest"][0]
        self.sessions[number] = None
        if digest != f"sha256:{hashlib.sha256(session).hexdigest()}":
            return 400, "", ""
        self.blobs.add(digest)
        return 201, "", ""

    def place(self, number: int) -> str:
        return f"/v2/a/blobs/uploads/{number}?at={len(self.sessions[number] or b'')}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            offset = self.headers.get("Content-Range", "")
            status, location, range_ = registry.handle(self.command, self.path, body, offset)
            self.send_response(status)
            for name, value in (("Location", location), ("Range", range_)):
                if value:
                    self.send_header(name, value)
            said = b'{"errors": [{"code": "DIGEST_INVALID"}]}' if status == 400 else b""
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    with serve_requests(Handler) as registry.host:
        yield registry


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_upload, "PIECE", SIZE)


@pytest.fixture
def client(registry: Registry, tmp_path: Path) -> Iterator[RegistryClient]:
    policy = RetryPolicy(attempts=3, base=0.01, cap=0.02)
    uploads = tmp_path / "uploads"
    with RegistryClient(registry.host, anonymous, policy=policy, uploads=uploads) as made:
        yield made


def upload(client: RegistryClient, *, end_at: int = -1) -> None:
    """Upload it; the run ends when so much has been sent."""

    def reach(offset: int) -> None:
        if offset == end_at:
            raise RegistryError("ended")

    with contextlib.suppress(RegistryError) if end_at >= 0 else contextlib.nullcontext():
        upload_blob(client, "a", DIGEST, io.BytesIO(DATA), len(DATA), on_bytes=reach)


@pytest.mark.parametrize("strict", [False, True])
def test_an_upload_that_was_ended_sends_the_rest_and_no_more(
    registry: Registry, client: RegistryClient, tmp_path: Path, strict: bool
) -> None:
    registry.strict = strict
    upload(client, end_at=2 * SIZE)
    assert DIGEST not in registry.blobs
    (record,) = (tmp_path / "uploads").iterdir()
    assert record.stat().st_mode & 0o777 == 0o600
    upload(client)
    assert DIGEST in registry.blobs
    assert registry.pieces == [
        *((0, number * SIZE, SIZE) for number in range(4)),
        (0, 4 * SIZE, 1),
    ]
    assert list((tmp_path / "uploads").iterdir()) == []


def test_what_a_piece_brought_before_a_kill_is_not_sent_again(
    registry: Registry, client: RegistryClient
) -> None:
    upload(client, end_at=SIZE)
    session = registry.sessions[0]
    assert session is not None
    session += DATA[SIZE : SIZE + 300]  # the rest of that piece was still on its way
    upload(client)
    assert registry.pieces[1] == (0, SIZE + 300, SIZE)
    assert DIGEST in registry.blobs
    assert sum(size for *_, size in registry.pieces) == len(DATA) - 300


def test_what_came_of_the_first_piece_before_a_kill_is_not_sent_again(
    registry: Registry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        """Nothing of what ends an upload in order runs."""

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(blob_upload._Upload, "_piece", killed)
        with pytest.raises(KilledError):
            upload(client)
    session = registry.sessions[0]
    assert session is not None
    session += DATA[:300]
    upload(client)
    assert registry.pieces[0] == (0, 300, SIZE)
    assert DIGEST in registry.blobs
    assert len(registry.sessions) == 1


MIB = 1 << 20
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("host", "size", "piece"),
    [
        ("registry.example", 10, MIB),  # one request
        ("registry.example", 25 * MIB, MIB),
        ("registry.example", 100 * MIB, 4 * MIB),
        ("registry.example", 200 * MIB, 8 * MIB),
        ("registry.example", 50_000 * MIB, 8 * MIB),
        (ECR, 10, 5 * MIB),
        (ECR, 100 * MIB, 5 * MIB),
        (ECR, 150 * MIB, 6 * MIB),
        (ECR, 50_000 * MIB, 8 * MIB),
    ],
)
def test_a_refused_piece_costs_a_small_part_of_a_blob_and_is_none_that_ecr_refuses(
    monkeypatch: pytest.MonkeyPatch, host: str, size: int, piece: int
) -> None:
    monkeypatch.undo()  # the pieces of 1,000 bytes
    assert blob_upload.piece_size(size, host) == piece


def forget(registry: Registry) -> None:
    registry.sessions[0] = None


def grow(registry: Registry) -> None:
    session = registry.sessions[0]
    assert session is not None
    registry.strict = True
    session += b"x"


def damage(registry: Registry) -> None:
    session = registry.sessions[0]
    assert session is not None
    session[0] ^= 1


def overfill(registry: Registry) -> None:
    session = registry.sessions[0]
    assert session is not None
    session += DATA


@pytest.mark.parametrize("trouble", [forget, grow, damage, overfill])
def test_a_session_that_is_lost_or_spoiled_is_begun_anew(
    registry: Registry, client: RegistryClient, trouble: Any
) -> None:
    upload(client, end_at=2 * SIZE)
    trouble(registry)
    upload(client)
    assert DIGEST in registry.blobs
    assert len(registry.sessions) == 2


@pytest.mark.parametrize("content", [b"", b"http://cut", b"\xff" * 9000, b"nonsense\n"])
def test_a_record_that_was_torn_is_none(
    registry: Registry, client: RegistryClient, tmp_path: Path, content: bytes
) -> None:
    upload(client, end_at=2 * SIZE)
    (record,) = (tmp_path / "uploads").iterdir()
    record.write_bytes(content)
    upload(client)
    assert DIGEST in registry.blobs
    assert len(registry.sessions) == 2


def test_two_who_upload_at_once_never_share_a_session(
    registry: Registry, client: RegistryClient
) -> None:
    upload(client, end_at=SIZE)  # both could go on with this one

    def other(offset: int) -> None:
        if offset == 2 * SIZE:
            with RegistryClient(registry.host, anonymous, uploads=client.uploads) as second:
                upload(second)

    upload_blob(client, "a", DIGEST, io.BytesIO(DATA), len(DATA), on_bytes=other)
    assert DIGEST in registry.blobs
    assert {number for number, *_ in registry.pieces} == {0, 1}
    for number in (0, 1):
        offsets = [offset for session, offset, _ in registry.pieces if session == number]
        assert offsets == sorted(set(offsets))


def test_a_push_goes_through_where_no_record_can_be_written(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with RegistryClient(registry.host, anonymous, uploads=tmp_path / "file" / "below") as client:
        upload(client)
    assert DIGEST in registry.blobs
