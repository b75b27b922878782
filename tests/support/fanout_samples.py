"""A matrix of many small images on a few bases, for builds on many machines without an engine.

Each base is a registry's, of one layer of noise; each image adds a file that all have, one of its
own, and the launcher.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from slipway.core import anonymous
from slipway.registry import OCI_MANIFEST, Manifest, RegistryClient
from tests.support.clones import Clone
from tests.support.oci_bases import base_tar, write_base
from tests.support.registry.images import put_blob

HEAD = """\
schema: 1
default: g0-b0
repository_prefix: sagemaker-slipway
registries:
  tests: {host: "%s"}
families:
  system:
    package_manager: apt
    python: /usr/local/bin/python
    workdir: /
    user: root
bases:
"""
BASE = """\
  b%d:
    registry: tests
    repository: %s
    grammar: free
    family: system
    facts: {torch: 2.8.0, python: "3.12", os: ubuntu22.04}
    flavours: {plain: {cpu: "1"}}
"""
ADDON = """\
  %s:
    files: [{from: %s, to: /opt/%s}]
    because: x
    only: {groups: [%s]}
"""
GROUP = """\
  g%d:
    repository: fanout
    axes: {base: ["b*"], platform: [hyperpod]}
    name: "g%d-{series}"
    size_budget_mb: 9
"""


def noise(seed: str, size: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    blocks = (
        hashlib.sha512(f"{seed} {number}".encode()).digest() for number in range(size // 64 + 1)
    )
    return b"".join(blocks)[:size]


def put_bases(host: str, prefix: str, count: int, size: int, scratch: Path) -> None:
    """Bases PREFIX0 to PREFIX{count-1} with tag 1, each of `size` bytes."""
    with RegistryClient(host, anonymous) as client:
        for number in range(count):
            layout = scratch / f"base{number}"
            digest = write_base(
                layout, [base_tar({"data": None, "data/noise": noise(f"b{number}", size)})]
            )
            blobs = layout / "blobs" / "sha256"
            raw = (blobs / digest.removeprefix("sha256:")).read_bytes()
            document = json.loads(raw)
            for part in (document["config"], *document["layers"]):
                data = (blobs / part["digest"].removeprefix("sha256:")).read_bytes()
                put_blob(client, f"{prefix}{number}", data)
            manifest = Manifest(OCI_MANIFEST, digest, raw)
            client.put_manifest(f"{prefix}{number}", "1", manifest)


def write_matrix(clone: Clone, host: str, prefix: str, bases: int, groups: int) -> list[str]:
    """Have the clone's matrix be of `bases` times `groups` images; their names."""
    files = clone.root / "files"
    files.mkdir()
    names = [f"g{number}" for number in range(groups)]
    (files / "all").write_bytes(noise("all", 400_000))
    text = HEAD % host + "".join(BASE % (n, f"{prefix}{n}") for n in range(bases)) + "addons:\n"
    text += ADDON % ("all", "files/all", "all", ", ".join(names))
    for name in names:
        (files / name).write_bytes(noise(name, 2000))
        text += ADDON % (f"of-{name}", f"files/{name}", name, name)
    text += "images:\n" + "".join(GROUP % (number, number) for number in range(groups))
    (clone.root / "versions.yaml").write_text(text)
    return [f"{name}-b{base}" for base in range(bases) for name in names]
