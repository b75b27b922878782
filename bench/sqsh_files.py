"""One image in every file that other tools write, exported from each: `python -m bench.sqsh_files`.

    python -m bench.sqsh_files --work DIR --engine unix://A --engine unix://B IMAGE
    python -m bench.sqsh_files --work DIR --engine unix://A --context FOLDER      # by buildx, too

The image is taken out of the first engine and loaded into the others. Files are those of `docker
save` of each engine (alone and beside another image) and of `skopeo copy` (oci:, oci-archive:,
docker-archive:, dir:, with other compressions); with `--context`, of `docker buildx build -o` with
a BuildKit that has the build in its cache. The `.sqsh` of all of them, and of the engines in place
and over their API, must be the same, byte for byte: else this ends with 1. Needs root, `docker`
with buildx, and `skopeo`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Project, anonymous, sha256_file
from slipway.engine import connect
from slipway.sqsh import ExportRequest, export_image, export_stored
from slipway.squashfs import LayerCache

_OTHER = "localhost/slipway-other:1"
_BUILDX = {
    "oci.tar": "type=oci",
    "oci-folder": "type=oci,tar=false",
    "zstd.tar": "type=oci,compression=zstd,force-compression=true",
    "plain.tar": "type=oci,compression=uncompressed,force-compression=true",
    "gzip-9.tar": "type=oci,compression=gzip,compression-level=9,force-compression=true",
    "docker.tar": "type=docker",
    "named.tar": "type=oci,name=me/image:tag",
}
_SKOPEO = {
    "oci:{}/sk-oci:tag": (),
    "oci:{}/sk-zstd": ("--dest-compress", "--dest-compress-format", "zstd"),
    "oci-archive:{}/sk-oci.tar:tag": (),
    "docker-archive:{}/sk-docker.tar:me/image:tag": (),
    "dir:{}/sk-dir": (),
    "dir:{}/sk-dir-gzip": ("--dest-compress",),
    "dir:{}/sk-dir-oci": ("--format", "oci"),
}


@dataclass(frozen=True)
class Files:
    """Where files go, and what writes them."""

    work: Path
    docker: str
    engines: tuple[str, ...]

    def engine(self, url: str, *command: str) -> str:
        """Of an engine's command line."""
        return _run(self.docker, "-H", url, *command)

    def saved(self, image: str) -> Iterator[str]:
        """`docker save` of each engine, alone and beside another image."""
        first = self.work / "first.tar"
        self.engine(self.engines[0], "save", image, "-o", str(first))
        (self.work / "other").mkdir()
        for number, url in enumerate(self.engines):
            if number:
                self.engine(url, "load", "-q", "-i", str(first))
            packed = _run("tar", "-C", str(self.work / "other"), "-cf", "-", ".").encode()
            subprocess.run(
                [self.docker, "-H", url, "import", "-", _OTHER],
                input=packed,
                check=True,
                capture_output=True,
            )
            alone, both = self.work / f"save-{number}.tar", self.work / f"save-{number}-two.tar"
            self.engine(url, "save", image, "-o", str(alone))
            self.engine(url, "save", image, _OTHER, "-o", str(both))
            yield f"docker-archive:{alone}"
            yield f"docker-archive:{both}:{image}"

    def copied(self) -> Iterator[str]:
        """`skopeo copy` of what the first engine saved."""
        policy = self.work / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        source = f"docker-archive:{self.work / 'first.tar'}"
        for form, options in _SKOPEO.items():
            uri = form.format(self.work)
            _run("skopeo", "--policy", str(policy), "copy", "-q", *options, source, uri)
            yield uri

    def built(self, context: Path) -> Iterator[str]:
        """`docker buildx build -o` of the first engine's BuildKit."""
        for name, output in _BUILDX.items():
            path = self.work / f"bx-{name}"
            self.engine(
                self.engines[0],
                *("buildx", "build", "--network=none", "--progress=quiet"),
                *("-o", f"{output},dest={path}", str(context)),
            )
            yield f"oci:{path}" if path.is_dir() else f"oci-archive:{path}"
            if "type=docker" in output:
                yield f"docker-archive:{path}"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _exports(files: Files, image: str, uris: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Of the engines and of files: what was exported, and the digest of the .sqsh."""
    for number, uri in enumerate(uris):
        project = Project(Path.cwd(), files.work / f"project-{number}")  # nothing is cached
        yield uri, sha256_file(export_stored(project, uri, anonymous))
    project = Project.at(Path.cwd())
    for number, url in enumerate(files.engines):
        for in_place in (True, False):
            path = files.work / f"engine-{number}-{in_place}.sqsh"
            cache = LayerCache(files.work / f"cache-{number}-{in_place}")
            request = ExportRequest(path, "b")
            export_image(connect(project, url), image, request, cache=cache, in_place=in_place)
            yield f"{url}, {'in place' if in_place else 'over its API'}", sha256_file(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="emptied first")
    parser.add_argument(
        "--engine", action="append", required=True, help="URL; the first one has IMAGE"
    )
    parser.add_argument("--docker", default="docker", help="the command line to use")
    parser.add_argument("--context", type=Path, help="built by the first engine, in place of IMAGE")
    parser.add_argument("image", nargs="?", default="localhost/slipway-built:1")
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    files = Files(given.work.resolve(), given.docker, tuple(given.engine))

    def uris() -> Iterator[str]:
        if given.context is not None:
            build = ("buildx", "build", "--network=none", "--progress=quiet", "--load")
            files.engine(files.engines[0], *build, "-t", given.image, str(given.context))
        yield from files.saved(given.image)
        yield from files.copied()
        if given.context is not None:
            yield from files.built(given.context)

    digests: dict[str, list[str]] = {}
    for name, digest in _exports(files, given.image, uris()):
        digests.setdefault(digest, []).append(name)
        print(f"{digest[:16]}  {name}", flush=True)
    if len(digests) != 1:
        raise SystemExit(f"{len(digests)} different files")


if __name__ == "__main__":
    main()
