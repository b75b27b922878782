"""A client of the OCI distribution API: manifests and blobs of one registry host."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, cast

import requests

from slipway.core import CredentialsFor
from slipway.registry.distribution.auth import TRIES, RegistryLogin, is_expired
from slipway.registry.distribution.retry import RetryPolicy
from slipway.registry.distribution.transport import RegistryTransport, transport_reason
from slipway.registry.errors import (
    ImageMissingError,
    ManifestError,
    refusal_error,
    unavailable_error,
)
from slipway.registry.hosts import api_repository
from slipway.registry.manifests import ACCEPTED, Manifest, choose_manifest, digest_of, media_type_of

_PIECE = 1 << 20

Access = Literal["pull", "pull,push"]
SMALL_BLOB = 8 << 20  # bytes; image configurations stay far below


class RegistryClient:
    """One registry host (Distribution, ECR, public.ecr.aws, Docker Hub).

    Busy and breaking servers are met with patience (`policy`); a refused login with fresh
    credentials, once. All methods raise RegistryError's subclasses. Safe to share by threads.
    """

    def __init__(
        self,
        host: str,
        credentials: CredentialsFor,
        *,
        insecure: bool | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.host = host
        self._transport = RegistryTransport(host, insecure=insecure, policy=policy)
        self._login = RegistryLogin(self._transport, credentials)
        self.attempts = self._transport.policy.attempts
        self.pause = self._transport.pause

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest of a tag or digest, its digest checked.

        Raises ImageMissingError or RepositoryMissingError where there is none, ManifestError where
        it is not what it says.
        """
        where = self.name(repository, reference)
        response = self.request("GET", repository, f"manifests/{reference}", headers=_accept())
        if response.status_code != 200:
            raise refusal_error(response.status_code, response.content, where=where)
        raw = response.content
        digest = digest_of(raw)
        said = response.headers.get("Docker-Content-Digest", digest)
        wanted = reference if reference.startswith("sha256:") else digest
        if not digest == said == wanted:
            raise ManifestError(f"the manifest's digest is {digest}, not {said}", where=where)
        return Manifest(media_type_of(raw, response.headers.get("Content-Type", "")), digest, raw)

    def image(
        self, repository: str, reference: str, *, os: str = "linux", architecture: str = "amd64"
    ) -> Manifest:
        """The manifest of one platform's image: out of the index where the reference is one."""
        found = self.manifest(repository, reference)
        if not found.is_index:
            return found
        return self.manifest(repository, choose_manifest(found, os=os, architecture=architecture))

    def head(self, repository: str, reference: str) -> str | None:
        """Digest of a tag, or None where the repository has no such tag (or does not exist)."""
        response = self.request("HEAD", repository, f"manifests/{reference}", headers=_accept())
        if response.status_code == 404:
            return None
        digest = response.headers.get("Docker-Content-Digest")
        if response.status_code == 200 and digest:
            return digest
        # An answer to HEAD has no body: GET tells why (and renews a login that has expired).
        found = find_manifest(self, repository, reference)
        return found.digest if found else None

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> str:
        """Store a manifest under a tag or its digest. Returns the digest; putting twice is fine.

        Raises ImmutableTagError where the tag is another image's.
        """
        response = self.request(
            "PUT",
            repository,
            f"manifests/{reference}",
            access="pull,push",
            headers={"Content-Type": manifest.media_type},
            body=lambda: manifest.raw,
        )
        where = self.name(repository, reference)
        if response.status_code != 201:
            raise refusal_error(response.status_code, response.content, where=where)
        stored = response.headers.get("Docker-Content-Digest", manifest.digest)
        if stored != manifest.digest:
            raise ManifestError(f"stored as {stored}, sent as {manifest.digest}", where=where)
        return stored

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has a blob."""
        path = f"blobs/{digest}"
        response = self.request("HEAD", repository, path)
        if response.status_code not in (200, 404):  # GET tells why, as in `head`
            one_byte = {"Range": "bytes=0-0"}
            response = self.request("GET", repository, path, headers=one_byte, stream=True)
        with contextlib.closing(response):
            if response.status_code in (200, 206, 404):
                return response.status_code != 404
            where = self.name(repository, digest)
            raise refusal_error(response.status_code, response.content, where=where)

    def blob(self, repository: str, digest: str) -> bytes:
        """A small blob (an image's configuration), its digest checked."""
        data = bytearray()
        for piece in self.blob_stream(repository, digest):
            data += piece
            if len(data) > SMALL_BLOB:
                raise ManifestError(
                    "too large for a configuration", where=self.name(repository, digest)
                )
        return bytes(data)

    def config(self, repository: str, manifest: Manifest) -> dict[str, Any]:
        """The image configuration that a manifest names (OCI image specification)."""
        raw = self.blob(repository, manifest.json()["config"]["digest"])
        return cast("dict[str, Any]", json.loads(raw))

    def blob_stream(self, repository: str, digest: str) -> Iterator[bytes]:
        """A blob in pieces. After a cut it goes on where it stopped.

        The digest is checked at the end: use nothing of it before the iterator has ended. Raises
        ManifestError where it does not fit.
        """

        def rest(offset: int) -> requests.Response:
            return self.request(
                "GET",
                repository,
                f"blobs/{digest}",
                headers={"Range": f"bytes={offset}-"} if offset else {},
                stream=True,
            )

        return read_blob(rest, digest, self.name(repository, digest), self.attempts, self.pause)

    def request(
        self,
        method: str,
        repository: str,
        path: str,
        *,
        access: Access = "pull",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Callable[[], bytes] | None = None,
        stream: bool = False,
        patient: bool = True,
    ) -> requests.Response:
        """An answer under /v2/<repository>/<path>, logged in as the registry asks.

        `path` may also be a whole URL that the registry gave (an upload's location). `patient`
        False: one try, and requests' own exceptions. Status codes are the caller's to judge.
        """
        name = api_repository(self.host, repository)
        url = path if path.startswith(("/", "http")) else f"/v2/{name}/{path}"
        scope = f"repository:{name}:{access}"

        def send() -> requests.Response:
            for _ in range(TRIES):
                sent = self._login.header(scope)
                response = self._transport.once(
                    method,
                    url,
                    authorization=sent,
                    headers=headers,
                    params=params,
                    body=body() if body else None,
                    stream=stream,
                )
                if response.status_code != 401 and not is_expired(response):
                    return response
                with contextlib.closing(response):
                    self._login.answer(response, scope, sent)
            raise self._login.refused()

        return self._transport.patiently(send, self.name(repository)) if patient else send()

    def name(self, repository: str, reference: str | None = None) -> str:
        """host/repository, with :tag or @digest, for messages."""
        if reference is None:
            return f"{self.host}/{repository}"
        return f"{self.host}/{repository}{'@' if ':' in reference else ':'}{reference}"


def find_manifest(registry: RegistryClient, repository: str, reference: str) -> Manifest | None:
    """The manifest, or None where the repository does not have it."""
    try:
        return registry.manifest(repository, reference)
    except ImageMissingError:
        return None


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(ACCEPTED)}


def read_blob(
    rest: Callable[[int], requests.Response],
    digest: str,
    where: str,
    attempts: int,
    pause: Callable[[int], None],
) -> Iterator[bytes]:
    """A blob in pieces; `rest` asks for it from an offset on.

    `attempts` cuts without one byte in between are the end of patience, `pause` waits after a cut.
    Raises ManifestError at the end where the content has another digest.
    """
    hasher = hashlib.sha256()
    offset = cuts = 0
    whole = False
    while not whole:
        with contextlib.closing(rest(offset)) as response:
            if response.status_code not in (200, 206):
                raise refusal_error(response.status_code, response.content, where=where)
            skip = offset if response.status_code == 200 else 0  # a server without ranges
            try:
                for piece in response.iter_content(_PIECE):
                    fresh = piece[skip:]
                    skip -= min(skip, len(piece))
                    if fresh:
                        hasher.update(fresh)
                        offset += len(fresh)
                        cuts = 0
                        yield fresh
                whole = True
            except requests.exceptions.RequestException as error:
                cuts += 1
                if cuts >= attempts:
                    raise unavailable_error(where, transport_reason(error)) from error
        if not whole:
            pause(cuts)
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise ManifestError(f"the content's digest is sha256:{hasher.hexdigest()}", where=where)
