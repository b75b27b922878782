"""Reading a blob to its end over connections that break, and proof that it is the right one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator

import requests

from slipway.registry.errors import ManifestError, refusal, unavailable
from slipway.registry.transport import reason

_PIECE = 1 << 20


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
                raise refusal(response.status_code, response.content, where=where)
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
                    raise unavailable(where, reason(error)) from error
        if not whole:
            pause(cuts)
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise ManifestError(f"the content's digest is sha256:{hasher.hexdigest()}", where=where)
