"""How long linking takes for so many inodes: `python -m bench.sqsh_inodes 10000 100000 300000`.

Four compiled layers of made-up files (about ten a directory, sizes and block counts as in a Python
image), the top one overriding one in a hundred. Loading the layers' indexes from the cache counts;
copying data does not, there is next to none. Each size runs in a process of its own, for its peak
memory; the best of three runs is shown.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from slipway.core import Piece
from slipway.squashfs import (
    DIR,
    REG,
    SYMLINK,
    DataPart,
    FileData,
    ImageRules,
    LayerCache,
    SqshOptions,
    TreeNode,
    dump_layer,
    freeze_tree,
    link_image,
    new_root,
    part_name,
    put_node,
)

LAYERS = 4


def make_layers(cache: LayerCache, inodes: int) -> list[str]:
    """Cache entries whose merged tree has about `inodes` inodes."""
    chosen = random.Random(1)
    keys = []
    for number in range(LAYERS):
        root, position, tails = new_root(), 0, 0
        fragments: list[tuple[int, int, int]] = []
        for count in range(inodes // LAYERS):
            folder = count // 10
            base = f"usr/lib/python3/dist{folder % 97}/package{folder}"
            if count % 10 == 0:
                put_node(root, f"{base}{number}".encode(), TreeNode(DIR, 0o755, mtime=count))
            path = f"{base}{number}/module_number_{count}.py"
            if number == LAYERS - 1 and count % 100 == 1:
                path = f"{base}0/module_number_{count}.py"
            if count % 50 == 7:
                put_node(
                    root, path.encode(), TreeNode(SYMLINK, 0o777, mtime=1, target=b"../target")
                )
                continue
            node = TreeNode(REG, 0o644, 1000, 1000, count, chosen.randrange(1, 40_000))
            if count % 30 == 3:
                words = [chosen.randrange(100, 600) for _ in range(chosen.randrange(1, 9))]
                node.size = len(words) << 20
                node.data = FileData(position, words, stored=sum(words))
                position += sum(words)
            else:
                node.data = FileData(fragment=len(fragments), offset=tails)
                tails += node.size
                if tails > 1 << 20:
                    fragments.append((0, position, 700))
                    position += 700
                    tails = 0
            put_node(root, path.encode(), node)
        fragments.append((0, position, 700))
        key = f"{number:040d}"
        with cache.make(key) as entry:
            data = entry / part_name(0)
            with data.open("wb") as stream:
                stream.truncate(position + 700)
            part = DataPart(data, (Piece(position + 700, "0" * 64),))
            (entry / "index").write_bytes(dump_layer(freeze_tree(root, [part], fragments, [0])))
        keys.append(key)
    return keys


def run(folder: Path, keys: list[str]) -> dict[str, float]:
    cache = LayerCache(folder / "cache")
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        layers = [cache.read(key) for key in keys]
        linked = link_image(
            [layer for layer in layers if layer is not None],
            folder / "out.sqsh",
            SqshOptions(),
            ImageRules(all_root=True, readable=True, writable_depth=15),
        )
        times.append(time.perf_counter() - begun)
        del layers
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"inodes": linked.inodes, "seconds": min(times), "peak_mib": peak, "bytes": linked.size}


def main() -> None:
    if sys.argv[1] == "--child":
        folder = Path(sys.argv[2])
        print(json.dumps(run(folder, sys.argv[3:])))
        return
    print(f"{'inodes':>10} {'seconds':>8} {'us each':>8} {'peak MiB':>9}")
    for size in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as name:
            keys = make_layers(LayerCache(Path(name) / "cache"), size)
            child = [sys.executable, "-m", "bench.sqsh_inodes", "--child", name, *keys]
            found = json.loads(subprocess.run(child, check=True, capture_output=True).stdout)
            each = found["seconds"] / found["inodes"] * 1e6
            print(
                f"{found['inodes']:>10} {found['seconds']:>8.2f} {each:>8.1f}"
                f" {found['peak_mib']:>9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
