"""What the tags of a repository name, each asked for by itself."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from slipway.core import EntryFaults
from slipway.registry.distribution.blob_transfer import Repository
from slipway.registry.errors import ENTRY_FAULTS

_ASKED_AT_ONCE = 8


def tag_digests(
    repository: Repository, tags: Sequence[str], faults: EntryFaults
) -> dict[str, str | None]:
    """The digest of each tag, None for one that is gone. What cannot be read is left out, its
    fault kept: Distribution before 3.0 answers 500 for a tag that it was killed at writing."""
    digests: dict[str, str | None] = {}

    def ask(tag: str) -> None:
        with faults.skip(*ENTRY_FAULTS):
            digests[tag] = repository.client.head(repository.path, tag)

    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        list(pool.map(ask, tags))
    return digests
