"""Uploading a blob so that a cut costs one piece and not the whole: resume by upload offset."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

import requests

from slipway.registry.distribution.registry_client import RegistryClient
from slipway.registry.distribution.transport import RETRIED, transport_reason
from slipway.registry.errors import refusal_error, registry_reply, unavailable_error

PIECE = 8 << 20
"""Bytes in one request: what one cut can cost at most."""


def upload_blob(
    registry: RegistryClient,
    repository: str,
    digest: str,
    source: BinaryIO,
    size: int,
    *,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> bool:
    """Put `size` bytes of a seekable file into a repository. False: it was there already.

    After a reset the registry is asked how much it has, and the upload goes on from there
    (OCI distribution specification, "Pushing a blob in chunks"). `on_bytes` hears the offset.
    Content that the registry finds damaged is sent once again. Raises RegistryError's subclasses.
    """
    if registry.has_blob(repository, digest):
        return False
    upload = _Upload(registry, repository, digest)
    for last in (False, True):
        upload.send(source, size, on_bytes)
        response = upload.finish()
        if response.status_code == 201 or registry.has_blob(repository, digest):
            return True
        if last or registry_reply(response.content).code not in (
            "DIGEST_INVALID",
            "BLOB_UPLOAD_UNKNOWN",
        ):
            where = registry.name(repository, digest)
            raise refusal_error(response.status_code, response.content, where=where)
    raise AssertionError("the loop returns or raises")


class _Upload:
    """One upload session: the location that the registry gave last."""

    def __init__(self, registry: RegistryClient, repository: str, digest: str) -> None:
        self._registry = registry
        self._repository = repository
        self._digest = digest
        self._location = ""

    def send(self, source: BinaryIO, size: int, on_bytes: Callable[[int], None]) -> None:
        """All bytes, from a new session on."""
        self._begin()
        offset = failures = 0
        while offset < size:
            source.seek(offset)
            piece = source.read(min(PIECE, size - offset))
            trouble = self._piece(piece, offset)
            if trouble is None:
                offset += len(piece)
                failures = 0
            else:
                failures += 1
                if failures >= self._registry.attempts:
                    where = self._registry.name(self._repository, self._digest)
                    raise unavailable_error(where, trouble)
                self._registry.pause(failures)
                offset, before = self._offset(), offset
                failures = 0 if offset > before else failures
            on_bytes(offset)

    def finish(self) -> requests.Response:
        """Close the session under the digest."""
        return self._request("PUT", self._location, params={"digest": self._digest})

    def _begin(self) -> None:
        response = self._request("POST", "blobs/uploads/")
        if response.status_code != 202:
            where = self._registry.name(self._repository)
            raise refusal_error(response.status_code, response.content, where=where)
        self._location = response.headers["Location"]

    def _piece(self, piece: bytes, offset: int) -> str | None:
        """Send one piece. None when the registry has all of it, else what went wrong."""
        try:
            response = self._registry.request(
                "PATCH",
                self._repository,
                self._location,
                access="pull,push",
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{offset}-{offset + len(piece) - 1}",
                },
                body=lambda: piece,
                patient=False,
            )
        except requests.exceptions.RequestException as error:
            return transport_reason(error)
        if response.status_code in (202, 204):
            self._location = response.headers.get("Location", self._location)
            return None
        if response.status_code in RETRIED or response.status_code in (404, 416):
            return f"{response.status_code} {response.reason}"
        where = self._registry.name(self._repository, self._digest)
        raise refusal_error(response.status_code, response.content, where=where)

    def _offset(self) -> int:
        """How much the registry has, in the session or, where that is lost, in a new one."""
        response = self._request("GET", self._location)
        received = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("Range", ""))
        if response.status_code == 204 and received and int(received[1]) > 0:
            self._location = response.headers.get("Location", self._location)
            return int(received[1]) + 1
        # "0-0" is said of one byte and of none (distribution/distribution#2363), and Distribution
        # 2.8 drops a session whose piece arrived in part (distribution/distribution#3755).
        self._begin()
        return 0

    def _request(
        self, method: str, path: str, params: dict[str, str] | None = None
    ) -> requests.Response:
        return self._registry.request(
            method, self._repository, path, access="pull,push", params=params
        )
