"""Images as an overlay2 engine keeps them on its disk, made without an engine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from slipway.engine import Engine

_OCI = "application/vnd.oci.image"
ODD = "opt/\udcff"  # a name that is not UTF-8


def overlay_layer(seed: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape") as tar:
        for name in ("opt/a", ODD, "opt/empty"):
            member = tarfile.TarInfo(name)
            data = b"" if name.endswith("empty") else seed * 700
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _split(tar: bytes, folder: Path) -> bytes:
    """The tar as files in a folder and the records of what stands between them."""
    lines: list[dict[str, Any]] = []
    at = 0
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        for member in archive:
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            end = member.offset_data + member.size
            path.write_bytes(tar[member.offset_data : end])
            payload = base64.b64encode(tar[at : member.offset_data]).decode()
            lines.append({"type": 2, "payload": payload})
            raw = member.name.encode("utf-8", "surrogateescape")
            name: dict[str, Any] = (
                {"name_raw": base64.b64encode(raw).decode()}
                if member.name == ODD
                else {"name": member.name}
            )
            lines.append({"type": 1, **name, "size": member.size, "payload": "AAAAAAAAAAA="})
            at = end
    lines.append({"type": 2, "payload": base64.b64encode(tar[at:]).decode()})
    return gzip.compress("".join(f"{json.dumps(line)}\n" for line in lines).encode())


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put_overlay_image(root: Path, layers: list[bytes]) -> str:
    """An image as an overlay2 engine keeps it; gives its id."""
    config = json.dumps({"rootfs": {"diff_ids": [_digest(tar) for tar in layers]}}).encode()
    database = root / "image" / "overlay2"
    content = database / "imagedb" / "content" / "sha256"
    content.mkdir(parents=True)
    (content / _digest(config)[7:]).write_bytes(config)
    chain = ""
    for number, tar in enumerate(layers):
        own = _digest(tar)
        chain = _digest(f"{chain} {own}".encode()) if chain else own
        entry = database / "layerdb" / "sha256" / chain[7:]
        entry.mkdir(parents=True)
        (entry / "cache-id").write_text(f"cache{number}")
        files = root / "overlay2" / f"cache{number}" / "diff"
        files.mkdir(parents=True)
        (entry / "tar-split.json.gz").write_bytes(_split(tar, files))
    return _digest(config)


def put_content_image(root: Path, layers: list[bytes], *, packed: bool = True) -> tuple[str, str]:
    """An image as containerd's content store keeps it, in an index as BuildKit makes one; gives its
    id, the digest of the index, and that of its manifest."""
    folder = root / "containerd" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    kind = "tar+gzip" if packed else "tar"

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        (folder / _digest(data)[7:]).write_bytes(data)
        return {"mediaType": f"{_OCI}.{media_type}", "digest": _digest(data), "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": [_digest(tar) for tar in layers]}
    blobs = [gzip.compress(tar, mtime=0) if packed else tar for tar in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": put(json.dumps({"rootfs": rootfs}).encode(), "config.v1+json"),
        "layers": [put(blob, f"layer.v1.{kind}") for blob in blobs],
    }
    entry = put(json.dumps(manifest).encode(), "manifest.v1+json")
    other = {**entry, "digest": _digest(b"another platform, never fetched")}
    index = {"schemaVersion": 2, "manifests": [other, entry]}
    return str(put(json.dumps(index).encode(), "index.v1+json")["digest"]), entry["digest"]


def content_engine(root: Path, layers: list[bytes], **more: Any) -> Engine:
    """An engine with containerd's store that has an image of these layers."""
    rootfs = {"Layers": [_digest(tar) for tar in layers]}
    image = SimpleNamespace(attrs={"RootFS": rootfs})
    client = SimpleNamespace(images=SimpleNamespace(get=lambda reference: image))
    return engine_at(root, containerd_store=True, client=client, **more)


def engine_at(root: Path, **more: Any) -> Engine:
    facts = {"data_root": str(root), "url": "unix:///x", "containerd_store": False, **more}
    return cast("Engine", SimpleNamespace(**facts))
