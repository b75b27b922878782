"""Uploads that were ended and run again: they go on where the registry says that they are."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import pytest

from slipway.core import anonymous
from slipway.registry import RegistryClient, RegistryError, RetryPolicy
from slipway.registry.distribution import blob_upload
from slipway.registry.distribution.blob_transfer import Repository, unmounted_notice
from slipway.registry.distribution.blob_upload import upload_blob
from tests.support.loopback_files import serve_requests

SIZE = 1000
DATA = random.Random(3).randbytes(4 * SIZE + 1)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


Kind = Literal["3.0", "2.8", "ECR"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CUT = 0  # in place of a status


@dataclass(frozen=True)
class Fault:
    """What becomes of one request: so much of its body arrives, and this is the answer. `answer`
    None: what the registry says."""

    part: float = 1.0
    answer: int | None = None


@dataclass
class Registry:
    """Distribution 3.0, which keeps what a piece brought before a cut; 2.8, which drops a session
    that is cut or taken up at another offset than it has; and ECR (as the front door has it)."""

    kind: Kind = "3.0"
    host: str = ""
    sessions: list[bytearray | None] = field(default_factory=list)
    blobs: set[str] = field(default_factory=set)
    pieces: list[tuple[int, int, int]] = field(default_factory=list)  # session, offset, bytes
    methods: list[str] = field(default_factory=list)
    faults: dict[str, list[Fault | None]] = field(default_factory=dict)  # by method, in order
    received: int = 0

    def serve(self, method: str, url: str, body: bytes, offset: str) -> tuple[int, str, str, str]:
        """Status, Location, Range, and the code and text of a refusal."""
        self.methods.append(method)
        planned = self.faults.get(method)
        fault = planned.pop(0) if planned else None
        if fault is None:
            return self.handle(method, url, body, offset)
        part = body[: int(len(body) * fault.part)]
        if not body or part:
            answer = self.handle(method, url, part, offset, cut=len(part) < len(body))
            if fault.answer is None:
                return answer
        return fault.answer or CUT, "", "", ""

    def handle(
        self, method: str, url: str, body: bytes, offset: str, cut: bool = False
    ) -> tuple[int, str, str, str]:
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        self.received += len(body)
        if method == "HEAD":
            return (200 if path.rpartition("/")[2] in self.blobs else 404), "", "", ""
        if method == "POST":
            self.sessions.append(bytearray())
            return 202, self.place(len(self.sessions) - 1), "", ""
        number = int(path.rpartition("/")[2])
        session = self.sessions[number]
        if session is not None and self.kind == "2.8" and int(query["at"][0]) != len(session):
            self.sessions[number] = session = None
        if session is None or (method == "GET" and self.kind == "ECR"):
            return 404, "", "", "BLOB_UPLOAD_UNKNOWN: it is not there"
        if method == "PATCH":
            start = int(offset.partition("-")[0])
            if start != len(session):
                text = f"First byte of the layer part is {start} instead of {len(session)}"
                return 416, "", "", f"BLOB_UPLOAD_INVALID: {text if self.kind == 'ECR' else ''}"
            self.pieces.append((number, len(session), len(body)))
            session += body
            if cut and self.kind == "2.8":
                self.sessions[number] = None
            return (201 if self.kind == "ECR" else 202), self.place(number), "", ""
        if method == "GET":
            return 204, self.place(number), f"0-{max(0, len(session) - 1)}", ""
        digest = query["digest"][0]
        session += body
        self.sessions[number] = None
        if digest != f"sha256:{hashlib.sha256(session).hexdigest()}":
            return 400, "", "", "DIGEST_INVALID: "
        self.blobs.add(digest)
        return 201, "", "", ""

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
            status, location, range_, said = registry.serve(self.command, self.path, body, offset)
            if status == CUT:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in (("Location", location), ("Range", range_)):
                if value:
                    self.send_header(name, value)
            code, _, text = said.partition(": ")
            refusal = json.dumps({"errors": [{"code": code, "message": text}]}).encode()
            content = refusal if code and self.command != "HEAD" else b""
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

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


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_that_was_ended_sends_the_rest_and_no_more(
    registry: Registry, client: RegistryClient, tmp_path: Path, kind: Kind
) -> None:
    registry.kind = kind
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


@pytest.mark.parametrize("kind", ["3.0", "ECR"])
def test_what_a_piece_brought_before_a_kill_is_not_sent_again(
    registry: Registry, client: RegistryClient, kind: Kind
) -> None:
    registry.kind = kind
    upload(client, end_at=SIZE)
    session = registry.sessions[0]
    assert session is not None
    session += DATA[SIZE : SIZE + 300]  # the rest of that piece was still on its way
    upload(client)
    # ECR says so where the piece is begun again: of that the rest is sent.
    assert registry.pieces[1] == (0, SIZE + 300, SIZE - 300 * (kind == "ECR"))
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
        ("registry.example", 30_000 * MIB, 8 * MIB),
        (ECR, 10, 5 * MIB),
        (ECR, 100 * MIB, 5 * MIB),
        (ECR, 150 * MIB, 6 * MIB),
        (ECR, 30_000 * MIB, 8 * MIB),
        (ECR, 52_000 * MIB, 13 * MIB),  # 4,000 parts of a layer as large as ECR takes
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
@pytest.mark.parametrize("kind", ["2.8", "ECR"])
def test_a_session_that_is_lost_or_spoiled_is_begun_anew(
    registry: Registry, client: RegistryClient, trouble: Any, kind: Kind
) -> None:
    registry.kind = kind
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


SMALL = DATA[:SIZE]
SMALL_DIGEST = f"sha256:{hashlib.sha256(SMALL).hexdigest()}"


def upload_small(client: RegistryClient) -> bool:
    return upload_blob(client, "a", SMALL_DIGEST, io.BytesIO(SMALL), SIZE)


def test_a_blob_of_one_piece_goes_with_the_request_that_closes_its_session(
    registry: Registry, client: RegistryClient, tmp_path: Path
) -> None:
    assert upload_small(client)
    assert registry.methods == ["HEAD", "POST", "PUT"]
    assert SMALL_DIGEST in registry.blobs
    assert not (tmp_path / "uploads").exists()


@pytest.mark.parametrize("stored_before", [False, True])
@pytest.mark.parametrize("trouble", [CUT, 400, 403, 404, 408, 416, 429, 500, 502, 503, 504, 522])
def test_after_any_trouble_with_it_the_blob_is_there_sent_twice_at_most(
    registry: Registry, client: RegistryClient, trouble: int, stored_before: bool
) -> None:
    registry.faults["PUT"] = [Fault(1.0 if stored_before else 0.0, trouble)]
    pauses: list[int] = []
    client.pause = lambda failures, *_: pauses.append(failures)
    assert upload_small(client)
    assert pauses == ([] if trouble in (400, 403) else [1])
    assert SMALL_DIGEST in registry.blobs
    again = [] if stored_before else ["POST", "PATCH", "PUT"]
    assert registry.methods == ["HEAD", "POST", "PUT", "HEAD", *again]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(40))
def test_whatever_becomes_of_the_pieces_the_blob_is_there(
    registry: Registry, client: RegistryClient, kind: Kind, seed: int
) -> None:
    random_ = random.Random(seed)
    registry.kind = kind
    kinds = [Fault(part, status) for part in (0, 0.3, 1) for status in (CUT, 429, 503)]
    faults: list[Fault | None] = [None] * 16
    for at in random_.sample(range(0, len(faults), 2), 3):  # never two in a row
        faults[at] = random_.choice(kinds)
    registry.faults["PATCH"] = faults
    data = random_.randbytes(16 * SIZE + 1)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert upload_blob(client, "a", digest, io.BytesIO(data), len(data))
    assert digest in registry.blobs
    if kind != "2.8":  # that one drops a session, which is then sent from its beginning
        # Of each the piece itself, and for ECR the one that is refused and tells the offset.
        assert registry.received <= len(data) + 3 * SIZE * (1 + (kind == "ECR"))


def test_an_offset_that_no_session_can_have_begins_another_one(
    registry: Registry, client: RegistryClient, tmp_path: Path
) -> None:
    registry.kind = "ECR"
    upload(client, end_at=2 * SIZE)
    (record,) = (tmp_path / "uploads").iterdir()
    location = record.read_text().splitlines()[0]
    record.write_text(f"{location}\n{len(DATA) + 1}\n")
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


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("123456789012.dkr.ecr.us-west-2.amazonaws.com", "us-west-2"),
        ("123456789012.dkr-ecr.eu-central-1.on.aws", "eu-central-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("harbor.example.com", None),
        ("127.0.0.1:5000", None),
    ],
)
def test_what_was_not_mounted_is_said_and_for_ecr_which_setting_mounts(
    host: str, region: str | None
) -> None:
    with RegistryClient(host, anonymous) as client:
        said = unmounted_notice(Repository(client, "ours/image"), "ours/base", 4_500_000_000)
    assert said.startswith("4.5 GB that ours/base has were sent again")
    # ECR user guide, "Blob mounting in Amazon ECR"
    setting = f"aws ecr put-account-setting --name BLOB_MOUNTING --value ENABLED --region {region}"
    assert (setting in said) == (region is not None)
    assert ("put-account-setting" in said) == (region is not None)
