"""A client of the OCI distribution API: manifests and blobs of one registry host."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import requests

from slipway.core import CredentialsFor, OnEvent, silent
from slipway.registry.distribution.auth import TRIES, RegistryLogin, is_expired
from slipway.registry.distribution.blob_read import BlobFacts, read_blob
from slipway.registry.distribution.retry import RetryPolicy
from slipway.registry.distribution.transport import RegistryTransport
from slipway.registry.errors import (
    ImageMissingError,
    ManifestError,
    RegistryError,
    ServerFaultError,
    refusal_error,
    registry_reply,
)
from slipway.registry.hosts import api_repository
from slipway.registry.manifests import (
    ACCEPTED,
    Manifest,
    check_manifest,
    choose_manifest,
    digest_of,
    is_digest,
    media_type_of,
    parse_config,
    parse_json,
    referrers_tag,
)

Access = Literal["pull", "pull,push", "delete,pull"]
MOST_PAGES = 200
_PAGE = 1000  # tags
_BLOB_TROUBLE = {"DIGEST_INVALID", "BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"}
"""What a registry may say of a manifest whose blobs have just been put, and which passes. A
manifest's digest is ours and right; Distribution before 3.0 calls one invalid that names a blob
which somebody else puts at this moment: it empties the file that links the blob to the repository,
and then writes it anew. ECR may know a blob some hundred milliseconds after it has taken it
(clowdhaus/ocync#104)."""
_MOST_TAGS = MOST_PAGES * _PAGE  # ECR's largest repositories have 100,000 images
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
SMALL_BLOB = 8 << 20
"""Bytes of a blob that is read into memory. Image configurations stay far below."""


class RegistryClient:
    """One registry host (Distribution, ECR, public.ecr.aws, Docker Hub).

    Busy and breaking servers are met with patience (`policy`); a refused login with fresh
    credentials, once. All methods raise RegistryError's subclasses. Safe to share by threads.
    `uploads` is the folder that remembers how far uploads have come, for a later run.
    """

    def __init__(
        self,
        host: str,
        credentials: CredentialsFor,
        *,
        insecure: bool | None = None,
        policy: RetryPolicy | None = None,
        on_event: OnEvent = silent,
        uploads: Path | None = None,
    ) -> None:
        self.host = host
        self.uploads = uploads
        self._transport = RegistryTransport(
            host, insecure=insecure, policy=policy, on_event=on_event
        )
        self._login = RegistryLogin(self._transport, credentials)
        self.attempts = self._transport.policy.attempts
        self.pause = self._transport.pause
        self.tell = self._transport.tell

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
        stated = response.headers.get("Docker-Content-Digest", digest)
        wanted = reference if reference.startswith("sha256:") else stated
        if not digest == stated == wanted:
            raise ManifestError(f"the manifest's digest is {digest}, not {wanted}", where=where)
        kind = media_type_of(raw, response.headers.get("Content-Type", ""))
        manifest = Manifest(kind, digest, raw)
        check_manifest(manifest, where)
        return manifest

    def image(
        self, repository: str, reference: str, *, os: str = "linux", architecture: str = "amd64"
    ) -> Manifest:
        """The manifest of one platform's image: out of the index where the reference is one."""
        manifest = self.manifest(repository, reference)
        if not manifest.is_index:
            return manifest
        return self.manifest(
            repository, choose_manifest(manifest, os=os, architecture=architecture)
        )

    def head(self, repository: str, reference: str) -> str | None:
        """Digest of a tag, or None where the repository has no such tag (or does not exist)."""
        response = self.request("HEAD", repository, f"manifests/{reference}", headers=_accept())
        if response.status_code == 404:
            return None
        digest = response.headers.get("Docker-Content-Digest")
        if response.status_code == 200 and is_digest(digest):
            return digest
        # An answer to HEAD has no body: GET tells why (and renews a login that has expired).
        manifest = find_manifest(self, repository, reference)
        return manifest.digest if manifest else None

    def find_digest(self, repository: str, reference: str) -> str | None:
        """As `head`, and None where the registry cannot read what it has under the tag.

        Distribution before 3.0 that is killed while it writes a tag has an empty file of it then,
        and answers 500 to whoever asks until the tag is put again. Raises RegistryError where the
        registry answers so to everything.
        """
        try:
            return self.head(repository, reference)
        except ServerFaultError as fault:
            self.tags(repository)  # raises where it cannot even say that
            name = self.name(repository, reference)
            self.tell("heal", f"{name}: {fault.what}; it is put anew")
            return None

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository, sorted; none where there is no such repository.

        Raises RegistryError for more than any repository has: a list that ends early would be taken
        for a whole one.
        """
        names: set[str] = set()
        where = self.name(repository)
        for response in self._pages(repository, f"tags/list?n={_PAGE}", "tags"):
            if response.status_code == 404:
                break
            if response.status_code != 200:
                raise refusal_error(response.status_code, response.content, where=where)
            listed = parse_json(response.content, "the list of tags", where).get("tags") or []
            if not isinstance(listed, list):
                raise ManifestError("the list of tags is not one", where=where)
            names |= {tag for tag in listed if isinstance(tag, str) and _TAG.fullmatch(tag)}
            if len(names) > _MOST_TAGS:
                raise self._no_end(repository, "tags")
        return sorted(names)

    def _pages(self, repository: str, path: str, what: str) -> Iterator[requests.Response]:
        """A list that comes in pages (OCI distribution specification, "Listing Tags").

        Raises RegistryError for one without end.
        """
        for _ in range(MOST_PAGES):
            response = self.request("GET", repository, path)
            yield response
            following = response.links.get("next", {}).get("url")
            if not following:
                return
            path = self._transport.resolve(response.url, following)
        raise self._no_end(repository, what)

    def _no_end(self, repository: str, what: str) -> RegistryError:
        text = f"the list of {what} has no end within {MOST_PAGES} pages of {_PAGE} {what}"
        return RegistryError(text, where=self.name(repository))

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> str:
        """Store a manifest under a tag or its digest. Returns the digest; putting twice is fine.

        Raises ImmutableTagError where the tag is another image's.
        """
        where = self.name(repository, reference)
        failures = 0
        while True:
            response = self.request(
                "PUT",
                repository,
                f"manifests/{reference}",
                access="pull,push",
                headers={"Content-Type": manifest.media_type},
                body=lambda: manifest.raw,
            )
            if response.status_code == 201:
                break
            failures += 1
            failure = refusal_error(response.status_code, response.content, where=where)
            passing = registry_reply(response.content).code in _BLOB_TROUBLE
            if passing and failures >= self.attempts:
                raise type(failure)(
                    f"{failure.what}: it cannot read all of what it has of the image's blobs",
                    where=where,
                    cure="Run it again: what it cannot read is sent anew.",
                ) from failure
            if not passing:
                raise failure
            self.pause(failures)
        stored = response.headers.get("Docker-Content-Digest", manifest.digest)
        if stored != manifest.digest:
            raise ManifestError(f"stored as {stored}, sent as {manifest.digest}", where=where)
        return stored

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Remove a manifest with all tags that name it. False: it was not there."""
        path = f"manifests/{digest}"
        response = self.request("DELETE", repository, path, access="delete,pull")
        if response.status_code in (202, 404):
            return response.status_code == 202
        where = self.name(repository, digest)
        if response.status_code == 405:
            raise RegistryError(
                "this registry is set up to remove nothing",
                where=where,
                cure="The registry on this machine: `./inv registry.down`, `./inv registry.up`. "
                "Distribution elsewhere: storage.delete.enabled in its configuration.",
            )
        raise refusal_error(response.status_code, response.content, where=where)

    def referrers(self, repository: str, digest: str) -> list[str]:
        """Digests of the manifests that name this one as their subject.

        Registries without the referrers API keep them as an index under a tag
        (OCI distribution specification, "Referrers Tag Schema").
        """
        found = self.find_referrers(repository, digest)
        if found is not None:
            return found
        index = find_manifest(self, repository, referrers_tag(digest))
        return referrer_digests(index.json(), self.name(repository, digest)) if index else []

    def find_referrers(self, repository: str, digest: str) -> list[str] | None:
        """What the registry itself finds; None where it has no referrers API.

        A manifest may be among it only a moment after it was put.
        """
        digests: list[str] = []
        where = self.name(repository, digest)
        for number, page in enumerate(self._pages(repository, f"referrers/{digest}", "referrers")):
            if page.status_code != 200 and not number:
                return None
            if page.status_code != 200:
                raise refusal_error(page.status_code, page.content, where=where)
            listed = parse_json(page.content, "the list of referrers", where)
            digests += referrer_digests(listed, where)
        return digests

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

    def blob(self, repository: str, digest: str, size: int | None = None) -> bytes:
        """A small blob (an image's configuration), its digest and, where given, size checked."""
        where = self.name(repository, digest)
        if size is not None and size > SMALL_BLOB:
            raise ManifestError("too large for a configuration", where=where)
        data = bytearray()
        for piece in self.blob_stream(repository, digest, size):
            data += piece
            if len(data) > SMALL_BLOB:
                raise ManifestError("too large for a configuration", where=where)
        return bytes(data)

    def config(self, repository: str, manifest: Manifest) -> dict[str, Any]:
        """The image configuration that a manifest names (OCI image specification)."""
        part = manifest.json()["config"]
        raw = self.blob(repository, part["digest"], int(part["size"]))
        return parse_config(raw, manifest, self.name(repository, manifest.digest))

    def blob_stream(self, repository: str, digest: str, size: int | None = None) -> Iterator[bytes]:
        """A blob in pieces. After a cut it goes on where it stopped.

        The digest is checked at the end: use nothing of it before the iterator has ended. `size`,
        where a manifest has said it, is the most that is read. Raises ManifestError where the
        content does not fit.
        """

        def rest(offset: int) -> requests.Response:
            return self.request(
                "GET",
                repository,
                f"blobs/{digest}",
                headers={"Range": f"bytes={offset}-"} if offset else {},
                stream=True,
            )

        where = self.name(repository, digest)
        return read_blob(rest, BlobFacts(digest, where, size), self.attempts, self.pause)

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
        also_from: str | None = None,
    ) -> requests.Response:
        """An answer under /v2/<repository>/<path>, logged in as the registry asks.

        `path` may also be a whole URL that the registry gave (an upload's location, resolved): the
        login goes there only where it is the registry's own. `patient` False: one try, and
        requests' own exceptions. `also_from`: a repository that the login must let us read as well.
        Status codes are the caller's to judge.
        """
        name = api_repository(self.host, repository)
        url = path if "://" in path else f"/v2/{name}/{path}"
        own = "://" not in path or self._transport.is_own(path)
        scope = f"repository:{name}:{access}"
        if also_from is not None:
            scope += f" repository:{api_repository(self.host, also_from)}:pull"

        def send() -> requests.Response:
            for _ in range(TRIES):
                sent = self._login.header(scope) if own else None
                response = self._transport.once(
                    method,
                    url,
                    authorization=sent,
                    headers=headers,
                    params=params,
                    body=body() if body else None,
                    stream=stream,
                )
                if not own or (response.status_code != 401 and not is_expired(response)):
                    return response
                with contextlib.closing(response):
                    self._login.answer(response, scope, sent)
            raise self._login.refused()

        if not patient:
            return send()
        kind, _, reference = path.partition("/")
        asked_for = reference if kind == "manifests" or is_digest(reference) else None
        return self._transport.patiently(send, self.name(repository, asked_for))

    def location(self, response: requests.Response, repository: str, path: str = "") -> str:
        """The URL that an answer names as the place to go on, looked at. Raises RegistryError."""
        location = response.headers.get("Location")
        if not location:
            raise RegistryError("the answer names no location", where=self.name(repository))
        name = api_repository(self.host, repository)
        return self._transport.resolve(path or f"/v2/{name}/blobs/uploads/", location)

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


def referrer_digests(listed: Mapping[str, Any], where: str) -> list[str]:
    """Digests in an index of referrers. Raises ManifestError where it is none."""
    entries = listed.get("manifests")
    if not isinstance(entries, list):
        raise ManifestError("the list of referrers is not one", where=where)
    digests = [entry.get("digest") for entry in entries if isinstance(entry, dict)]
    if not all(map(is_digest, digests)):
        raise ManifestError("a referrer has no sha256 digest", where=where)
    return [str(digest) for digest in digests]


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(ACCEPTED)}
