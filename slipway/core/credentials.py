"""Who we are to a registry: a user and a secret, asked for by host when they are needed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from slipway.core.redaction import remember_secret


@dataclass(frozen=True)
class Credentials:
    """What a registry host takes as Basic authentication."""

    username: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        """Keep the secret out of everything that is shown from now on, encoded or not."""
        remember_secret(self.secret)
        login = f"{self.username}:{self.secret}".encode()
        remember_secret(base64.b64encode(login).decode())


CredentialsFor = Callable[[str], Credentials | None]
"""Asked with a registry host at the moment of use; None means anonymous."""


def anonymous(host: str) -> Credentials | None:
    """Credentials for registries that ask for none."""
    del host
    return None
