"""Whether the processor has a part in the bytes of a layer's gzip: it must not.

    .venv/bin/python -m bench.gzip_processors FILE...

The first 16 MB of the files are compressed by zlib-ng as layers are (`gzip_stream`), here and
under qemu-user (apt: qemu-user) as processors of several generations, some without SSE4.2. With
`--arm64 ROOT`, a root file system for arm64 that has Python of this version and its zlib_ng, also
there. It ends with 1 where two differ; a second or two a processor.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import zlib_ng
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PROCESSORS = ("qemu64", "core2duo", "Nehalem", "Haswell", "max")
SAMPLE_BYTES = 16_000_000

PROGRAM = """
import hashlib, sys
sys.path[:0] = sys.argv[2:]
from slipway.registry import gzip_stream
digest = hashlib.sha256()
with open(sys.argv[1], "rb") as stream:
    for piece in gzip_stream(iter(stream), lambda _: None):
        digest.update(piece)
print(digest.hexdigest())
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--arm64", type=Path, help="a root file system for arm64")
    options = parser.parse_args()
    python = os.path.realpath(sys.executable)
    site = str(Path(zlib_ng.__file__).parents[1])
    table = Table("processor", "sha256 of the gzip")
    digests = set()
    with tempfile.NamedTemporaryFile() as sample:
        for path in options.files:
            sample.write(path.read_bytes()[: SAMPLE_BYTES - sample.tell()])
        sample.flush()
        words = ["-I", "-c", PROGRAM, sample.name, str(ROOT)]
        commands = {"this machine's": [python, *words, site]}
        for name in PROCESSORS:
            commands[name] = ["qemu-x86_64", "-cpu", name, python, *words, site]
        if options.arm64:
            interpreter = next(options.arm64.glob("usr/bin/python3.[0-9]*[0-9]"))
            commands["arm64"] = ["qemu-aarch64", "-L", str(options.arm64), str(interpreter), *words]
        for name, command in commands.items():
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            digests.add(done.stdout)
            table.add_row(name, done.stdout.strip())
    Console(width=120).print(table)
    return len(digests) != 1


if __name__ == "__main__":
    sys.exit(main())
