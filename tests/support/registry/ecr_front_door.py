"""An ECR on loopback: moto for the API, a real Distribution for the data, and a door before it.

moto declares the /v2/ data plane out of scope (getmoto/moto#3852), and its tokens ended in 2015.
The door does what ECR does and Distribution does not: tokens with an end, repositories that must
exist, immutable tags, images that the API knows; and it breaks on demand (registry_faults.Fault).
Uploads go as they were recorded of ECR: a piece is answered with 201 (openai/tart#273), its Range
stays at the end of the first piece (aws/containers-roadmap#2831), a session has no GET
(dotnet/sdk#33019), what came of a piece that was cut stays, and one that begins elsewhere is
refused with the offset in its text (apple/containerization#790). A manifest that is read names no
digest (aws/containers-roadmap#1931), one that is put no location (apple/swift-container-plugin#27).
A repository is made after the answer that says so (hashicorp/terraform-provider-aws#3849).
Not done: pieces of less than 5 MiB are taken here.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import fnmatch
import http.client
import json
import os
import re
import secrets
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

from moto.core.responses import ActionResult
from moto.ecr.exceptions import RepositoryAlreadyExistsException
from moto.ecr.models import ECRBackend, Repository, ecr_backends
from moto.ecr.responses import ECRResponse
from moto.server import ThreadedMotoServer

from slipway.registry import Target
from slipway.registry.manifests import OCI_INDEX
from tests.support.registry.faults import Fault, Faults, Request

ACCOUNT = "123456789012"  # moto's own
REGION = "eu-central-1"
MAKING_S = 0.3
_SESSION = re.compile(r"/v2/.+/blobs/uploads/(?P<uuid>[^/]+)")
_NAME = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>.*)")


@dataclass
class UploadSession:
    """An upload as ECR has it. `location`: where the registry behind the door goes on with it."""

    location: str
    offset: int = 0
    first_end: int = 0


@dataclass
class Door:
    """The state behind one door. `auth`: ECR's Basic, or Bearer tokens as public registries do."""

    upstream: str
    auth: Literal["basic", "bearer"] = "basic"
    scheme: Literal["http", "https"] = "http"
    lifetime: timedelta = timedelta(hours=12)
    faults: Faults = field(default_factory=Faults)
    host: str = ""
    api: str = ""
    tokens: dict[str, datetime] = field(default_factory=dict)
    issued: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    tagging: threading.Lock = field(default_factory=threading.Lock)
    referrers: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    uploads: dict[str, UploadSession] = field(default_factory=dict)
    in_the_making: dict[str, Repository] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        return Target("ecr-test", "ecr", self.host, REGION, ACCOUNT)

    def issue(self) -> tuple[str, datetime]:
        token, end = secrets.token_urlsafe(24), datetime.now(timezone.utc) + self.lifetime
        with self.lock:
            self.tokens[token] = end
            self.issued += 1
        return token, end

    def expire(self) -> None:
        with self.lock:
            self.tokens = dict.fromkeys(self.tokens, datetime.now(timezone.utc))

    def fault(self, method: str, path: str, action: Any, **rest: Any) -> Fault:
        return self.faults.add(Fault(method, path, action, **rest))

    def repository(self, name: str) -> Repository | None:
        found: Repository | None = ecr_backends[ACCOUNT][REGION].repositories.get(name)
        return found


@contextlib.contextmanager
def aws_api() -> Iterator[str]:
    """moto's AWS API on loopback; yields its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def ecr(upstream: str, api: str) -> Iterator[Door]:
    """An ECR without repositories, whose data is in the registry at `upstream`."""
    door = Door(upstream, api=api)
    create = ECRBackend.create_repository
    resolve = ECRBackend._resolve_image_tag_mutability
    makers: list[threading.Timer] = []

    def resolved(self: ECRBackend, repository: Repository, proposed_image_tag: str) -> list[Any]:
        """moto takes ECR's wildcards for regular expressions."""
        filters = repository.image_tag_mutability_exclusion_filters or []
        translated = copy.copy(repository)
        translated.image_tag_mutability_exclusion_filters = [
            {**rule, "filter": fnmatch.translate(rule["filter"])} for rule in filters
        ]
        return resolve(self, translated, proposed_image_tag)

    def token(self: ECRResponse) -> ActionResult:
        secret, end = door.issue()
        data = {
            "authorizationToken": base64.b64encode(f"AWS:{secret}".encode()).decode(),
            "expiresAt": end,
            "proxyEndpoint": f"http://{door.host}",
        }
        return ActionResult({"authorizationData": [data]})

    def created(self: ECRBackend, *args: Any, **kwargs: Any) -> Repository:
        name = args[0] if args else kwargs["repository_name"]
        if name in door.in_the_making:
            raise RepositoryAlreadyExistsException(name, ACCOUNT)
        repository = create(self, *args, **kwargs)
        repository.uri = f"{door.host}/{name}"
        door.in_the_making[name] = self.repositories.pop(name)
        made = threading.Timer(
            MAKING_S, lambda: self.repositories.update({name: door.in_the_making.pop(name)})
        )
        makers.append(made)
        made.start()
        return repository

    with (
        _served(door),
        patch.object(ECRResponse, "get_authorization_token", token),
        patch.object(ECRBackend, "create_repository", created),
        patch.object(ECRBackend, "_resolve_image_tag_mutability", resolved),
    ):
        yield door
        for made in makers:
            made.join()
        ecr_backends[ACCOUNT][REGION].repositories.clear()


@contextlib.contextmanager
def public_registry(upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[Door]:
    """A registry in the manner of public.ecr.aws: Bearer tokens, anyone may pull."""
    door = Door(upstream, auth="bearer", scheme="https" if tls else "http")
    with _served(door, tls):
        yield door


@contextlib.contextmanager
def _served(door: Door, tls: ssl.SSLContext | None = None) -> Iterator[None]:
    class Handler(_Handler):
        state = door

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        if tls:
            listener.socket = tls.wrap_socket(listener.socket, server_side=True)
        door.host = f"127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield
        listener.shutdown()
        thread.join()


class _CutError(Exception):
    """Cut the connection here."""


class _Handler(BaseHTTPRequestHandler):
    state: Door
    protocol_version = "HTTP/1.1"
    received = 0

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):
            if self.rfile.peek(1)[:1] == b"\x16":  # type: ignore[attr-defined]
                # A TLS ClientHello: containerd tries https first and falls back at this answer.
                self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                self.close_connection = True
                return
            super().handle_one_request()

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do(self) -> None:
        self.close_connection = True
        self.received = 0
        status: int | None = None
        try:
            status = self._serve()
        except _CutError:
            linger = struct.pack("ii", 1, 0)  # close() then sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            os.close(self.connection.detach())  # now, and not when the last file object goes
        finally:
            self.state.faults.record(Request(self.command, self.path, self.received, status))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do  # noqa: N815

    def _serve(self) -> int:
        if urlsplit(self.path).path == "/token":
            return self._token()
        fault = self.state.faults.take(self.command, self.path)
        if fault and fault.action == "expire":
            self.state.expire()
        if fault and fault.action == "stall":
            time.sleep(fault.seconds)
            raise _CutError
        if fault and fault.action == "reset" and not fault.after_bytes:
            raise _CutError
        # ECR looks at a tag and takes it in one step.
        tagging = self.command == "PUT" and "/manifests/" in self.path
        with self.state.tagging if tagging else contextlib.nullcontext():
            return self._serve_whole(fault)

    def _serve_whole(self, fault: Fault | None) -> int:
        refused = self._refusal()
        if fault and fault.action == "status":
            refused = (fault.status, fault.code, fault.message)
        if refused:
            self._drain()
            headers = {"Retry-After": fault.retry_after} if fault and fault.retry_after else {}
            return self._error(*refused, headers=headers)
        asked = _NAME.match(urlsplit(self.path).path)
        if asked and asked["kind"] == "referrers" and self.state.auth == "basic":
            # ECR finds what refers to an image; the registry behind this door does not.
            listed = self.state.referrers.get((asked["name"], asked["rest"]), [])
            content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
            return self._answer(200, None, json.dumps(content).encode())
        session = self._session() if self.state.auth == "basic" else None
        if session and self.command == "GET":
            return self._error(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        if session and self.command == "PATCH":
            return self._take_piece(session, fault)
        status, answer, body = self._forward(self._body(fault), session)
        if self.state.auth == "basic":
            self._as_ecr(status, answer)
        if fault and fault.action == "lose":
            raise _CutError
        if fault and fault.action == "misname" and "Docker-Content-Digest" in answer.headers:
            answer.headers.replace_header("Docker-Content-Digest", f"sha256:{'0' * 64}")
        if fault and fault.action == "corrupt" and self.command == "GET":
            body = body[:-1] + bytes([body[-1] ^ 1])
        cut = fault.after_bytes if fault and self.command == "GET" else 0
        return self._answer(status, answer, body, cut=cut)

    def _refusal(self) -> tuple[int, str, str] | None:
        """What ECR refuses, in the order in which it looks."""
        kind, _, login = self.headers.get("Authorization", "").partition(" ")
        if self.state.auth == "basic" and kind == "Basic":
            login = base64.b64decode(login).decode().partition(":")[2]
        elif kind.lower() != self.state.auth:
            return 401, "UNAUTHORIZED", "authentication required"
        end = self.state.tokens.get(login)
        if end is None:
            return 401, "UNAUTHORIZED", "authentication required"
        if end <= datetime.now(timezone.utc):
            if self.state.auth == "bearer":
                return 401, "UNAUTHORIZED", "authentication required"
            text = "Your authorization token has expired. Reauthenticate and try again."
            return 403, "DENIED", text
        return None if self.state.auth == "bearer" else self._repository_refusal()

    def _repository_refusal(self) -> tuple[int, str, str] | None:
        match = _NAME.match(urlsplit(self.path).path)
        if match is None:
            return None
        name, tag = match["name"], match["rest"]
        repository = self.state.repository(name)
        if repository is None:
            text = f"The repository with name '{name}' does not exist in the registry with id"
            return 404, "NAME_UNKNOWN", f"{text} '{ACCOUNT}'"
        taken = any(tag in image.image_tags for image in repository.images)
        put = self.command == "PUT" and match["kind"] == "manifests"
        if put and taken and repository.is_tag_immutable() and not _movable(repository, tag):
            text = f"The image tag '{tag}' already exists in the '{name}' repository and cannot be"
            return 400, "TAG_INVALID", f"{text} overwritten because the tag is immutable."
        return None

    def _session(self) -> UploadSession | None:
        match = _SESSION.fullmatch(urlsplit(self.path).path)
        return self.state.uploads.get(match["uuid"]) if match else None

    def _take_piece(self, session: UploadSession, fault: Fault | None) -> int:
        """What comes of a piece of a blob stays, even where the rest of it is cut."""
        start = int(self.headers.get("Content-Range", str(session.offset)).partition("-")[0])
        if start != session.offset:
            self._drain()
            text = f"First byte of the layer part is {start} instead of {session.offset}"
            return self._error(416, "BLOB_UPLOAD_INVALID", text)
        content, cut = bytearray(), False
        try:
            for part in self._body(fault):
                content += part
        except _CutError:
            cut = True
        if content:
            status, answer, body = self._forward(iter([bytes(content)]), session, len(content))
            if status != 202:
                return self._answer(status, answer, body)
            session.location = _place(answer.headers["Location"])
            session.offset += len(content)
            session.first_end = session.first_end or session.offset - 1
        if cut or (fault and fault.action == "lose"):
            raise _CutError
        own = {"Location": f"http://{self.state.host}{urlsplit(self.path).path}"}
        return self._answer(201, None, b"", {**own, "Range": f"0-{session.first_end}"})

    def _as_ecr(self, status: int, answer: http.client.HTTPResponse) -> None:
        """Change what ECR answers otherwise; keep what it remembers."""
        if self.command == "POST" and status == 202:
            place = urlsplit(answer.headers["Location"])
            uuid = place.path.rpartition("/")[2]
            self.state.uploads[uuid] = UploadSession(_place(answer.headers["Location"]))
            own = f"http://{self.state.host}{place.path}"
            answer.headers.replace_header("Location", own)
        elif "/manifests/" in self.path and self.command == "PUT" and status == 201:
            self._known_to_the_api(answer)
            del answer.headers["Location"]
        elif "/manifests/" in self.path and self.command == "GET":
            del answer.headers["Docker-Content-Digest"]

    def _forward(
        self, body: Iterator[bytes], session: UploadSession | None = None, size: int | None = None
    ) -> tuple[int, http.client.HTTPResponse, bytes]:
        url = urlsplit(self.path)
        query = "&".join(  # ECR mounts no blobs unless the account has it enabled
            part for part in url.query.split("&") if not part.startswith(("mount=", "from="))
        )
        target = f"{url.path}?{query}" if query else url.path
        if session:
            target = f"{session.location}&{query}" if query else session.location
        # Its own Host, so that the locations in the answers lead through the door again.
        headers = {"Host": self.state.host}
        for name in ("Content-Type", "Content-Range", "Content-Length", "Accept", "Range"):
            if name in self.headers:
                # Docker 28 repeats Accept.
                headers[name] = ", ".join(self.headers.get_all(name, []))
        if size is not None:
            headers["Content-Length"] = str(size)
            if session and "Content-Range" in headers:
                headers["Content-Range"] = f"{session.offset}-{session.offset + size - 1}"
        chunked = size is None and "chunked" in self.headers.get("Transfer-Encoding", "")
        upstream = http.client.HTTPConnection(self.state.upstream, timeout=60)
        with contextlib.closing(upstream):
            upstream.request(
                self.command,
                target,
                body=body if chunked or "Content-Length" in headers else None,
                headers=headers,
                encode_chunked=chunked,
            )
            answer = upstream.getresponse()
            return answer.status, answer, answer.read()

    def _body(self, fault: Fault | None) -> Iterator[bytes]:
        cut = fault.after_bytes if fault and fault.action == "reset" else 0
        corrupt = fault is not None and fault.action == "corrupt"
        for piece in self._pieces():
            if cut and self.received >= cut:
                raise _CutError
            yield piece[:-1] + bytes([piece[-1] ^ 1]) if corrupt else piece
            corrupt = False
        if fault and cut:
            self.state.faults.give_back(fault)  # it was too short to be cut

    def _drain(self) -> None:
        for _ in self._pieces():
            pass

    def _pieces(self) -> Iterator[bytes]:
        """The body, however it is sent, counted."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().strip() or b"0", 16):
                yield from self._read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self._read(int(self.headers.get("Content-Length", 0)))

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(size, 1 << 16))
            if not piece:
                raise _CutError
            self.received += len(piece)
            size -= len(piece)
            yield piece

    def _known_to_the_api(self, answer: http.client.HTTPResponse) -> None:
        match = _NAME.match(self.path)
        if match is None or self.state.repository(match["name"]) is None:
            return
        digest = answer.headers["Docker-Content-Digest"]
        upstream = http.client.HTTPConnection(self.state.upstream, timeout=60)
        with contextlib.closing(upstream):
            kind = self.headers["Content-Type"]
            path = f"/v2/{match['name']}/manifests/{digest}"
            upstream.request("GET", path, headers={"Accept": kind})
            raw = upstream.getresponse().read().decode()
        manifest = json.loads(raw)
        if subject := manifest.get("subject"):
            # As the distribution specification has it ("Listing Referrers"): type and annotations
            # of the manifest stand in its descriptor.
            entry = {"mediaType": kind, "digest": digest, "size": len(raw)}
            entry["artifactType"] = manifest.get("artifactType") or manifest["config"]["mediaType"]
            if annotations := manifest.get("annotations"):
                entry["annotations"] = annotations
            listed = self.state.referrers.setdefault((match["name"], subject["digest"]), [])
            if entry not in listed:
                listed.append(entry)
        tag = None if match["rest"].startswith("sha256:") else match["rest"]
        repository = self.state.repository(match["name"])
        again = any(
            tag in image.image_tags and image.image_manifest == raw
            for image in (repository.images if repository else ())
        )  # the API refuses that, the registry does not
        if tag is not None and not again:
            backend = ecr_backends[ACCOUNT][REGION]
            backend.put_image(match["name"], raw, tag, kind, digest)

    def _token(self) -> int:
        """The token service of Bearer registries; anyone may pull, nobody push."""
        asked = parse_qs(urlsplit(self.path).query)
        if any("push" in scope for scope in asked.get("scope", [])):
            return self._error(401, "UNAUTHORIZED", "not for you")
        body = json.dumps({"token": self.state.issue()[0], "expires_in": 60}).encode()
        return self._answer(200, None, body)

    def _error(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> int:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        own = dict(headers or {})
        if status == 401 and self.state.auth == "basic":
            own["WWW-Authenticate"] = f'Basic realm="{self.state.host}",service="ecr.amazonaws.com"'
        elif status == 401:
            match = _NAME.match(self.path)
            actions = "pull" if self.command in ("GET", "HEAD") else "pull,push"
            scope = f"repository:{match['name']}:{actions}" if match else ""
            own["WWW-Authenticate"] = (
                f'Bearer realm="{self.state.scheme}://{self.state.host}/token",'
                f'service="door",scope="{scope}"'
            )
        return self._answer(status, None, body, own)

    def _answer(
        self,
        status: int,
        upstream: http.client.HTTPResponse | None,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int = 0,
    ) -> int:
        self.send_response(status)
        for name, value in (
            upstream.getheaders() if upstream else [("Content-Type", "application/json")]
        ):
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date"):
                self.send_header(name, value)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        length = (
            upstream.getheader("Content-Length") if upstream and self.command == "HEAD" else None
        )
        self.send_header("Content-Length", length or str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body[:cut] if cut else body)
        return status


def _place(location: str) -> str:
    """The path and query of a URL: where the registry behind the door is asked."""
    url = urlsplit(location)
    return f"{url.path}?{url.query}"


def _movable(repository: Repository, tag: str) -> bool:
    filters = repository.image_tag_mutability_exclusion_filters or []
    return any(re.fullmatch(f["filter"].replace("*", ".*"), tag) for f in filters)
