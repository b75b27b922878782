"""What an export costs by where the image comes from: `python -m bench.sqsh_sources --help`.

The same images, which differ in their top layer only, are in an engine with overlay2, in one with
containerd's store, and in a registry on loopback (which `--push` fills). Each round takes the next
image, and ways in alternating order; medians are shown. Ways, for each engine:

NAME first     nothing compiled before
NAME again     all layers but the top one compiled before
registry first the same without an engine
pull + first   `docker pull` into the overlay2 engine, then its first export

With each way its CPU seconds and the bytes that the disk gave are shown: the bench's own and those
of the processes that it started, not those of engines and registry. With `--cold` nothing of the
disk is in memory before a way. Files of all sources are compared: a difference ends the run. Needs
root, or for `--only registry` nobody in particular.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.sqsh_export import cpu_seconds
from slipway.core import Project, anonymous, sha256_file
from slipway.engine import Engine, connect
from slipway.sqsh import ExportRequest, export_image, export_stored
from slipway.squashfs import LayerCache


@dataclass(frozen=True)
class Cost:
    """What one export took."""

    seconds: float
    cpu: float
    read_gb: float


def disk_bytes() -> int:
    """What the disk gave to this process and to those that it has waited for."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def measured(run: Callable[[], Path]) -> tuple[Path, Cost]:
    begun, cpu, read = time.perf_counter(), cpu_seconds(), disk_bytes()
    path = run()
    seconds = time.perf_counter() - begun
    return path, Cost(seconds, cpu_seconds() - cpu, (disk_bytes() - read) / 1e9)


class Sources:
    """Two engines and a registry with the same images."""

    def __init__(self, work: Path, overlay: str, containerd: str, registry: str) -> None:
        self.work, self.registry, self.overlay_url = work, registry, overlay
        project = Project.at(Path.cwd())
        self.engines: dict[str, Engine] = {
            name: connect(project, url)
            for name, url in (("overlay2", overlay), ("containerd", containerd))
            if url
        }

    def export(self, name: str, image: str, cache: str) -> Path:
        path = self.work / f"{name}.sqsh"
        request = ExportRequest(path, "b", force=True)
        export_image(self.engines[name], image, request, cache=LayerCache(self.work / cache))
        return path

    def from_registry(self, image: str) -> Path:
        """With a project folder of its own, whose cache is empty."""
        project = Project(Path.cwd(), self.work / "cold")
        uri = f"registry://{self.registry}/{image}"
        return export_stored(project, uri, anonymous, folder=self.work / "registry")

    def pull_and_export(self, image: str) -> Path:
        name = f"{self.registry}/{image}"
        subprocess.run(["docker", "-H", self.overlay_url, "pull", "-q", name], check=True)
        return self.export("overlay2", name, "cold")

    def forget(self, image: str) -> None:
        """What a pull must find absent."""
        for name in (image, f"{self.registry}/{image}"):
            command = ["docker", "-H", self.overlay_url, "rmi", "-f", name]
            subprocess.run(command, check=False, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--overlay", default="", help="URL of the engine with overlay2")
    parser.add_argument("--containerd", default="", help="URL of the one with containerd's store")
    parser.add_argument("--registry", default="", help="HOST:PORT on loopback")
    parser.add_argument("--only", default="", help="ways, with commas between")
    parser.add_argument("--pull", action="store_true", help="measure pulls: images are removed")
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each way")
    parser.add_argument("images", nargs="+", help="the first one fills caches")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    sources = Sources(given.work, given.overlay, given.containerd, given.registry)
    first, *images = given.images
    only = given.only.split(",") if given.only else None
    for name in sources.engines:
        if only is None or f"{name} again" in only:
            sources.export(name, first, f"warm-{name}")
    costs: dict[str, list[Cost]] = {}
    for number, image in enumerate(images):
        ways: dict[str, Callable[[str], Path]] = {}
        for name in sources.engines:
            ways[f"{name} first"] = partial(sources.export, name, cache="cold")
            ways[f"{name} again"] = partial(sources.export, name, cache=f"warm-{name}")
        if given.registry:
            ways["registry first"] = sources.from_registry
        if given.pull:
            ways["pull + first"] = sources.pull_and_export
        digests: set[str] = set()
        order = [way for way in ways if only is None or way in only]
        for way in order if number % 2 == 0 else reversed(order):
            for name in ("cold", "registry"):
                shutil.rmtree(given.work / name, ignore_errors=True)
            if way == "pull + first":
                for other in given.images:
                    sources.forget(other)
            subprocess.run(["sync"], check=True)
            if given.cold:
                Path("/proc/sys/vm/drop_caches").write_text("3")
            path, cost = measured(partial(ways[way], image))
            costs.setdefault(way, []).append(cost)
            digests.add(sha256_file(path))
            path.unlink()
            print(f"{image} {way}: {cost}", flush=True)
        if len(digests) != 1:
            raise SystemExit(f"{image}: the sources gave {len(digests)} different files")
    print("|way|median s|least|most|CPU s|GB read|\n|---|---|---|---|---|---|")
    for way, found in costs.items():
        seconds = [cost.seconds for cost in found]
        cpu, read = (
            statistics.median(getattr(cost, field) for cost in found)
            for field in ("cpu", "read_gb")
        )
        print(
            f"|{way}|{statistics.median(seconds):.1f}|{min(seconds):.1f}|{max(seconds):.1f}|"
            f"{cpu:.1f}|{read:.2f}|"
        )


if __name__ == "__main__":
    main()
