"""Thousands of random layer stacks: `python -m bench.sqsh_soak 3000 [--seed N]` (as root).

The tests of the same name run a hundred; this runs as many as asked for, each stack linked from
layer directories and from archives and compared with the kernel's overlayfs, through the kernel's
squashfs, unsquashfs and Slipway's reader. Compressors and block sizes vary. A failure prints the
smallest stack that fails. One seed makes the same stacks again; without one, it is chosen and said.

    python -m bench.sqsh_soak 300 --engine unix://A --engine unix://B --registry HOST:PORT

Each stack as an image, too, in every source: a file as `docker save` has it, what `skopeo copy`
makes of that (an OCI layout with gzip and with zstd; an image in the registry, which needs no
login), and each engine that has loaded it: in place, over its API, and from blobs where it has
containerd's store. Layers are framed as one program or another does: names with `./` or `/` before
them, folders behind what is in them, pax or GNU headers, with and without blocks of zeros at the
end. The `.sqsh` of all must be the same, byte for byte: so Go's reader, in the engines and in
skopeo, is what ours is held to.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from slipway.core import Project, anonymous, sha256_file
from slipway.engine import Engine, connect
from slipway.sqsh import ExportRequest, Packing, export_image
from slipway.sqsh.export import export_source
from slipway.sqsh.source_image import machine_architecture
from slipway.sqsh.sources import engine_source
from slipway.sqsh.sources.containerd_store import snapshot_folders
from slipway.sqsh.stored_images import open_stored_image
from slipway.squashfs import LayerCache, SqshOptions
from tests.support.squashfs_rig import STACKS, Stack, check_stack, make_archive

_NUMBERS = itertools.count()
_NAME = "localhost/slipway-soak"
OPTIONS = st.sampled_from(
    [
        SqshOptions(name, None, size)
        for name in ("zstd", "gzip", "lz4", "none")
        for size in (4096, 8192)
    ]
)


@dataclass(frozen=True)
class Frame:
    """How a program writes the members of a layer's archive."""

    prefix: str
    format: Literal[1, 2]  # tarfile.GNU_FORMAT, PAX_FORMAT
    folders_last: bool
    end: int  # blocks of zeros

    def archive(self, plain: bytes) -> bytes:
        """The same members in this frame."""
        out = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(plain), errors="surrogateescape") as source:
            members = source.getmembers()
            if self.folders_last:
                members.sort(key=tarfile.TarInfo.isdir)
            for member in members:
                content = source.extractfile(member) if member.isreg() else None
                member.name = self.prefix + member.name
                # GNU headers have no place for attributes.
                form: Literal[1, 2] = 2 if member.pax_headers else self.format
                out.write(member.tobuf(form, "utf-8", "surrogateescape"))
                if content is not None:
                    data = content.read()
                    out.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return out.getvalue() + bytes(self.end * tarfile.BLOCKSIZE)


FRAMES = st.builds(
    Frame,
    st.sampled_from(["", "./", "/"]),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.sampled_from([0, 1, 2, 20]),
)


def saved_image(layers: list[bytes], name: str) -> bytes:
    """An image as `docker save` before version 25 has it."""
    config = {
        "architecture": machine_architecture(),
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(data)}" for data in layers]},
    }
    raw = json.dumps(config).encode()
    names = [f"{_sha256(data)}.tar" for data in layers]
    listed = [{"Config": f"{_sha256(raw)}.json", "RepoTags": [name], "Layers": names}]
    files = {f"{_sha256(raw)}.json": raw, **dict(zip(names, layers, strict=True))}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in {**files, "manifest.json": json.dumps(listed).encode()}.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Sources:
    """Engines and a registry that take every stack as an image."""

    engines: tuple[Engine, ...]
    registry: str

    def check(self, layers: list[bytes], folder: Path, options: SqshOptions) -> None:
        """All sources give the same file of an image of these layers."""
        folder.mkdir()
        try:
            name = f"{_NAME}:{folder.name}"
            saved = folder / "saved.tar"
            saved.write_bytes(saved_image(layers, name))
            digests: dict[str, list[str]] = {}
            exports = itertools.chain(
                self._stored(saved, folder, options), self._loaded(name, saved, folder, options)
            )
            for way, path in exports:
                digests.setdefault(sha256_file(path), []).append(way)
            assert len(digests) == 1, digests
        finally:
            shutil.rmtree(folder)

    def _stored(
        self, saved: Path, folder: Path, options: SqshOptions
    ) -> Iterator[tuple[str, Path]]:
        uris = [f"docker-archive:{saved}"]
        policy = folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        copies = {
            f"oci:{folder}/gzip:1": ["--dest-compress-format", "gzip"],
            f"oci:{folder}/zstd:1": ["--dest-compress", "--dest-compress-format", "zstd"],
        }
        if self.registry:
            copies[f"docker://{self.registry}/soak:{folder.name}"] = ["--dest-tls-verify=false"]
        for target, more in copies.items():
            command = ["skopeo", "--policy", str(policy), "copy", "-q", *more]
            source = f"docker-archive:{saved}"
            subprocess.run([*command, source, target], check=True, stdout=subprocess.DEVNULL)
            uris.append(target.replace("docker:", "registry:"))
        for number, uri in enumerate(uris):
            path, cache = folder / f"stored-{number}.sqsh", LayerCache(folder / f"stored-{number}")
            with open_stored_image(uri, anonymous, cache.folder) as image:
                export_source(image, ExportRequest(path, "b", Packing(options)), cache=cache)
            yield uri, path

    def _loaded(
        self, name: str, saved: Path, folder: Path, options: SqshOptions
    ) -> Iterator[tuple[str, Path]]:
        for number, engine in enumerate(self.engines):
            with saved.open("rb") as file:
                engine.client.images.load(file)
            try:
                finders = {"in place": snapshot_folders, "over its API": snapshot_folders}
                if engine.containerd_store:
                    finders["from blobs"] = lambda *_: None
                for way in finders:
                    path = folder / f"loaded-{number}-{way}.sqsh"
                    request = ExportRequest(path, "b", Packing(options))
                    cache = LayerCache(folder / path.stem)
                    in_place = way != "over its API"
                    with patch.object(engine_source, "snapshot_folders", finders[way]):
                        export_image(engine, name, request, cache=cache, in_place=in_place)
                    yield f"{engine.url} {way}", path
            finally:
                engine.client.images.remove(name, force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--engine", action="append", default=[], help="URL; as often as wanted")
    parser.add_argument("--registry", default="", help="HOST:PORT on loopback")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    project = Project.at(Path.cwd())
    engines = tuple(connect(project, url) for url in options.engine)
    sources = Sources(engines, options.registry) if engines or options.registry else None
    begun = time.monotonic()
    layers = names = 0
    with tempfile.TemporaryDirectory() as folder:

        @seed(options.seed)
        @settings(
            max_examples=options.count,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(stack=STACKS, frame=FRAMES, packing=OPTIONS)
        def soak(stack: Stack, frame: Frame, packing: SqshOptions) -> None:
            nonlocal layers, names
            layers += len(stack)
            names += sum(map(len, stack))
            number = next(_NUMBERS)
            check_stack(stack, Path(folder) / str(number), packing)
            if sources is not None:
                framed = [frame.archive(make_archive(layer)) for layer in stack]
                sources.check(framed, Path(folder) / f"image-{number}", packing)

        soak()
    seconds = time.monotonic() - begun
    print(f"{next(_NUMBERS)} stacks, {layers} layers, {names} names at their tops, {seconds:.0f} s")


if __name__ == "__main__":
    main()
