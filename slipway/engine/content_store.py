"""An image as containerd's content store keeps it on this machine: documents and blobs by digest.

Below containerd's root, blobs lie as files (containerd/containerd: docs/ops.md,
plugins/content/local):

    io.containerd.content.v1.content/blobs/sha256/

An engine with containerd's store calls an image by the digest of its index or manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.engine.client import Engine
from slipway.engine.images import inspect_image

_CONTENT = "io.containerd.content.v1.content"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_BYTES = 8 << 20  # of a document
_MOST_DEPTH = 3  # the engine's own index, one of platforms, the image


@dataclass(frozen=True)
class ContentImage:
    """One image in a content store: its documents as they are, and where its blobs lie."""

    folder: Path
    media_type: str
    manifest: bytes
    config: bytes

    def blob(self, digest: str) -> Path:
        """The file of a blob, which may be missing: an engine may drop what it has unpacked."""
        return self.folder / digest.removeprefix("sha256:")


def containerd_roots(data_root: str) -> list[Path]:
    """Where an engine's containerd may have its data: its own, or the one of the system."""
    own = Path(data_root) / "containerd"
    roots = [own / "daemon", own, Path("/var/lib/containerd")]
    return [root for root in roots if _exists(content_folder(root))]


def content_folder(root: Path) -> Path:
    """The folder that has blobs/sha256."""
    return root / _CONTENT


def _exists(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        return False


def find_content_image(engine: Engine, image_id: str) -> ContentImage | None:
    """An image of an engine with containerd's store; None where this process cannot read it.

    Raises EngineError where the engine does not have the image.
    """
    if not engine.containerd_store or not engine.url.startswith("unix:") or not engine.data_root:
        return None
    wanted = list(inspect_image(engine, image_id)["RootFS"].get("Layers") or ())
    for root in containerd_roots(engine.data_root):
        folder = content_folder(root) / "blobs" / "sha256"
        if not os.access(folder, os.R_OK | os.X_OK):
            continue
        for raw, document in _manifests(folder, image_id):
            config = _document(folder, document["config"].get("digest"))
            if config and (_json(config).get("rootfs") or {}).get("diff_ids") == wanted:
                return ContentImage(folder, str(document.get("mediaType", "")), raw, config)
    return None


def _manifests(
    folder: Path, digest: object, depth: int = _MOST_DEPTH
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The manifests of images that an index or a manifest leads to, and that are there."""
    raw = _document(folder, digest)
    document = _json(raw) if raw else {}
    if raw and isinstance(document.get("config"), dict):
        yield raw, document
    entries = document.get("manifests")
    for entry in entries if depth and isinstance(entries, list) else ():
        if isinstance(entry, dict):
            yield from _manifests(folder, entry.get("digest"), depth - 1)


def _document(folder: Path, digest: object) -> bytes | None:
    """A small blob whose digest is right; None where there is none."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return None
    path = folder / digest.removeprefix("sha256:")
    try:
        raw = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
    except OSError:
        return None
    return raw if f"sha256:{hashlib.sha256(raw).hexdigest()}" == digest else None


def _json(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
