"""Aliases: tags that move from one build to another, by manifest alone, with a journal.

The journal of an alias is a row of OCI artefacts beside the image, one a move, under the tags
``journal-ALIAS-00001`` and so on. Where tags can be immutable two promoters cannot both have the
next number: one wins and the other is told. Elsewhere each reads back what it has put, which leaves
a moment in which the later one wins unseen by the first.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from slipway.core import UsageError
from slipway.registry.distribution import Repository, upload_blob
from slipway.registry.errors import (
    ImageMissingError,
    ImmutableTagError,
    ManifestError,
    RegistryError,
)
from slipway.registry.manifests import OCI_MANIFEST, Manifest, digest_of, is_digest, parse_json

JOURNAL_TYPE = "application/vnd.slipway.alias-move.v1+json"
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_BUILD_TAG = re.compile(r".*-[0-9a-f]{12}(-soci)?|journal-.*|slipway-staging-.*|ztoc-.*")
_MOST_MOVES = 99_999
_MOST_PATTERNS = 5


@dataclass(frozen=True)
class AliasMove:
    """One entry of an alias's journal. `before` is None where the alias was new."""

    number: int
    action: Literal["promote", "rollback"]
    before: str | None
    after: str
    who: str
    when: str  # RFC 3339


@dataclass(frozen=True)
class AliasChange:
    """What a promotion does, or did. `moved` False: the alias names that image already."""

    alias: str
    before: str | None
    after: str
    moved: bool


@dataclass(frozen=True)
class Author:
    """Who moves an alias, and when (RFC 3339): what the journal keeps."""

    who: str
    when: str


def alias_patterns(aliases: Sequence[str]) -> tuple[str, ...]:
    """Wildcards (ECR's, at most 5) that fit these aliases and no build's tag, commonest first.

    A build's tag ends in twelve hexadecimal digits after a dash, so an ending of a platform's name
    (``*-sagemaker``) or of a version's last part (``*.8``) is never a build's.
    """
    counts: dict[str, int] = {}
    for alias in aliases:
        last = alias.rpartition("-")[2]
        dot, part = last.rpartition(".")[1:]
        pattern = f"*.{part}" if dot else f"*-{last}"
        counts[pattern] = counts.get(pattern, 0) + 1
    ordered = sorted(counts, key=lambda pattern: (-counts[pattern], pattern))
    return tuple(ordered[:_MOST_PATTERNS])


def check_alias(alias: str) -> None:
    """Raises UsageError for what can be no alias: a build's own tag, or a tag of the journal."""
    if not _ALIAS.fullmatch(alias) or _BUILD_TAG.fullmatch(alias):
        raise UsageError(
            f"{alias!r} cannot be an alias",
            cure="The tag of a build never moves; `./inv matrix` names an image's aliases.",
        )


def plan_promotion(repository: Repository, reference: str, alias: str) -> AliasChange:
    """What promoting an image (tag or digest) would do; changes nothing."""
    check_alias(alias)
    image = repository.client.manifest(repository.path, reference)
    before = repository.client.find_digest(repository.path, alias)
    return AliasChange(alias, before, image.digest, before != image.digest)


def promote_alias(
    repository: Repository, reference: str, alias: str, author: Author
) -> AliasChange:
    """Have an alias name an image that the repository has; nothing but a manifest is sent.

    Raises ImmutableTagError where another promoter was faster or tags do not move there,
    ImageMissingError where the image is not in the repository.
    """
    change = plan_promotion(repository, reference, alias)
    if change.moved:
        _move(repository, change, "promote", author)
    return change


def rollback_alias(repository: Repository, alias: str, author: Author) -> AliasChange:
    """Have an alias name what it named before its last promotion; again, one step further back.

    Raises RegistryError where the journal knows of nothing before.
    """
    check_alias(alias)
    named = promoted_digests(alias_journal(repository, alias))
    if len(named) < 2:
        raise RegistryError(
            "the journal of this alias knows of nothing before",
            where=repository.name(alias),
            cure="`inv promote NAME ALIAS` has it name a certain build.",
        )
    before = repository.client.find_digest(repository.path, alias)
    change = AliasChange(alias, before, named[-2], before != named[-2])
    repository.client.manifest(repository.path, named[-2])  # it may have been removed meanwhile
    # Journalled in any case: a promotion that was killed before the alias moved is undone by this.
    _move(repository, change, "rollback", author)
    return change


def promoted_digests(moves: Sequence[AliasMove]) -> list[str]:
    """What an alias has named, oldest first, without what was rolled back since."""
    named: list[str] = []
    for move in moves:
        if move.action == "promote" and move.before:
            # A promotion that was ended before the alias moved is known by what the next one found.
            _go_back(named, move.before)
        if move.action == "rollback":
            _go_back(named, move.after)
        elif named[-1:] != [move.after]:
            named.append(move.after)
    return named


def _go_back(named: list[str], digest: str) -> None:
    """Have the list end in a digest: at its last place, else as one more."""
    if digest in named:
        del named[len(named) - named[::-1].index(digest) :]
    else:
        named.append(digest)


def alias_journal(repository: Repository, alias: str) -> list[AliasMove]:
    """All moves of an alias, oldest first. Raises ManifestError for an entry that is none."""
    check_alias(alias)
    last = _last_number(repository, alias)
    return [_read_move(repository, alias, number) for number in range(1, last + 1)]


def _journal_tag(alias: str, number: int) -> str:
    return f"journal-{alias}-{number:05}"


def _last_number(repository: Repository, alias: str) -> int:
    """Numbers have no gaps: doubled until one is missing, then halved in between."""

    def is_there(number: int) -> bool:
        tag = _journal_tag(alias, number)
        return repository.client.head(repository.path, tag) is not None

    below, above = 0, 1
    while above <= _MOST_MOVES and is_there(above):
        below, above = above, above * 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if is_there(middle) else (below, middle)
    return below


def _read_move(repository: Repository, alias: str, number: int) -> AliasMove:
    tag = _journal_tag(alias, number)
    where = repository.name(tag)
    manifest = repository.client.manifest(repository.path, tag)
    part = manifest.json()["config"]
    raw = repository.client.blob(repository.path, part["digest"], part["size"])
    content = parse_json(raw, "the journal's entry", where)
    try:
        move = AliasMove(**content)
    except TypeError as error:
        raise ManifestError("this is no entry of a journal", where=where) from error
    usable = (
        move.number == number
        and move.action in ("promote", "rollback")
        and is_digest(move.after)
        and (move.before is None or is_digest(move.before))
        and isinstance(move.who, str)
        and isinstance(move.when, str)
    )
    if not usable:
        raise ManifestError("this is no entry of a journal", where=where)
    return move


def _move(
    repository: Repository,
    change: AliasChange,
    action: Literal["promote", "rollback"],
    author: Author,
) -> None:
    """Journal first, then the alias: what is not journalled never happened."""
    client, path = repository.client, repository.path
    image = client.manifest(path, change.after)
    number = _last_number(repository, change.alias) + 1
    move = AliasMove(number, action, change.before, change.after, author.who, author.when)
    _write_move(repository, change.alias, move)
    client.put_manifest(path, change.alias, image)
    stands = client.head(path, change.alias)
    if stands != change.after:
        raise ImmutableTagError(
            f"another promoter was faster: the alias names {stands}",
            where=repository.name(change.alias),
            cure="Look at what it names now (`inv registry.show`), then promote again if need be.",
        )


def _write_move(repository: Repository, alias: str, move: AliasMove) -> None:
    client, path = repository.client, repository.path
    tag = _journal_tag(alias, move.number)
    raw = json.dumps(asdict(move), sort_keys=True).encode()
    upload_blob(client, path, digest_of(raw), io.BytesIO(raw), len(raw))
    # ECR and Distribution want one layer: the entry itself, once more
    # (opencontainers/image-spec:manifest.md, "Guidelines for Artifact Usage").
    part = {"mediaType": JOURNAL_TYPE, "digest": digest_of(raw), "size": len(raw)}
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": JOURNAL_TYPE,
        "config": part,
        "layers": [part],
    }
    encoded = json.dumps(content, sort_keys=True).encode()
    entry = Manifest(OCI_MANIFEST, digest_of(encoded), encoded)
    faster = ImmutableTagError(
        f"another promoter was faster: move {move.number} of this alias is not ours",
        where=repository.name(alias),
        cure="Look at what it names now (`inv registry.show`), then promote again if need be.",
    )
    try:
        client.put_manifest(path, tag, entry)
        stands = client.head(path, tag)
    except ImmutableTagError:
        # An answer that was lost on the way makes the second try meet our own entry.
        stands = client.head(path, tag)
    except ImageMissingError as error:
        raise faster from error
    if stands != entry.digest:
        raise faster
