"""Small bases as OCI layouts: a tree with a Python prefix in it, and nothing that runs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = {
    "Env": ["PATH=/opt/venv/bin:/usr/bin", "LANG=C.UTF-8"],
    "Entrypoint": ["bash", "-m", "start.sh"],
    "Cmd": ["/bin/bash"],
    "Labels": {"of": "the base"},
}


def base_tar(entries: Mapping[str, bytes | str | None]) -> bytes:
    """Path -> content; None is a folder, text a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in entries.items():
            member = tarfile.TarInfo(path)
            member.mode = 0o755 if content is None else 0o644
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            data = content if isinstance(content, bytes) else b""
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def put(folder: Path, content: bytes) -> dict[str, Any]:
    """A blob of a layout; gives its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    path = folder / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def write_base(
    folder: Path,
    layers: Sequence[bytes],
    labels: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> str:
    """An OCI layout of plain tars as layers; gives the manifest's digest.

    `more` takes the place of parts of the configuration.
    """
    config = CONFIG | {"Labels": dict(labels or {})}
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers],
        },
        "history": [{"created_by": "the base"} for _ in layers],
        **(more or {}),
    }
    oci = "application/vnd.oci.image"
    gzip_type = f"{oci}.layer.v1.tar+gzip"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": {
            "mediaType": f"{oci}.config.v1+json",
            **put(folder, json.dumps(document).encode()),
        },
        "layers": [
            {"mediaType": gzip_type, **put(folder, gzip.compress(tar, 1, mtime=0))}
            for tar in layers
        ],
    }
    entry = {"mediaType": manifest["mediaType"], **put(folder, json.dumps(manifest).encode())}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return str(entry["digest"])


Tree = dict[str, tuple[str, int, int, int, bytes]]
"""Path -> kind, mode, owner, group, content or target."""


def apply_layer(tree: Tree, tar: tarfile.TarFile) -> None:
    """What an engine does with a layer (opencontainers/image-spec:layer.md)."""
    for member in tar:
        path = member.name.strip("/").removeprefix("./")
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            hidden = [known for known in tree if known.startswith(f"{folder}/")]
        elif name.startswith(".wh."):
            gone = f"{folder}/{name[4:]}".lstrip("/")
            hidden = [known for known in tree if known == gone or known.startswith(f"{gone}/")]
        else:
            stream = tar.extractfile(member) if member.isreg() else None
            content = stream.read() if stream else member.linkname.encode()
            kind = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link"}.get(member.type, "file")
            owner = (member.uid, member.gid)
            tree[path] = (kind, member.mode & 0o7777, *owner, content)
            continue
        for known in hidden:
            del tree[known]
