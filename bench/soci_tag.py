"""What a second tag with a SOCI index costs: seconds, and bytes beside those of the image.

    .venv/bin/python -m bench.soci_tag --work DIR

A base of 2.4 GB compressed in six layers, an image on it with 78 MB of its own in twelve, a second
image whose own layers differ, all in a registry on loopback. 6 GB below DIR, about two minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slipway.append.layer_blobs import layer_tar
from slipway.append.layer_files import LayerFile, LayerPlan
from slipway.core import anonymous
from slipway.registry import (
    OCI_MANIFEST,
    Manifest,
    RegistryClient,
    Repository,
    digest_of,
    gzip_stream,
    to_schema2,
)
from slipway.registry.distribution import upload_blob
from slipway.soci import SociResult, ZtocSources, put_soci_tag
from tests.support.registry.open_registry import open_registry

ROOT = Path(__file__).parents[1]
PATH = "sagemaker-slipway/bench"


def put_layer(repository: Repository, work: Path, seed: int, size: int) -> tuple[str, Path]:
    """Files that compress to about half; digest and the file that it lies in."""
    path = work / f"layer-{seed}-{size}"
    if not path.exists():
        noise = random.Random(seed)
        each = 160_000
        files = tuple(
            LayerFile(
                f"opt/{seed}/{at % 50}/{at}", noise.randbytes(each // 2) + bytes(each // 2), each
            )
            for at in range(2 * size // each)
        )
        with path.open("wb") as stream:
            for piece in gzip_stream(layer_tar(LayerPlan("data", files)), hashlib.sha256().update):
                stream.write(piece)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    with path.open("rb") as blob:
        upload_blob(repository.client, repository.path, digest, blob, path.stat().st_size)
    return digest, path


def put_image(repository: Repository, tag: str, layers: list[tuple[str, Path]]) -> Manifest:
    """An image of these layers under a tag."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"tag": tag}},
        "rootfs": {"type": "layers", "diff_ids": [digest for digest, _ in layers]},
    }
    raw = json.dumps(config).encode()
    upload_blob(repository.client, repository.path, digest_of(raw), io.BytesIO(raw), len(raw))
    kind = "application/vnd.oci.image"
    content = {
        "config": {
            "mediaType": f"{kind}.config.v1+json",
            "digest": digest_of(raw),
            "size": len(raw),
        },
        "layers": [
            {
                "mediaType": f"{kind}.layer.v1.tar+gzip",
                "digest": digest,
                "size": path.stat().st_size,
            }
            for digest, path in layers
        ],
    }
    document = json.dumps(content).encode()
    image = to_schema2(Manifest(OCI_MANIFEST, digest_of(document), document))
    repository.client.put_manifest(repository.path, tag, image)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=400, help="of each layer of the base")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    table = Table("what", "seconds", "layers read", "MB sent", "% of the image")
    with (
        open_registry(work / "registry") as host,
        RegistryClient(host, anonymous) as client,
    ):
        repository = Repository(client, PATH)
        base = [put_layer(repository, work, n, options.megabytes * 10**6) for n in range(6)]
        own = [put_layer(repository, work, n, 10**6 * (n - 9)) for n in range(10, 22)]
        other = [put_layer(repository, work, n, 10**6 * (n - 29)) for n in range(30, 42)]
        images = {
            "base": put_image(repository, "base", base),
            "first": put_image(repository, "first", [*base, *own]),
            "second": put_image(repository, "second", [*base, *other]),
        }
        empty = 0

        def row(title: str, tag: str, layers: list[tuple[str, Path]]) -> SociResult:
            nonlocal empty
            empty += 1  # another machine: nothing was kept
            result = put_soci_tag(
                repository, tag, ZtocSources(work / f"cache{empty}-{time.time()}", dict(layers))
            )
            assert result
            share = 100 * result.sent / images[tag].size
            table.add_row(
                title,
                f"{result.seconds:.2f}",
                f"{result.made} of {result.indexed}",
                f"{result.sent / 1e6:.2f}",
                f"{share:.2f}",
            )
            return result

        row("the base, once: read from the registry", "base", [])
        row("an image whose base is known", "first", own)
        row("unchanged", "first", own)
        row("the next image on this base", "second", other)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
