"""Who we are to a registry: a user and a secret, asked for by host when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Credentials:
    """What a registry host takes as Basic authentication."""

    username: str
    secret: str = field(repr=False)


CredentialsFor = Callable[[str], Credentials | None]
"""Asked with a registry host at the moment of use; None means anonymous."""


def anonymous(host: str) -> Credentials | None:
    """Credentials for registries that ask for none."""
    del host
    return None
