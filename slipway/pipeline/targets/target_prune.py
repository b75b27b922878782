"""Builds in the target that nothing needs any more: which they are, and their removal."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.core import EntryFaults, Event, OnEvent
from slipway.matrix import image_tag, repository_name, select_images
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.settings import Settings
from slipway.pipeline.targets.aliases import open_target
from slipway.registry import (
    ENTRY_FAULTS,
    ManifestError,
    Repository,
    Target,
    alias_journal,
    promoted_digests,
    referrers_tag,
    remove_images,
    tag_digests,
)
from slipway.soci import SUFFIX

_JOURNAL = re.compile(r"journal-(.+)-\d{5}")
_ROLLBACKS = 2  # what an alias names, and what one rollback would have it name


@dataclass(frozen=True)
class OldBuild:
    """A build that can go: the tags that name it, and what refers to it (bills of materials)."""

    repository: str
    tags: tuple[str, ...]
    digest: str
    referrers: tuple[str, ...]


def prune_target(
    root: Path, settings: Settings, names: Sequence[str], faults: EntryFaults, *, apply: bool
) -> list[OldBuild]:
    """Old builds of the images named (all by default) in the target; removed where `apply`.

    A build stays where it is the current one of its image, where any tag that is no build's names
    it, and where an alias named it before its last promotion, for a rollback. A repository stays
    as it is where one of these cannot be read; what cannot be read is kept in `faults`.
    """
    checkout = Checkout.at(root)
    prefix = checkout.matrix.repository_prefix
    inputs = checkout.inputs(checkout.matrix.images)
    current = {
        image.name: image_tag(image, inputs[image.name].build_id)
        for image in checkout.matrix.images
    }
    old: dict[str, set[str]] = defaultdict(set)  # repository -> beginnings of builds' tags
    for image in select_images(checkout.matrix, names):
        old[repository_name(image, prefix)].add(current[image.name][:-12])
    found: list[OldBuild] = []
    with open_target(checkout, settings) as (target, client, on_event):
        for path, beginnings in sorted(old.items()):
            repository = Repository(client, path)
            with faults.skip(*ENTRY_FAULTS):
                builds = _old_builds(repository, beginnings, set(current.values()), faults)
                for build in builds:
                    with faults.skip(*ENTRY_FAULTS):
                        if apply:
                            _remove_build(target, repository, build, on_event)
                        found.append(build)
    return found


def _remove_build(
    target: Target, repository: Repository, build: OldBuild, on_event: OnEvent
) -> None:
    """What refers to it first: a run that is killed in between leaves no orphans."""
    index = repository.client.head(repository.path, referrers_tag(build.digest))
    lists = [index] if index else []
    remove_images(target, repository, [*build.referrers, *lists, build.digest])
    text = f"removed {build.digest} ({', '.join(build.tags)})"
    on_event(Event("notice", f"repository {repository.name()}", text=text))


def _old_builds(
    repository: Repository, beginnings: set[str], current: set[str], faults: EntryFaults
) -> list[OldBuild]:
    """The builds that can go, of the images whose builds' tags begin so."""
    client, path = repository.client, repository.path

    def is_old(tag: str) -> bool:
        tag = tag.removesuffix(SUFFIX)  # the same build with a SOCI index
        is_build = re.fullmatch(r"[0-9a-f]{12}", tag[-12:]) is not None
        return is_build and tag[:-12] in beginnings and tag not in current

    listed = client.tags(path)
    digests = tag_digests(repository, listed, faults)
    if kept := [tag for tag in listed if tag not in digests and not is_old(tag)]:
        raise ManifestError(
            f"nothing is removed here: what {', '.join(kept)} names cannot be read",
            where=repository.name(),
            cure="Put or remove that tag, then run this again.",
        )
    needed = _rollback_digests(repository, listed)
    tags: dict[str, list[str]] = defaultdict(list)
    for tag in listed:
        if digest := digests.get(tag):  # else it was removed in this moment, or is not readable
            tags[digest].append(tag)
    builds = []
    for digest, names in sorted(tags.items(), key=lambda item: item[1]):
        if digest not in needed and all(map(is_old, names)):
            with faults.skip(*ENTRY_FAULTS):
                builds.append(
                    OldBuild(path, tuple(names), digest, tuple(client.referrers(path, digest)))
                )
    return builds


def _rollback_digests(repository: Repository, listed: Sequence[str]) -> set[str]:
    """What the aliases of a repository may have to name again. Raises RegistryError."""
    aliases = {journal[1] for tag in listed if (journal := _JOURNAL.fullmatch(tag))}
    needed: set[str] = set()
    for alias in sorted(aliases):
        needed.update(promoted_digests(alias_journal(repository, alias))[-_ROLLBACKS:])
    return needed
