"""Builds in the target and the aliases that name them: promote, roll back, list, show, mirror."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from slipway.core import (
    UNREADABLE,
    EntryFaults,
    OnEvent,
    Reporter,
    UsageError,
    did_you_mean,
    write_atomic,
)
from slipway.inventory import SPDX_TYPE
from slipway.matrix import Image, image_tag, image_uri, repository_name, select_images
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.context import push_target
from slipway.pipeline.settings import Settings
from slipway.pipeline.targets.image_documents import BUILD_TYPE
from slipway.pipeline.targets.repositories import prepare_image_repository
from slipway.registry import (
    ENTRY_FAULTS,
    AliasChange,
    AliasMove,
    Author,
    CopyResult,
    ImageMissingError,
    ManifestError,
    RegistryClient,
    Repository,
    StoredArtefact,
    Target,
    alias_journal,
    check_alias_can_move,
    copy_image,
    credentials_for,
    is_digest,
    list_artefacts,
    plan_promotion,
    promote_alias,
    read_artefact_file,
    rollback_alias,
    tag_digests,
)


@dataclass(frozen=True)
class TargetTag:
    """One line of a list: a tag of ours, what it is, the digest, and whose."""

    repository: str
    tag: str
    kind: str  # "build", "alias"
    digest: str  # or "gone", where it was removed meanwhile, or UNREADABLE
    images: tuple[str, ...]  # those of the matrix that the tag belongs to


@dataclass(frozen=True)
class TargetImage:
    """What the target has of an image: one build, the aliases that name it, their journals."""

    image: str
    uri: str
    digest: str
    media_type: str
    size: int  # bytes, compressed
    layers: int
    created: str
    build_id: str
    aliases: dict[str, str | None]  # declared alias -> digest that it names
    journal: dict[str, list[AliasMove]]
    artefacts: list[StoredArtefact]


@contextlib.contextmanager
def open_target(
    checkout: Checkout, settings: Settings
) -> Iterator[tuple[Target, RegistryClient, OnEvent]]:
    """The target, a client of it, and who is told of its waits and of progress."""
    target = push_target(checkout, settings)
    with (
        Reporter() as reporter,
        RegistryClient(
            target.host,
            credentials_for([target], checkout.project),
            on_event=reporter.on_event,
            uploads=checkout.project.uploads,
        ) as client,
    ):
        yield target, client, reporter.on_event


def author() -> Author:
    """Who runs this, for the journal: the user of a CI job's run, else of this machine."""
    user = os.environ.get("GITHUB_ACTOR") or os.environ.get("GITLAB_USER_LOGIN")
    if not user:
        try:
            user = f"{getpass.getuser()}@{socket.gethostname()}"
        except (KeyError, OSError):  # a user without a name
            user = f"uid{os.getuid()}@{socket.gethostname()}"
    return Author(user[:200], datetime.now(timezone.utc).isoformat(timespec="seconds"))


def one_image(checkout: Checkout, name: str) -> Image:
    """The image of a name, the default one for none. Raises UsageError where it is not one."""
    images = select_images(checkout.matrix, [name or checkout.matrix.default_image])
    if len(images) != 1:
        raise UsageError(f"{name!r} are {len(images)} images", cure="Name one.")
    return images[0]


def current_tag(checkout: Checkout, image: Image) -> str:
    """The tag of an image's current build."""
    return image_tag(image, checkout.inputs([image])[image.name].build_id)


def _check_declared(image: Image, alias: str) -> None:
    if alias not in image.aliases:
        raise UsageError(
            f"{image.name} has no alias {alias!r}{did_you_mean(alias, image.aliases)}",
            cure=f"versions.yaml gives it: {', '.join(image.aliases) or 'none'}.",
        )


def promote_image(
    root: Path, settings: Settings, name: str, alias: str, *, plan: bool = False
) -> AliasChange:
    """Have an alias of an image name its current build.

    Raises UsageError for aliases that versions.yaml does not declare, ImageMissingError where the
    target does not have the build.
    """
    checkout = Checkout.at(root)
    image = one_image(checkout, name)
    _check_declared(image, alias)
    path = repository_name(image, checkout.matrix.repository_prefix)
    tag = current_tag(checkout, image)
    with open_target(checkout, settings) as (target, client, _):
        repository = Repository(client, path)
        _require_build(repository, tag, image)
        check_alias_can_move(target, path, alias)
        if plan:
            return plan_promotion(repository, tag, alias)
        return promote_alias(repository, tag, alias, author())


def _require_build(repository: Repository, tag: str, image: Image) -> None:
    if repository.client.head(repository.path, tag) is None:
        raise ImageMissingError(
            "the target does not have this build",
            where=repository.name(tag),
            cure=f"Push it first: `./inv push {image.name}`.",
        )


def rollback_image_alias(root: Path, settings: Settings, alias: str) -> AliasChange:
    """Have an alias name what it named before. An alias of several repositories is
    REPOSITORY:ALIAS. Raises UsageError for one that no image declares."""
    checkout = Checkout.at(root)
    wanted, _, name = alias.rpartition(":")
    prefix = checkout.matrix.repository_prefix
    paths = {
        repository_name(image, prefix)
        for image in checkout.matrix.images
        if name in image.aliases
        and (not wanted or wanted in (image.repository, repository_name(image, prefix)))
    }
    if len(paths) != 1:
        raise UsageError(
            f"{alias!r} is an alias of {len(paths)} repositories in versions.yaml",
            cure="Name one: " + ", ".join(f"{path}:{name}" for path in sorted(paths))
            if paths
            else "`./inv matrix` names the aliases of each image.",
        )
    with open_target(checkout, settings) as (target, client, _):
        path = paths.pop()
        check_alias_can_move(target, path, name)
        return rollback_alias(Repository(client, path), name, author())


def list_target(
    root: Path, settings: Settings, names: Sequence[str], faults: EntryFaults
) -> list[TargetTag]:
    """Builds and aliases of the images named (all by default) that the target has.

    A tag that cannot be read is in the list as `UNREADABLE`, a repository that cannot is not; the
    reasons are kept in `faults`.
    """
    checkout = Checkout.at(root)
    by_path: dict[str, list[Image]] = {}
    for image in select_images(checkout.matrix, names):
        path = repository_name(image, checkout.matrix.repository_prefix)
        by_path.setdefault(path, []).append(image)
    tags: list[TargetTag] = []
    with open_target(checkout, settings) as (_, client, _):
        for path, members in sorted(by_path.items()):
            with faults.skip(*ENTRY_FAULTS):
                tags += _tags_of_images(Repository(client, path), members, faults)
    return tags


def _tags_of_images(
    repository: Repository, images: Sequence[Image], faults: EntryFaults
) -> list[TargetTag]:
    """The tags of a repository that belong to images which it is for."""
    owners: dict[str, tuple[str, list[str]]] = {}
    for tag in repository.client.tags(repository.path):
        aliased = [image.name for image in images if tag in image.aliases]
        whose = [i.name for i in images if image_tag(i, "0" * 64)[:-12] == tag[:-12]]
        if aliased or whose:
            owners[tag] = ("alias", aliased) if aliased else ("build", whose)
    digests = tag_digests(repository, list(owners), faults)
    return [
        TargetTag(repository.path, tag, kind, digests.get(tag, UNREADABLE) or "gone", tuple(names))
        for tag, (kind, names) in owners.items()
    ]


def show_target_image(
    root: Path, settings: Settings, reference: str, faults: EntryFaults, folder: Path | None = None
) -> TargetImage:
    """What the target has of NAME's current build, or of NAME@sha256:..., with its aliases.

    The files beside it (its bill of materials, how it was built) are written to `folder`. Raises
    ImageMissingError where it has nothing of it; what else cannot be read is kept in `faults`.
    """
    checkout = Checkout.at(root)
    name, at, digest = reference.partition("@")
    if at and not is_digest(digest):
        raise UsageError(
            f"{digest!r} is no digest",
            cure="One is sha256: and 64 hexadecimal digits; `./inv registry.list` shows them.",
        )
    image = one_image(checkout, name)
    path = repository_name(image, checkout.matrix.repository_prefix)
    tag = digest or current_tag(checkout, image)
    with open_target(checkout, settings) as (_, client, _):
        repository = Repository(client, path)
        if not digest:
            _require_build(repository, tag, image)
        manifest = client.image(path, tag)
        config = client.config(path, manifest)
        labels = (config.get("config") or {}).get("Labels") or {}
        artefacts: list[StoredArtefact] = []
        with faults.skip(*ENTRY_FAULTS):
            artefacts = list_artefacts(repository, manifest.digest, faults)
        named = tag_digests(repository, image.aliases, faults)
        journal: dict[str, list[AliasMove]] = {alias: [] for alias in image.aliases}
        for alias in image.aliases:
            with faults.skip(*ENTRY_FAULTS):
                journal[alias] = alias_journal(repository, alias)
        if folder:
            write_documents(repository, artefacts, folder)
        return TargetImage(
            image=image.name,
            uri=repository.name(tag),
            digest=manifest.digest,
            media_type=manifest.media_type,
            size=manifest.size,
            layers=len(manifest.json()["layers"]),
            created=str(config.get("created") or ""),
            build_id=str(labels.get("io.slipway.build-id") or ""),
            aliases={alias: named.get(alias, UNREADABLE) for alias in image.aliases},
            journal=journal,
            artefacts=artefacts,
        )


def write_documents(
    repository: Repository, artefacts: Sequence[StoredArtefact], folder: Path
) -> None:
    """Write the bills of materials and the build's records of an image, each below its digest.

    Raises ManifestError for a title that is no plain file name.
    """
    for artefact in artefacts:
        for file in artefact.files if artefact.kind in (SPDX_TYPE, BUILD_TYPE) else ():
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", file.title):
                raise ManifestError(f"{file.title!r} is no name of a file", where=artefact.digest)
            content = read_artefact_file(repository, file)
            write_atomic(folder / artefact.digest[7:19] / file.title, content)


def mirror_bases(root: Path, settings: Settings, names: Sequence[str]) -> list[CopyResult]:
    """Bring the bases of the images named into the repositories of those images, once a digest.

    Blob by blob from the base's registry to the target, without an engine or disk; a base that is
    there costs one question. Raises UsageError where a base's digest is not recorded.
    """
    checkout = Checkout.at(root)
    images = select_images(checkout.matrix, names or [checkout.matrix.default_image])
    wanted: dict[tuple[str, str], tuple[str, str]] = {}
    for image in images:
        base = image.base
        lock = checkout.locks.bases.get(base.name)
        if base.registry is None:
            raise UsageError(f"{base.name} is made by Slipway itself: nothing has it to copy")
        if lock is None or lock.digest is None:
            raise UsageError(f"the digest of {base.name} is not recorded", cure="Run `./inv lock`.")
        uri = image_uri(base.registry, settings.region, base.repository, base.tag, lock.digest)
        host = uri.host
        source = uri.reference.partition("/")[2].partition("@")[0].partition(":")[0]
        path = repository_name(image, checkout.matrix.repository_prefix)
        wanted[path, lock.digest] = host, source
    results = []
    with open_target(checkout, settings) as (target, client, on_event):
        for (path, digest), (host, source) in sorted(wanted.items()):
            prepare = partial(
                prepare_image_repository,
                target,
                checkout.matrix,
                path,
                settings.sharing,
                on_event,
            )
            with RegistryClient(
                host, credentials_for([target], checkout.project), on_event=on_event
            ) as origin:
                results.append(
                    copy_image(
                        Repository(origin, source),
                        digest,
                        Repository(client, path),
                        f"base-{digest[7:19]}",
                        on_event=on_event,
                        prepare=prepare,
                    )
                )
    return results
