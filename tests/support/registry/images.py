"""Images of a few kilobytes, in the engine and in registries."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import uuid

from slipway.engine import Engine, find_image_id, import_rootfs
from slipway.registry import Manifest, RegistryClient, RetryPolicy, digest_of
from slipway.registry.distribution.blob_upload import upload_blob
from slipway.registry.manifests import OCI_MANIFEST

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

QUICK = RetryPolicy(attempts=6, base=0.02, cap=0.1)
"""Patience for tests: as many tries as in life, shorter waits."""


def unique() -> str:
    """A repository's name that no other test has: the data behind all doors is one."""
    return f"t{uuid.uuid4().hex[:8]}/image"


def layer_tar(seed: str, size: int = 2000) -> bytes:
    """A tar with one file of `size` bytes that does not compress; the same for the same seed."""
    blocks = [
        hashlib.sha512(f"{seed} {number}".encode()).digest() for number in range(size // 64 + 1)
    ]
    data = b"".join(blocks)[:size]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(f"data/{seed}")
        entry.size = size
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def small_image(engine: Engine, reference: str, seed: str, size: int = 2000) -> str:
    """A one-layer image in the engine; returns its id."""
    import_rootfs(engine, io.BytesIO(layer_tar(seed, size)), reference, changes=["CMD /nothing"])
    found = find_image_id(engine, reference)
    assert found is not None
    return found


def put_blob(registry: RegistryClient, repository: str, data: bytes) -> dict[str, object]:
    """Store a blob; returns digest and size as in a descriptor."""
    digest = digest_of(data)
    upload_blob(registry, repository, digest, io.BytesIO(data), len(data))
    return {"size": len(data), "digest": digest}


def put_oci_image(
    registry: RegistryClient,
    repository: str,
    tag: str,
    *,
    seed: str = "oci",
    layer_type: str = GZIP_LAYER,
    layer: bytes = b"",
    architecture: str = "amd64",
) -> Manifest:
    """An image as BuildKit and containerd write it: OCI manifest, OCI configuration.

    Its one layer is a file of the seed, or the tar that is given.
    """
    layer = layer or layer_tar(seed)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/nothing"], "Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        "history": [{"created_by": "test"}],
    }
    config_part = put_blob(registry, repository, json.dumps(config).encode())
    layer_part = put_blob(registry, repository, gzip.compress(layer, mtime=0))
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config_part},
            "layers": [{"mediaType": layer_type, **layer_part}],
            "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
        }
    ).encode()
    manifest = Manifest(OCI_MANIFEST, digest_of(raw), raw)
    registry.put_manifest(repository, tag, manifest)
    return manifest
