"""What a base's registry says of it, and what Python packages are inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from slipway.core import CredentialsFor, SlipwayError, UsageError
from slipway.inventory import run_settings
from slipway.matrix import Architecture, Base, image_uri
from slipway.records import BaseLock
from slipway.registry import (
    ImageMissingError,
    NoCredentialsError,
    NotAuthorisedError,
    RegistryClient,
    RegistryError,
    RegistryUnavailableError,
    RepositoryMissingError,
    RetryPolicy,
    ThrottledError,
    WrongAccountError,
)

# One sentence a kind, the same on every machine: it is committed.
_REASONS: tuple[tuple[type[SlipwayError], str], ...] = (
    (UsageError, "no public mirror has it, and no region was named"),
    (RegistryUnavailableError, "its registry could not be reached"),
    (NoCredentialsError, "there were no credentials for its registry"),
    (WrongAccountError, "the credentials are another account's"),
    (NotAuthorisedError, "not authorised to read it"),
    (ThrottledError, "its registry was too busy"),
    (RepositoryMissingError, "its registry has no such repository"),
    (ImageMissingError, "its registry has no such tag"),
    (RegistryError, "its registry gave an answer that is no image"),
)


class BaseLookup:
    """Asks registries; one that cannot be reached is asked once and not for every base."""

    def __init__(self, region: str | None, credentials: CredentialsFor) -> None:
        self._region = region
        self._credentials = credentials
        self._unreachable: set[str] = set()

    def resolve(self, base: Base) -> BaseLock:
        """What the registry says now; unresolved with the reason where it says nothing."""
        if base.registry is None:
            return BaseLock(base.name)
        try:
            uri = image_uri(base.registry, self._region, base.repository, base.tag)
            if uri.host in self._unreachable:
                raise RegistryUnavailableError("asked before")
            repository = uri.reference.removeprefix(f"{uri.host}/").rpartition(":")[0]
            return self._ask(base, uri.host, repository)
        except RegistryUnavailableError as error:
            self._unreachable.add(uri.host)
            return BaseLock(base.name, unresolved=unresolved_reason(error))
        except SlipwayError as error:
            return BaseLock(base.name, unresolved=unresolved_reason(error))

    def _ask(self, base: Base, host: str, repository: str) -> BaseLock:
        architecture = base.facts.architecture
        # Asking is cheap to repeat: no long patience for one of many bases.
        with RegistryClient(host, self._credentials, policy=RetryPolicy(attempts=2)) as registry:
            tagged = registry.manifest(repository, base.tag)
            image = tagged
            if tagged.is_index:
                image = registry.image(repository, base.tag, architecture=architecture)
            config = registry.config(repository, image)
        require_architecture(config, architecture)
        return BaseLock(
            base.name,
            digest=tagged.digest,
            media_type=tagged.media_type,
            size=image.size,
            config=run_settings(config),
        )


def resolve_base(base: Base, region: str | None, credentials: CredentialsFor) -> BaseLock:
    """What one base's registry says: digest, media type, compressed size, configuration.

    Never fails: what cannot be asked is recorded as unresolved, with the reason.
    """
    return BaseLookup(region, credentials).resolve(base)


def require_architecture(config: Mapping[str, Any], stated: Architecture) -> None:
    """Raises SlipwayError for an image of another architecture than versions.yaml states."""
    architecture = config.get("architecture")
    if architecture != stated:
        raise SlipwayError(
            f"its image is for {architecture or 'no architecture that it names'}, and its facts "
            f"in versions.yaml say {stated}"
        )


def unresolved_reason(error: SlipwayError) -> str:
    """Why a base could not be resolved, in words that name no host."""
    for kind, text in _REASONS:
        if isinstance(error, kind):
            return text
    return error.what


def merge_base_lock(old: BaseLock | None, new: BaseLock) -> BaseLock:
    """What to record: a base that cannot be asked now keeps what was known of it.

    The packages of another digest are not those of this one.
    """
    if old is None or (new.digest is None and old.digest is None):
        return dataclasses.replace(new, packages=new.packages or (old.packages if old else None))
    if new.digest is None:
        return old
    same = old.digest == new.digest
    return dataclasses.replace(new, packages=old.packages if same else None)
