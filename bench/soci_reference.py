"""Checkpoints of zTOCs beside those of AWS's own code, byte by byte, and files read by it.

    git clone https://github.com/awslabs/soci-snapshotter DIR
    .venv/bin/python -m bench.soci_reference --soci DIR LAYER.tar.gz...

AWS's ztoc/compression/gzip_zinfo.c is compiled with cc and zlib's headers (zlib1g-dev) and called.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
from pathlib import Path

from slipway.soci.gzip_spans import SPAN
from slipway.soci.ztoc import Ztoc, checkpoint_bytes, make_ztoc

PIECE = 1 << 20


def compiled(soci: Path, folder: Path) -> ctypes.CDLL:
    """AWS's part as a library."""
    source = soci / "ztoc" / "compression"
    library = folder / "zinfo.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library)]
    command += [str(source / "gzip_zinfo.c"), "-lz"]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.get_blob_size.restype = ctypes.c_uint
    return loaded


class Reference:
    """What AWS's code makes of one layer."""

    def __init__(self, library: ctypes.CDLL, layer: Path) -> None:
        self.library, self.layer = library, str(layer).encode()
        self.index = ctypes.c_void_p()
        count = library.generate_zinfo_from_file(
            self.layer, ctypes.c_int64(SPAN), ctypes.byref(self.index)
        )
        if count < 1:
            raise SystemExit(f"{layer}: AWS's code says {count}")

    def checkpoints(self) -> bytes:
        """As a zTOC holds them."""
        size = self.library.get_blob_size(self.index)
        out = ctypes.create_string_buffer(size)
        if self.library.zinfo_to_blob(self.index, out) != size:
            raise SystemExit("AWS's code does not write its checkpoints")
        return out.raw

    def read(self, blob: bytes, offset: int, size: int) -> bytes:
        """A stretch of the plain tar, by checkpoints that we made."""
        self.library.blob_to_zinfo.restype = ctypes.c_void_p
        index = ctypes.c_void_p(self.library.blob_to_zinfo(blob, ctypes.c_int64(len(blob))))
        out = ctypes.create_string_buffer(size)
        got = self.library.extract_data_from_file(
            self.layer, index, ctypes.c_int64(offset), out, size
        )
        if got != size:
            raise SystemExit(f"AWS's code reads {got} of {size} bytes at {offset}")
        return out.raw


def compare(library: ctypes.CDLL, layer: Path) -> str:
    """One line on one layer."""
    with layer.open("rb") as stream:
        ours: Ztoc = make_ztoc(iter(lambda: stream.read(PIECE), b""))
    reference = Reference(library, layer)
    blob = checkpoint_bytes(ours)
    same = blob == reference.checkpoints()
    files = [entry for entry in ours.entries if entry.size]
    with tempfile.TemporaryFile() as plain:
        subprocess.run(["gzip", "-dc", layer], stdout=plain, check=True)
        for entry in files[:: max(1, len(files) // 200)]:
            plain.seek(entry.offset)
            if reference.read(blob, entry.offset, entry.size) != plain.read(entry.size):
                raise SystemExit(f"{layer}: {entry.name!r} is read otherwise")
    words = "the same bytes" if same else "OTHER BYTES"
    return f"{layer}: {len(ours.checkpoints)} checkpoints, {words}; {len(files)} files"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--soci", type=Path, required=True, help="a clone of soci-snapshotter")
    parser.add_argument("layers", type=Path, nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(options.soci, Path(folder))
        for layer in options.layers:
            print(compare(library, layer))


if __name__ == "__main__":
    main()
