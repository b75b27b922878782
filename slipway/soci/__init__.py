"""SOCI indexes: what lets a node start from an image before it has fetched it.

In come an image of a repository and, where they are at hand, its layers; out come zTOCs beside it
and a second tag whose OCI index AWS's snapshotter takes. It runs no soci and no containerd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.soci.soci_tag import (
        SUFFIX,
        PublishedIndex,
        SociResult,
        ZtocSources,
        put_soci_tag,
    )

__all__ = ["SUFFIX", "PublishedIndex", "SociResult", "ZtocSources", "put_soci_tag"]

__getattr__ = lazy_face(
    __name__, {"soci_tag": "PublishedIndex SUFFIX SociResult ZtocSources put_soci_tag"}
)
