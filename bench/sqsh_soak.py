"""Thousands of random layer stacks: `python -m bench.sqsh_soak 3000 [SEED]` (as root).

The tests of the same name run a hundred; this runs as many as asked for, each stack linked from
layer directories and from archives and compared with the kernel's overlayfs, through the kernel's
squashfs, unsquashfs and Slipway's reader. Compressors and block sizes vary. A failure prints the
smallest stack that fails. One seed makes the same stacks again; without one, it is chosen and said.
"""

from __future__ import annotations

import itertools
import secrets
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from slipway.squashfs import SqshOptions
from tests.support.squashfs_rig import STACKS, Stack, check_stack

_NUMBERS = itertools.count()
OPTIONS = st.sampled_from(
    [
        SqshOptions(name, None, size)
        for name in ("zstd", "gzip", "lz4", "none")
        for size in (4096, 8192)
    ]
)


def main() -> None:
    count = int(sys.argv[1])
    number = int(sys.argv[2]) if sys.argv[2:] else secrets.randbelow(1 << 32)
    print(f"seed {number}", flush=True)
    begun = time.monotonic()
    layers = names = 0
    with tempfile.TemporaryDirectory() as folder:

        @seed(number)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(stack=STACKS, options=OPTIONS)
        def soak(stack: Stack, options: SqshOptions) -> None:
            nonlocal layers, names
            layers += len(stack)
            names += sum(map(len, stack))
            check_stack(stack, Path(folder) / str(next(_NUMBERS)), options)

        soak()
    seconds = time.monotonic() - begun
    print(f"{next(_NUMBERS)} stacks, {layers} layers, {names} names at their tops, {seconds:.0f} s")


if __name__ == "__main__":
    main()
