"""One build by BuildKit over the engine's API: context, session, progress, result.

The Docker SDK has no BuildKit (docker/docker-py#2230), so the session is spoken here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.engine.buildkit.build_context import ContextFile, context_tar

__all__ = ["ContextFile", "context_tar"]

__getattr__ = lazy_face(__name__, {"build_context": "ContextFile context_tar"})
