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


def engine_at(root: Path, **more: Any) -> Engine:
    facts = {"data_root": str(root), "url": "unix:///x", "containerd_store": False, **more}
    return cast("Engine", SimpleNamespace(**facts))
