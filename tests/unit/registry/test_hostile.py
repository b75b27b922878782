"""A registry is whoever answers under its name: what one may do to us, and what it gets for it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core import Credentials, Event, anonymous, silent
from slipway.registry import (
    Artefact,
    Manifest,
    RegistryClient,
    RegistryError,
    Repository,
    RetryPolicy,
    put_artefacts,
)
from slipway.registry.distribution import connections
from slipway.registry.distribution.answers import ANSWER_LIMIT, origin_of, resolve_location
from slipway.registry.distribution.auth import Challenge, RegistryLogin
from slipway.registry.distribution.blob_upload import PIECE, piece_size, upload_blob
from slipway.registry.distribution.transport import RegistryTransport
from slipway.registry.errors import ManifestError, NoCredentialsError, ThrottledError
from slipway.registry.manifests import OCI_MANIFEST, check_manifest
from tests.support.loopback_files import serve_requests

QUICK = RetryPolicy(attempts=3, base=0.01, cap=0.02)
SECRET = Credentials("me", "hush")


@dataclass(frozen=True)
class Answer:
    """What a server says to a request. `endless`: the body again and again, without a length."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    endless: bool = False


@dataclass
class Server:
    """A server that answers as a function of the request says, and remembers what it was asked."""

    host: str = ""
    answer: Callable[[str, str, dict[str, str]], Answer] = lambda *_: Answer(404)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def logins(self) -> list[str]:
        return [headers["Authorization"] for *_, headers in self.seen if "Authorization" in headers]


@contextlib.contextmanager
def served() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = self.command, self.path, dict(self.headers)
            server.seen.append(asked)
            answer = server.answer(*asked)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if not answer.endless:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            with contextlib.suppress(OSError):
                self.wfile.write(answer.body)
                while answer.endless:
                    self.wfile.write(answer.body)
            self.close_connection = answer.endless

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    with serve_requests(Handler) as server.host:
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    with served() as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """Another host than the registry: on loopback a host is an address with its port."""
    with served() as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[RegistryClient]:
    with RegistryClient(server.host, lambda host: SECRET, policy=QUICK) as made:
        yield made


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image(**parts: Any) -> bytes:
    content: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"digest": digest(b"c"), "size": 1},
        "layers": [{"digest": digest(b"l"), "size": 1}],
    }
    return json.dumps({**content, **parts}).encode()


BAD_PARTS: list[Any] = [
    None, [], "x", {}, {"digest": "sha256:../../../etc/passwd", "size": 1},
    {"digest": "sha256:" + "A" * 64, "size": 1}, {"digest": "md5:" + "0" * 32, "size": 1},
    {"digest": digest(b"")}, {"digest": digest(b""), "size": -1},
    {"digest": digest(b""), "size": "9"}, {"digest": digest(b""), "size": True},
    {"digest": digest(b""), "size": 1e9}, {"digest": digest(b""), "size": 1 << 60},
    {"digest": digest(b"") + "\n", "size": 1},
]  # fmt: skip


@pytest.mark.parametrize("part", BAD_PARTS)
@pytest.mark.parametrize("name", ["config", "layer"])
def test_a_manifest_with_a_part_that_is_no_descriptor_is_refused(
    server: Server, client: RegistryClient, part: object, name: str
) -> None:
    raw = image(config=part) if name == "config" else image(layers=[part])
    server.answer = lambda *_: Answer(headers={"Content-Type": OCI_MANIFEST}, body=raw)
    with pytest.raises(ManifestError):
        client.manifest("a", "1")


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"3", b"null", b"{", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 200_000,
     b'{"layers":[]}', b'{"layers":{},"config":{}}'],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_in_one_paragraph(
    server: Server, client: RegistryClient, raw: bytes
) -> None:
    server.answer = lambda *_: Answer(headers={"Content-Type": OCI_MANIFEST}, body=raw)
    with pytest.raises(ManifestError):
        client.manifest("a", "1")


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {}, optional={"config": json_values, "layers": json_values, "manifests": json_values}
    )
)
def test_no_json_gets_past_the_check_as_another_error(content: dict[str, Any]) -> None:
    raw = json.dumps(content).encode()
    for kind in (OCI_MANIFEST, "application/vnd.oci.image.index.v1+json"):
        with contextlib.suppress(ManifestError):
            check_manifest(Manifest(kind, digest(raw), raw), "test")


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (b"[]", 1),
        (b"{" * 100_000, 1),
        (b'{"rootfs":[]}', 1),
        (b'{"rootfs":{"diff_ids":["x"]}}', 1),
        (json.dumps({"rootfs": {"diff_ids": [digest(b"d")]}}).encode(), 2),
    ],
)
def test_a_configuration_that_does_not_fit_its_manifest_is_refused(
    server: Server, client: RegistryClient, config: bytes, layers: int
) -> None:
    part = {"digest": digest(config), "size": len(config)}
    raw = image(config=part, layers=[part] * layers)
    server.answer = lambda _, path, __: (
        Answer(body=config)
        if "/blobs/" in path
        else Answer(headers={"Content-Type": OCI_MANIFEST}, body=raw)
    )
    with pytest.raises(ManifestError):
        client.config("a", client.manifest("a", "1"))


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_an_answer_without_end_is_not_read_to_the_end(
    server: Server, client: RegistryClient, status: int, headers: dict[str, str]
) -> None:
    server.answer = lambda *_: Answer(status, headers, b"\x1f\x8b" + b"x" * (1 << 20), endless=True)
    with pytest.raises(RegistryError, match=f"longer than {ANSWER_LIMIT >> 20} MiB"):
        client.manifest("a", "1")


def test_a_blob_without_end_is_read_as_far_as_its_manifest_says(
    server: Server, client: RegistryClient
) -> None:
    server.answer = lambda *_: Answer(body=b"x" * (1 << 20), endless=True)
    size = 3 << 20
    pieces: list[bytes] = []
    with pytest.raises(ManifestError, match=f"longer than the {size} bytes"):
        pieces.extend(client.blob_stream("a", digest(b""), size))
    assert len(b"".join(pieces)) <= size
    with pytest.raises(ManifestError, match="too large for a configuration"):
        client.blob("a", digest(b""))
    asked = len(server.seen)
    with pytest.raises(ManifestError, match="too large for a configuration"):
        client.blob("a", digest(b""), 1 << 40)
    assert len(server.seen) == asked  # the manifest's own word was enough


@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_a_blob_of_another_size_than_its_manifest_says_is_refused(
    server: Server, client: RegistryClient, size: int
) -> None:
    server.answer = lambda *_: Answer(body=b"hello")
    with pytest.raises(ManifestError, match=r"manifest says|longer than"):
        client.blob("a", digest(b"hello"), size)
    assert client.blob("a", digest(b"hello"), 5) == b"hello"


@pytest.mark.parametrize("each", [1, 40_000])
def test_a_list_of_tags_without_end_is_refused_and_not_taken_for_a_whole_one(
    server: Server, client: RegistryClient, each: int
) -> None:
    def answer(_: str, path: str, __: dict[str, str]) -> Answer:
        page = int(path.rpartition("=")[2]) if "last=" in path else 0
        tags = [f"{page}-{number}-{'x' * 80}" for number in range(each)]
        link = f'</v2/r/tags/list?last={page + 1}>; rel="next"'
        return Answer(200, {"Link": link}, json.dumps({"tags": tags}).encode())

    server.answer = answer
    with pytest.raises(RegistryError, match="no end"):
        client.tags("r")
    assert len(server.seen) <= 200
    assert len(server.seen) * each <= 240_000


def test_a_list_of_referrers_comes_in_pages_and_has_an_end(
    server: Server, client: RegistryClient
) -> None:
    digests = [f"sha256:{number:064x}" for number in range(6)]
    last = 2

    def answer(_: str, path: str, __: dict[str, str]) -> Answer:
        page = int(path.rpartition("=")[2]) if "next=" in path else 0
        entries = [{"digest": found} for found in digests[2 * page : 2 * page + 2]]
        link = {"Link": f'</v2/a/referrers/x?next={page + 1}>; rel="next"'} if page < last else {}
        return Answer(200, link, json.dumps({"manifests": entries}).encode())

    server.answer = answer
    assert client.referrers("a", digest(b"")) == digests
    last = 10**9
    with pytest.raises(RegistryError, match="no end"):
        client.referrers("a", digest(b""))


def test_a_registry_that_finds_referrers_a_moment_later_gets_no_index_of_them(
    server: Server, client: RegistryClient
) -> None:
    subject = Manifest(OCI_MANIFEST, digest(image()), image())

    def answer(method: str, path: str, _: dict[str, str]) -> Answer:
        if method == "PUT":
            return Answer(201)
        if "/referrers/" in path:
            return Answer(200, body=b'{"manifests": []}')
        return Answer(200 if "/blobs/" in path else 404)

    server.answer = answer
    put_artefacts(Repository(client, "a"), subject, [Artefact("application/x", ())])
    (put,) = [path for method, path, _ in server.seen if method == "PUT"]
    assert "/manifests/sha256:" in put


def test_a_gzip_bomb_is_not_unpacked_on_the_way(server: Server, client: RegistryClient) -> None:
    packed = gzip.compress(bytes(64 << 20))
    server.answer = lambda *_: Answer(headers={"Content-Encoding": "gzip"}, body=packed)
    assert client.blob("a", digest(packed), len(packed)) == packed


def test_a_partial_answer_of_another_part_is_refused(
    server: Server, client: RegistryClient
) -> None:
    data = b"0123456789"

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        if "Range" in headers:
            return Answer(206, {"Content-Range": "bytes 7-9/10"}, data[7:])
        return Answer(body=data[:5])  # ends early

    server.answer = answer
    with pytest.raises(ManifestError, match="asked from byte 5 on"):
        client.blob("a", digest(data), len(data))


@pytest.mark.parametrize("stated", [digest(b"other"), "sha256:1", "nonsense"])
def test_a_digest_that_is_not_of_the_content_is_refused(
    server: Server, client: RegistryClient, stated: str
) -> None:
    raw = image()
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": stated}
    server.answer = lambda *_: Answer(headers=headers, body=raw)
    for reference in ("1", digest(raw), digest(b"asked for")):
        with pytest.raises(ManifestError, match="digest"):
            client.manifest("a", reference)


def test_a_redirect_is_followed_without_the_login_and_with_the_range(
    server: Server, elsewhere: Server, client: RegistryClient
) -> None:
    data = b"0123456789"

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        if "Authorization" not in headers:
            return Answer(401, {"WWW-Authenticate": "Basic"})
        return Answer(307, {"Location": f"http://{elsewhere.host}/signed?key=1"})

    def store(method: str, path: str, headers: dict[str, str]) -> Answer:
        if "Range" not in headers:
            return Answer(body=data[:4])
        return Answer(206, {"Content-Range": "bytes 4-9/10"}, data[4:])

    server.answer, elsewhere.answer = answer, store
    assert client.blob("a", digest(data), len(data)) == data
    assert server.logins()
    assert len(elsewhere.seen) == 2
    assert elsewhere.logins() == []


def test_redirects_without_end_have_one(server: Server, client: RegistryClient) -> None:
    server.answer = lambda *_: Answer(302, {"Location": "/v2/again"})
    with pytest.raises(RegistryError, match="redirects more than"):
        client.blob("a", digest(b""))
    assert len(server.seen) < 10


REGISTRY = "https://registry.example"


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.example/x", "ftp://cdn.example/x", "file:///etc/passwd", "//[bad",
        "https://user:pass@cdn.example/", "https://127.0.0.1/x", "https://localhost:5000/x",
        "https://169.254.169.254/latest/meta-data", "https://[::1]/x", "https://0.0.0.0/x",
        "https://[::ffff:127.0.0.1]/", "http://registry.example/x", "gopher://registry.example/",
        "https://cdn.example:99999/x",
    ],
)  # fmt: skip
def test_a_registry_cannot_send_us_to_such_a_place(location: str) -> None:
    with pytest.raises(RegistryError, match="sends us to"):
        resolve_location(REGISTRY, f"{REGISTRY}/v2/a/blobs/x", location)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/v2/a/x?_state=1", f"{REGISTRY}/v2/a/x?_state=1"),
        ("x", f"{REGISTRY}/v2/a/blobs/x"),
        ("https://cdn.example/x", "https://cdn.example/x"),
        ("//cdn.example/x", "https://cdn.example/x"),
    ],
)
def test_a_location_may_be_relative_or_at_another_https_host(location: str, url: str) -> None:
    assert resolve_location(REGISTRY, f"{REGISTRY}/v2/a/blobs/uploads/", location) == url.replace(
        "blobs/x", "blobs/uploads/x"
    )


def test_an_origin_has_a_port() -> None:
    assert origin_of("https://A.example/x") == origin_of("https://a.example:443")
    assert origin_of("https://a.example") != origin_of("http://a.example")
    assert origin_of("https://a.example") != origin_of("https://a.example:5000")


def test_an_upload_goes_on_at_another_host_without_the_login(
    server: Server, elsewhere: Server, client: RegistryClient
) -> None:
    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        if "Authorization" not in headers:
            return Answer(401, {"WWW-Authenticate": "Basic"})
        if method == "POST":
            return Answer(202, {"Location": f"http://{elsewhere.host}/upload/1"})
        return Answer(404)

    server.answer = answer
    elsewhere.answer = lambda method, *_: Answer(201 if method == "PUT" else 202)
    large = bytes(2 * PIECE)
    for content in (b"data", large):
        assert upload_blob(client, "a", digest(content), io.BytesIO(content), len(content))
    sent = [method for method, *_ in elsewhere.seen]
    assert sent == ["PUT"] + ["PATCH"] * (len(large) // piece_size(len(large), "")) + ["PUT"]
    assert elsewhere.logins() == []


def test_a_session_without_a_place_is_an_error(server: Server, client: RegistryClient) -> None:
    server.answer = lambda method, *_: Answer(202 if method == "POST" else 404)
    with pytest.raises(RegistryError, match="names no location"):
        upload_blob(client, "a", digest(b"data"), io.BytesIO(b"data"), 4)


def test_a_registry_that_says_it_has_more_than_was_sent_gets_all_of_it(
    server: Server, client: RegistryClient
) -> None:
    state = {"patched": 0}

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        if method == "POST":
            return Answer(202, {"Location": "/v2/a/blobs/uploads/1"})
        if method == "PATCH":
            state["patched"] += 1
            return Answer(500 if state["patched"] == 1 else 202)
        if method == "GET":
            return Answer(204, {"Range": "0-999999999999"})
        return Answer(201 if method == "PUT" else 404)

    server.answer = answer
    content = bytes(1024 * 1025)  # one piece and a rest
    assert upload_blob(client, "a", digest(content), io.BytesIO(content), len(content))
    ranges = [h["Content-Range"] for method, _, h in server.seen if method == "PATCH"]
    assert ranges == ["0-1048575", "0-1048575", "1048576-1049599"]


def bearer(realm: str) -> Callable[[str, str, dict[str, str]], Answer]:
    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        if headers.get("Authorization", "").startswith("Bearer "):
            return Answer(404)
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",scope="x"'})

    return answer


def token(method: str, path: str, headers: dict[str, str]) -> Answer:
    return Answer(body=json.dumps({"token": "t"}).encode())


def test_a_realm_elsewhere_gets_no_login_of_the_registry(server: Server, elsewhere: Server) -> None:
    server.answer, elsewhere.answer = bearer(f"http://{elsewhere.host}/token"), token
    credentials = {server.host: SECRET}
    with RegistryClient(server.host, credentials.get, policy=QUICK) as client:
        assert client.head("a", "1") is None  # what is public is had anonymously
    assert elsewhere.seen
    assert elsewhere.logins() == []
    elsewhere.answer = lambda *_: Answer(401)
    with (
        RegistryClient(server.host, credentials.get, policy=QUICK) as client,
        pytest.raises(NoCredentialsError, match="to another host"),
    ):
        client.head("a", "1")
    assert elsewhere.logins() == []


def test_a_realm_elsewhere_gets_the_login_that_the_user_has_for_it(
    server: Server, elsewhere: Server
) -> None:
    server.answer, elsewhere.answer = bearer(f"http://{elsewhere.host}/token"), token
    known = {server.host: SECRET, elsewhere.host: Credentials("you", "other")}
    with RegistryClient(server.host, known.get, policy=QUICK) as client:
        assert client.head("a", "1") is None
    assert elsewhere.logins() == ["Basic eW91Om90aGVy"]  # you:other


@pytest.mark.parametrize(
    ("host", "realm", "given"),
    [
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("docker.io", "https://auth.docker.io/token", True),
        ("quay.io", "https://quay.io/v2/auth", True),
        ("ghcr.io:443", "https://ghcr.io/token", True),
        ("registry.example.com", "https://evil.example.com/token", False),
        ("registry.example.com", "https://com/token", False),
        ("registry.example.com", "https://registry.example.com:8443/token", False),
        ("registry.example.com", "https://notexample.com/", False),
        ("quay.io", "https://auth.docker.io/token", False),
    ],
)
def test_a_login_goes_to_its_own_host_and_to_that_of_its_domain(
    host: str, realm: str, given: bool
) -> None:
    known = {host: SECRET}
    login = RegistryLogin(RegistryTransport(host), known.get)
    assert login._credentials_at(realm) == (SECRET if given else None)


@pytest.mark.parametrize(
    "realm",
    ["", "token", "http://evil.example/token", "file:///x", "https://a:b@c.example/",
     "http://169.254.169.254/"],
)  # fmt: skip
def test_a_realm_that_is_no_place_is_refused(realm: str) -> None:
    login = RegistryLogin(RegistryTransport("registry.example"), lambda _: SECRET)
    if realm in ("", "token"):
        assert resolve_location(REGISTRY, REGISTRY, realm).startswith(REGISTRY)
        return
    with pytest.raises(RegistryError, match="sends us to"):
        login._token(Challenge("bearer", {"realm": realm}), "x")


def test_no_login_goes_over_plain_http_but_on_this_machine() -> None:
    login = RegistryLogin(RegistryTransport("registry.example", insecure=True), lambda _: SECRET)
    with pytest.raises(NoCredentialsError, match="over plain http"):
        login._log_in(Challenge("basic", {}), "x")
    assert login._credentials_at("http://registry.example/token") is None


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token": ""}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}',
     b'{"token": "\\u00e9"}', b"[" * 100_000],
)  # fmt: skip
def test_a_token_service_without_a_usable_token_is_told_as_that(
    server: Server, client: RegistryClient, body: bytes
) -> None:
    server.answer = lambda method, path, headers: (
        Answer(body=body)
        if path.startswith("/token")
        else bearer(f"http://{server.host}/token")(method, path, headers)
    )
    with pytest.raises(RegistryError, match="token"):
        client.manifest("a", "1")


@pytest.mark.parametrize("life", [60, 0, -5, 1e300, "soon", None, [1], True])
def test_a_token_is_renewed_before_its_end_and_not_when_it_is_refused(
    server: Server, client: RegistryClient, life: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued: list[str] = []

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        if path.startswith("/token"):
            issued.append(f"t{len(issued)}")
            return Answer(body=json.dumps({"token": issued[-1], "expires_in": life}).encode())
        return bearer(f"http://{server.host}/token")(method, path, headers)

    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    server.answer = answer
    client.head("a", "1")
    client.head("a", "1")
    assert issued == ["t0"] or life is True  # a second, says the last one: "true"
    server.seen.clear()
    now[0] += 50
    client.head("a", "1")
    assert len(issued) >= 2
    refused = [path for _, path, h in server.seen if "/v2/" in path and "Authorization" not in h]
    assert refused == []


def test_a_wait_that_the_registry_asks_for_is_obeyed_and_said(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [Answer(429, {"Retry-After": "2"}), Answer(404)]
    server.answer = lambda *_: answers.pop(0)
    events: list[Event] = []
    held: list[float] = []
    with RegistryClient(server.host, anonymous, policy=QUICK, on_event=events.append) as client:
        monkeypatch.setattr(client._transport._gate, "hold", held.append)
        assert client.head("a", "1") is None
    assert 2.0 <= held[0] < 2.1
    assert [e.text for e in events] == [f"waiting 2 s for {server.host}, as it asks"]


DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(403, {}, DENIED), "it answers 403 AccessDenied no"),
        (Answer(503, {}, b"<html><title>Too busy</title>"), "it answers 503 Too busy"),
        (None, "cannot be reached"),
    ],
)
def test_where_layers_are_on_another_host_that_is_named(
    server: Server, answer: Answer | None, words: str
) -> None:
    digest = f"sha256:{'0' * 64}"
    with served() as storage:
        storage.answer = lambda *_: answer or Answer()
        place = storage.host if answer else "127.0.0.1:9"
        server.answer = lambda *_: Answer(307, {"Location": f"http://{place}/layer"})
        with (
            RegistryClient(server.host, anonymous, policy=QUICK) as client,
            pytest.raises(RegistryError, match=words) as told,
        ):
            client.blob("a", digest)
    assert "another host, 127.0.0.1:" in told.value.what
    assert "S3" in (told.value.cure or "")


@pytest.mark.parametrize("status", [200, 511])
@pytest.mark.parametrize("ask", ["manifest", "head", "blob", "token"])
def test_a_web_page_in_the_registrys_place_is_told_as_that(
    server: Server, status: int, ask: str
) -> None:
    page = Answer(status, {"Content-Type": "text/html; charset=utf-8"}, b"<title>Log in</title>")
    challenge = Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})
    ask_token = ask == "token"
    server.answer = lambda _, path, __: challenge if ask_token and "token" not in path else page
    with RegistryClient(server.host, anonymous, policy=QUICK) as client:
        kinds: dict[str, Callable[[str, str], object]] = {"blob": client.blob, "head": client.head}
        asked = kinds.get(ask, client.manifest)
        with pytest.raises(RegistryError, match="a web page answers in its place"):
            asked("a", f"sha256:{'0' * 64}")


def test_a_wait_of_hours_ends_an_upload_at_once(server: Server) -> None:
    def answer(method: str, path: str, _: dict[str, str]) -> Answer:
        if method == "POST":
            return Answer(202, {"Location": f"{path}x"})
        return Answer(503, {"Retry-After": "7200"}) if method == "PATCH" else Answer(404)

    server.answer = answer
    with (
        RegistryClient(server.host, anonymous, policy=QUICK) as client,
        pytest.raises(RegistryError, match="asks for a wait of 2 h"),
    ):
        upload_blob(client, "a", f"sha256:{'0' * 64}", io.BytesIO(b"x"), 1)
    assert sum(method == "PATCH" for method, *_ in server.seen) == 1


@pytest.mark.parametrize("asked", ["3600", "9" * 50, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_longer_than_ours_ends_at_once_and_says_how_long(server: Server, asked: str) -> None:
    server.answer = lambda *_: Answer(429, {"Retry-After": asked})
    with (
        RegistryClient(server.host, anonymous, policy=QUICK, on_event=silent) as client,
        pytest.raises(ThrottledError, match=r"asks for a wait of \d+ (h|days)"),
    ):
        client.manifest("a", "1")
    assert len(server.seen) == 1


@pytest.mark.parametrize("asked", ["²", "-5", "1e9", "soon", "", "\x00", "Wed, 99 Foo"])
def test_a_wait_that_is_no_time_is_our_own(server: Server, asked: str) -> None:
    answers = [Answer(503, {"Retry-After": asked.encode("ascii", "ignore").decode()}), Answer(404)]
    server.answer = lambda *_: answers.pop(0)
    with RegistryClient(server.host, anonymous, policy=QUICK) as client:
        assert client.head("a", "1") is None


def upload_session(finish: Callable[[int], Answer], patched: Callable[[str], Answer]) -> Any:
    """Answers of a registry to an upload: `finish` by its number, `patched` by Content-Range."""
    finished = itertools.count()

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        del path
        if method == "POST":
            return Answer(202, {"Location": "/v2/a/b/blobs/uploads/1"})
        if method == "PATCH":
            return patched(headers["Content-Range"])
        return finish(next(finished)) if method == "PUT" else Answer(404)

    return answer


GONE = Answer(404, body=b'{"errors": [{"code": "BLOB_UPLOAD_INVALID"}]}')
TAKEN = Answer(202, {"Location": "/v2/a/b/blobs/uploads/1"})


def test_a_session_that_is_called_invalid_is_begun_anew(
    server: Server, client: RegistryClient
) -> None:
    """So Distribution 2.8 answers where a cut came while it closed the session."""
    server.answer = upload_session(lambda n: Answer(201) if n else GONE, lambda _: TAKEN)
    assert upload_blob(client, "a/b", digest(b"x"), io.BytesIO(b"x"), 1)
    assert [method for method, *_ in server.seen].count("POST") == 2


def test_a_registry_that_loses_every_session_has_an_end(
    server: Server, client: RegistryClient
) -> None:
    data = bytes(2 * PIECE)
    for finish, patched in (
        (lambda n: GONE, lambda sent: TAKEN),
        (lambda n: Answer(201), lambda sent: TAKEN if sent.startswith("0-") else GONE),
    ):
        server.seen.clear()
        server.answer = upload_session(finish, patched)
        with pytest.raises(RegistryError):
            upload_blob(client, "a/b", digest(data), io.BytesIO(data), len(data))
        assert [method for method, *_ in server.seen].count("POST") <= QUICK.attempts + 1


def test_an_answer_that_is_cut_within_its_head_is_no_answer() -> None:
    name = digest(b"x")
    head = f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nDocker-Content-Digest: {name}\r\n\r\n".encode()
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answers.pop(0))

        for cut in range(len(head)):
            answers[:] = [head[:cut], head]
            thread = threading.Thread(target=serve)
            thread.start()
            host = f"127.0.0.1:{listener.getsockname()[1]}"
            with RegistryClient(host, anonymous, policy=QUICK) as client:
                assert client.head("a/b", "t") == name
            thread.join()


@pytest.mark.parametrize(
    ("line", "pause"), [(b"HTTP/1.1 100 Continue\r\n\r\n", 0.0), (b"X-More: x\r\n", 0.05)]
)
def test_a_head_without_end_has_one(
    monkeypatch: pytest.MonkeyPatch, line: bytes, pause: float
) -> None:
    if pause:
        monkeypatch.setattr(connections, "_LONGEST_HEAD_S", 0.5)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while not ended.is_set():
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"" if line.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n")
                    while not ended.is_set():
                        connection.sendall(line)
                        time.sleep(pause)

        thread = threading.Thread(target=serve)
        thread.start()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with RegistryClient(host, anonymous, policy=QUICK) as client:
            started = time.monotonic()
            # Of interim responses newer Pythons take a hundred.
            with pytest.raises(RegistryError, match=r"no end|more than 100 interim responses"):
                client.head("a/b", "t")
            assert time.monotonic() - started < 20
        ended.set()
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])).close()
        thread.join()


def test_an_upload_may_take_longer_than_any_time_out_as_long_as_it_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A time-out is of one piece of a body: on a slow link the whole takes minutes."""
    monkeypatch.setattr(connections, "SILENCE_S", 2.0)
    pause, reads, received = 0.008, 0, 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)

        def serve() -> None:
            nonlocal reads, received
            connection, _ = listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(1)
                while received < PIECE:
                    received += len(connection.recv(1 << 19))
                    reads += 1
                    time.sleep(pause)
                connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with RegistryClient(host, anonymous) as client:
            answer = client.request(
                "PATCH", "a/b", "blobs/uploads/1", body=lambda: bytes(PIECE), patient=False
            )
        thread.join()
    assert answer.status_code == 202
    assert reads * pause > connections.SILENCE_S


@pytest.mark.parametrize("refused", [0, 1, 2, 9])
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (400, "DIGEST_INVALID", "DIGEST_INVALID"),  # Distribution 2.8: somebody else puts a blob
        (404, "BLOB_UPLOAD_UNKNOWN", "cannot read all"),  # ECR, of blobs just put
        (404, "MANIFEST_BLOB_UNKNOWN", "cannot read all"),
    ],
)
def test_a_manifest_that_is_refused_for_its_blobs_is_put_again_and_not_for_ever(
    server: Server, client: RegistryClient, status: int, code: str, said: str, refused: int
) -> None:
    errors = json.dumps({"errors": [{"code": code}, {"code": "UNKNOWN"}]}).encode()
    wrong = Answer(status, body=errors)
    puts = itertools.count()
    server.answer = lambda *_: wrong if next(puts) < refused else Answer(201)
    raw = image()
    manifest = Manifest(OCI_MANIFEST, digest(raw), raw)
    if refused < QUICK.attempts:
        assert client.put_manifest("a", "v1", manifest) == manifest.digest
    else:
        with pytest.raises(RegistryError, match=said):
            client.put_manifest("a", "v1", manifest)
    assert len(server.seen) == min(refused + 1, QUICK.attempts)
