"""The engine's push, repeated for as long as a new try can help, and its failures as ours."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from slipway.core import CredentialsFor, Event, OnEvent, SlipwayError
from slipway.engine import (
    Engine,
    TransferError,
    find_image_id,
    inspect_image,
    push_image_layers,
    sdk_errors,
)
from slipway.registry.distribution import RetryPolicy, forget_credentials
from slipway.registry.ecr import access_denied
from slipway.registry.errors import (
    SERVER_TROUBLE,
    RepositoryMissingError,
    immutable_tag_error,
    login_refused,
    throttled_error,
    unavailable_error,
)
from slipway.registry.target import Target

POLICY = RetryPolicy(attempts=7, base=1.0, cap=30.0)
"""Beside dockerd's own five tries of a layer, which it gives up at once on a 429, and with which
it never repeats a manifest (moby/moby:daemon/internal/distribution/errors.go)."""

_LOGIN_TRIES = 2


@contextlib.contextmanager
def tagged_image(engine: Engine, image: str, repository: str, tag: str) -> Iterator[str]:
    """A tag of the engine for as long as the block runs; it was there before: it stays.

    An image without any other tag keeps this one: removing its last tag would remove the image.
    """
    reference = f"{repository}:{tag}"
    before = find_image_id(engine, reference)
    others = [name for name in inspect_image(engine, image)["RepoTags"] or () if name != reference]
    api = engine.client.api
    with sdk_errors(engine, f"tagging {reference}"):
        api.tag(image, repository, tag, force=True)
    try:
        yield reference
    finally:
        with sdk_errors(engine, f"removing the tag {reference}"):
            if before is not None:
                api.tag(before, repository, tag, force=True)
            elif others:
                api.remove_image(reference, noprune=True)


def deliver_image(
    engine: Engine,
    reference: str,
    target: Target,
    *,
    credentials: CredentialsFor,
    on_event: OnEvent,
    policy: RetryPolicy = POLICY,
) -> str:
    """Push a tag of the engine; returns the digest that the engine reports.

    Tried again after 429, 5xx, cuts and expired tokens (with a fresh one); never after a refusal
    that stays one. Layers that arrived are not sent again. Each new try is an event. Raises the
    typed RegistryError of the last failure, or TransferError where it is not the registry's.
    """
    failures = logins = 0
    while True:
        try:
            return push_image_layers(engine, reference, credentials=credentials, on_event=on_event)
        except TransferError as error:
            failures += 1
            again = error.retry
            if error.kind in ("expired", "unauthorized"):
                # An emptied token cache or a revoked session looks like "unauthorized".
                forget_credentials(credentials, target.host)
                logins += 1
                again = logins < _LOGIN_TRIES or error.kind == "expired"
            if not again or failures >= policy.attempts:
                if typed := _typed(error, reference, target, credentials):
                    raise typed from error
                raise
            pause = policy.delay(failures)
            _announce(on_event, reference, error, failures, policy.attempts, pause)
            time.sleep(pause)


def renamed_archive(on_event: OnEvent, task: str) -> OnEvent:
    """Events under another task's name: the staging tag is no business of the person watching."""
    return lambda event: on_event(dataclasses.replace(event, task=task))


def _announce(
    on_event: OnEvent, reference: str, error: TransferError, failures: int, of: int, pause: float
) -> None:
    text = f"try {failures + 1} of {of} in {pause:.1f} s: {error.what}"
    on_event(Event("notice", f"push {reference}", "retry", text))


def _typed(
    error: TransferError, where: str, target: Target, credentials: CredentialsFor
) -> SlipwayError | None:
    """What it is to the registry's room; None where it is not the registry's."""
    text = error.what
    if error.kind in ("unauthorized", "expired"):
        known = credentials(target.host)
        return login_refused(target.host, known.username if known else None)
    if error.kind == "denied":
        return access_denied(where, text, target.account)
    if error.kind == "immutable":
        return immutable_tag_error(where, text)
    if error.kind == "not_found":
        return RepositoryMissingError(
            f"the repository does not exist ({text})",
            where=where,
            cure="Check account, region and name.",
        )
    if error.kind == "throttled":
        return throttled_error(where, text)
    if error.kind in ("server", "network"):
        return unavailable_error(where, text, SERVER_TROUBLE if error.kind == "server" else None)
    return None
