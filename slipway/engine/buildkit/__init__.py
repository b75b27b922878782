"""One build by BuildKit over the engine's API: context, session, progress, result.

The Docker SDK has no BuildKit (docker/docker-py#2230), so the session is spoken here."""

from __future__ import annotations
