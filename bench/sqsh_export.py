"""What a .sqsh costs: `python -m bench.sqsh_export --work DIR [IMAGE IMAGE...]`.

The IMAGEs differ in their top layer only (a rebuild after a small change); without any,
bench/sqsh_images.py makes them. Each round runs every way once, in alternating order, on another
IMAGE; medians are shown. Ways:

pipeline    stand-in for `enroot import dockerd://` with its default options: docker export,
            tar -x, then mksquashfs -comp lzo -noD -all-root
tuned       the same with -comp zstd -Xcompression-level 3 -b 1M
overlay     mksquashfs -comp zstd -Xcompression-level LEVEL -b 1M on a mount of the engine's layers
first       Slipway with an empty layer cache
again       Slipway with all layers but the top one in the cache
untraced    the same without looking for what a start reads
metadata    the same without copying and hashing data: what is left where reflinks cost nothing
cp          a plain copy of the resulting file

Before each way everything is flushed to the disk. Nothing is within its time; the time with the
flush after it is shown, too.
Needs root, an overlay2 engine on this machine, squashfs-tools.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from bench.sqsh_images import make
from slipway.core import Project
from slipway.engine import Engine, connect
from slipway.sqsh import ExportRequest, Packing, export_image, find_overlay_layers
from slipway.sqsh.start import StartTrace
from slipway.squashfs import LayerCache, SqshOptions
from slipway.squashfs.link import data_copier, linker

ENROOT_DEFAULT = ["-comp", "lzo", "-noD"]
NO_START = StartTrace("", ())
TUNED = ["-comp", "zstd", "-Xcompression-level", "3", "-b", "1M"]


class Bench:
    def __init__(self, engine: Engine, work: Path, level: int) -> None:
        self.engine, self.work, self.level = engine, work, level
        self.warm = LayerCache(work / "warm")
        self.plain = LayerCache(work / "plain")
        self.sizes: dict[str, int] = {}

    def mksquashfs(self, source: Path, options: list[str], way: str) -> None:
        output = self.work / f"{way}.sqsh"
        command = ["mksquashfs", str(source), str(output), "-all-root", "-no-progress", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self.sizes[way] = output.stat().st_size

    def pipeline(self, image: str, options: list[str], way: str) -> None:
        folder = self.work / "rootfs"
        folder.mkdir()
        api = self.engine.client.api
        container = api.create_container(image, ["x"], network_disabled=True)["Id"]
        try:
            tar = subprocess.Popen(["tar", "-x", "-C", str(folder)], stdin=subprocess.PIPE)
            assert tar.stdin is not None
            with tar.stdin:
                for chunk in api.export(container, chunk_size=1 << 20):
                    tar.stdin.write(chunk)
            assert tar.wait() == 0
        finally:
            api.remove_container(container)
        self.mksquashfs(folder, options, way)

    def overlay(self, image: str) -> None:
        folders = find_overlay_layers(self.engine, image)
        assert folders is not None
        mount = self.work / "mount"
        mount.mkdir(exist_ok=True)
        stack = f"ro,lowerdir={':'.join(map(str, reversed(folders)))}"
        subprocess.run(["mount", "-t", "overlay", "-o", stack, "overlay", str(mount)], check=True)
        try:
            options = ["-comp", "zstd", "-Xcompression-level", str(self.level), "-b", "1M"]
            self.mksquashfs(mount, options, "overlay")
        finally:
            subprocess.run(["umount", str(mount)], check=True)

    def slipway(
        self, image: str, way: str, cache: LayerCache, start: StartTrace | None = None
    ) -> None:
        output = self.work / f"{way}.sqsh"
        options = SqshOptions("zstd", self.level)
        packing = Packing(options) if start is None else Packing(options, start)
        made = export_image(
            self.engine, image, ExportRequest(output, "b", packing, True), cache=cache
        )
        self.sizes[way] = made.size

    def metadata(self, image: str) -> None:
        with (
            patch.object(data_copier, "copy_data"),
            patch.object(linker, "DataPieces") as pieces,
        ):
            pieces.return_value.finish.return_value = ()
            self.slipway(image, "metadata", self.warm)

    def copy(self) -> None:
        paths = [str(self.work / name) for name in ("again.sqsh", "cp.sqsh")]
        subprocess.run(["cp", "--reflink=never", *paths], check=True)

    def ways(self, image: str) -> dict[str, Callable[[], None]]:
        return {
            "pipeline": lambda: self.pipeline(image, ENROOT_DEFAULT, "pipeline"),
            "tuned": lambda: self.pipeline(image, TUNED, "tuned"),
            "overlay": lambda: self.overlay(image),
            "first": lambda: self.slipway(image, "first", LayerCache(self.work / "cold")),
            "again": lambda: self.slipway(image, "again", self.warm),
            "untraced": lambda: self.slipway(image, "untraced", self.plain, NO_START),
            "metadata": lambda: self.metadata(image),
            "cp": self.copy,
        }

    def clean(self, way: str) -> None:
        for name in ("rootfs", "cold"):
            shutil.rmtree(self.work / name, ignore_errors=True)
        # As in life, where every build has a name of its own. On ext4, replacing a file waits for
        # the new one to be written out.
        (self.work / f"{way}.sqsh").unlink(missing_ok=True)
        os.sync()


def cpu_seconds() -> float:
    """Of this process and of those it has waited for; the engine's own are not in it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(some.ru_utime + some.ru_stime for some in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="embedded", help="embedded, auto or a URL")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3, help="where no image is given")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--only", default="", help="ways, with commas between")
    parser.add_argument("images", nargs="*")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(connect(Project.at(Path.cwd()), given.engine), given.work, given.level)
    times: dict[str, list[float]] = {}
    flushed: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    first, *images = given.images or make(bench.engine, given.work, given.rounds + 1)
    bench.slipway(first, "again", bench.warm)  # fills the cache, and the page cache
    if not given.only or "untraced" in given.only.split(","):
        bench.slipway(first, "untraced", bench.plain, NO_START)
    for number, image in enumerate(images):
        ways = list(bench.ways(image).items())
        for name, run in ways if number % 2 == 0 else reversed(ways):
            if given.only and name not in given.only.split(","):
                continue
            bench.clean(name)
            begun, used = time.perf_counter(), cpu_seconds()
            run()
            times.setdefault(name, []).append(time.perf_counter() - begun)
            cpu.setdefault(name, []).append(cpu_seconds() - used)
            os.sync()
            flushed.setdefault(name, []).append(time.perf_counter() - begun)
            print(f"{image} {name}: {times[name][-1]:.2f} s, CPU {cpu[name][-1]:.2f}", flush=True)
    print(f"{'way':>10} {'median s':>9} {'flushed s':>9} {'CPU s':>7} {'result MB':>10}")
    for name, found in times.items():
        size = bench.sizes.get(name, bench.sizes["again"]) / 1e6
        middle, flush, used = (
            statistics.median(some) for some in (found, flushed[name], cpu[name])
        )
        print(f"{name:>10} {middle:>9.2f} {flush:>9.2f} {used:>7.1f} {size:>10.0f}")
    bench.engine.close()


if __name__ == "__main__":
    main()
