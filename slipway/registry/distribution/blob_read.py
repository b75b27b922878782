"""Reading a blob: gone on with after a cut, its size and digest checked on the way."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import requests

from slipway.registry.distribution.answers import raw_pieces
from slipway.registry.distribution.http_boundary import (
    http_failure,
    storage_failure,
    storage_refusal,
)
from slipway.registry.errors import ManifestError

_PIECE = 1 << 20


@dataclass(frozen=True)
class BlobFacts:
    """What is known of a blob before it is read. `size` None: nobody has said it."""

    digest: str
    where: str
    size: int | None = None


def read_blob(
    rest: Callable[[int], requests.Response],
    facts: BlobFacts,
    attempts: int,
    pause: Callable[[int], None],
) -> Iterator[bytes]:
    """A blob in pieces; `rest` asks for it from an offset on.

    `attempts` cuts without one byte in between are the end of patience, `pause` waits after a cut.
    Raises ManifestError at the end where the content has another digest, and at once where it is
    longer than it may be.
    """
    hasher = hashlib.sha256()
    offset = cuts = 0
    whole = False
    while not whole:
        with contextlib.closing(rest(offset)) as response:
            if response.status_code not in (200, 206):
                raise storage_refusal(response, facts.where)
            if response.status_code == 206:
                _check_start(response, offset)
            skip = offset if response.status_code == 200 else 0  # a server without ranges
            try:
                for piece in raw_pieces(response, _PIECE):
                    fresh = piece[skip:]
                    skip -= min(skip, len(piece))
                    if not fresh:
                        continue
                    offset += len(fresh)
                    if facts.size is not None and offset > facts.size:
                        raise ManifestError(
                            f"the content is longer than the {facts.size} bytes that its manifest "
                            "says",
                            where=facts.where,
                        )
                    hasher.update(fresh)
                    cuts = 0
                    yield fresh
                whole = facts.size is None or offset == facts.size
                cuts += not whole  # an answer without a length that ends early is a cut as well
                if cuts >= attempts:
                    break
            except requests.exceptions.RequestException as error:
                # All of it came, and only then the cut: nothing is left to ask for.
                whole = facts.size is not None and offset == facts.size
                cuts += 1
                if cuts >= attempts and not whole:
                    url = response.url
                    kind = storage_failure if response.history else http_failure
                    raise kind(error, facts.where, url) from error
        if not whole:
            pause(cuts)
    if facts.size is not None and offset != facts.size:
        raise ManifestError(
            f"the content has {offset} bytes, not the {facts.size} that its manifest says",
            where=facts.where,
        )
    digest = f"sha256:{hasher.hexdigest()}"
    if digest != facts.digest:
        raise ManifestError(f"the content's digest is {digest}", where=facts.where)


def _check_start(response: requests.Response, offset: int) -> None:
    """Raises ManifestError where a partial answer is not the part that was asked for."""
    stated = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if stated and int(stated[1]) != offset:
        raise ManifestError(
            f"asked from byte {offset} on, the registry answers from {stated[1]} on",
            where=response.url.partition("?")[0],
        )
