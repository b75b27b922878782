"""What it costs to read what is in a base, to write an image's bill, and to compare two images.

    .venv/bin/python -m bench.inventory --work DIR [--gigabytes 2]

A base in an OCI layout below DIR: layers of half-random data with 40,000 files, 400 Python
distributions in the lowest of them and 700 Debian packages in the highest. Nothing of it is known
at first; then all notes are there; then one layer of its is another. The bill is written in a
process of its own, whose memory is told.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from slipway.core import anonymous, human_bytes, silent
from slipway.inventory import (
    BilledImage,
    LayerNotes,
    compare_inventories,
    open_layered_image,
    read_inventory,
    write_bill,
)
from slipway.records import ImageInventory
from tests.support.oci_bases import CONFIG, base_tar, put

SITE = "opt/venv/lib/python3.12/site-packages"
LAYERS, FILES = 8, 40_000
_PYTHONS, _DEBIANS = 400, 700


def data_layer(seed: int, size: int) -> bytes:
    """A tar of files whose content compresses to about a half."""
    source = random.Random(seed)
    count = FILES // LAYERS
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(count):
            half = source.randbytes(size // count // 2)
            member = tarfile.TarInfo(f"opt/data/{seed}/{number}")
            member.size = 2 * len(half)
            tar.addfile(member, io.BytesIO(half + bytes(len(half))))
    return buffer.getvalue()


def described_layer(version: str) -> dict[str, bytes]:
    """The layer with the databases of packages."""
    stanza = (
        "Package: lib{n}\nStatus: install ok installed\nArchitecture: amd64\n"
        f"Version: {version}-1\nDescription: {'x' * 800}\n"
    )
    status = "\n".join(stanza.replace("{n}", str(number)) for number in range(_DEBIANS))
    return {
        "etc/os-release": b"ID=debian\nVERSION_ID=12\n",
        "var/lib/dpkg/status": status.encode(),
        "opt/venv/bin/python": b"",
    }


def write_image(folder: Path, gigabytes: float, version: str) -> int:
    """An OCI layout of the base; gives its compressed bytes. Layers that are there stay."""
    size = int(gigabytes * 1e9) // LAYERS
    described = described_layer(version)
    distributions = {
        f"{SITE}/d{number}-1.dist-info/METADATA": (
            f"Name: d{number}\nVersion: 1.{number}\n\n{'x' * 3000}".encode()
        )
        for number in range(_PYTHONS)
    }
    parts, diff_ids = [], []
    for number in range(LAYERS + 2):
        kept = folder / f"layer-{number if number <= LAYERS else version}.json"
        if not kept.exists():
            if number < LAYERS:
                plain = data_layer(number, size)
            else:
                plain = base_tar(distributions if number == LAYERS else described)
            part = put(folder, gzip.compress(plain, 1, mtime=0))
            kept.write_text(json.dumps([part, _digest(plain)]))
        part, diff_id = json.loads(kept.read_text())
        parts.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **part})
        diff_ids.append(diff_id)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": CONFIG,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **put(folder, json.dumps(config).encode()),
        },
        "layers": parts,
    }
    entry = {"mediaType": manifest["mediaType"], **put(folder, json.dumps(manifest).encode())}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return sum(part["size"] for part in parts)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of an action, and what it gave."""
    started = time.monotonic()
    result = action()
    return time.monotonic() - started, result


def read(work: Path) -> ImageInventory:
    """The inventory of the layout."""
    with open_layered_image(f"oci:{work / 'base'}", anonymous) as image:
        return read_inventory(image, LayerNotes(work / "cache"), silent)


def peak_kilobytes() -> int:
    """The most memory that this process has had (getrusage tells the parent's at a fork, too)."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0])


def bill_in_process(work: Path) -> tuple[float, float]:
    """Seconds and megabytes of a process that reads the inventory's notes and writes the bill."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.inventory", "--work", str(work), "--bill"],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, kilobytes = done.stdout.split()
    return float(seconds), int(kilobytes) / 1000


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="unpacked")
    parser.add_argument("--bill", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work: Path = options.work
    if options.bill:
        inventory = read(work)
        of = BilledImage("cell", "h/p", f"sha256:{'1' * 64}", "", "base", f"sha256:{'2' * 64}")
        seconds, raw = timed(lambda: write_bill(of, inventory, inventory))
        assert len(json.loads(raw)["packages"]) == _PYTHONS + _DEBIANS + 2
        print(seconds, peak_kilobytes())
        return
    shutil.rmtree(work / "cache", ignore_errors=True)
    (work / "base").mkdir(parents=True, exist_ok=True)
    table = Table("what", "seconds", "result")
    size = write_image(work / "base", options.gigabytes, "1.0")
    seconds, before = timed(lambda: read(work))
    rate = human_bytes(int(size / seconds))
    table.add_row("first sight of the base", f"{seconds:.1f}", f"{human_bytes(size)}, {rate}/s")
    seconds, _ = timed(lambda: read(work))
    table.add_row("all layers known", f"{seconds:.2f}", "")
    seconds, megabytes = bill_in_process(work)
    table.add_row("bill of materials", f"{seconds:.3f}", f"{megabytes:.0f} MB of memory in all")
    write_image(work / "base", options.gigabytes, "1.1")
    seconds, after = timed(lambda: read(work))
    table.add_row("one small layer is another", f"{seconds:.2f}", "")
    seconds, difference = timed(lambda: compare_inventories(before, after))
    table.add_row("difference", f"{seconds:.3f}", difference.summary)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
