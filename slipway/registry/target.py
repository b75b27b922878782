"""The frozen values that registries and the engine share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """A registry to push to. `host` is what a reference starts with (host or host:port)."""

    name: str
    kind: Literal["local", "ecr"]
    host: str
    region: str | None = None
    account: str | None = None
