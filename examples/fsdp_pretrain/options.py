"""The options of the FSDP pre-training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from common import options as shared


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with a usage error."""
    made = shared.parser("Pre-train a Llama on synthetic tokens with FSDP2 and DCP checkpoints.")
    shared.add_size(made, layers=4, hidden=128, heads=4, seq=128)
    more = made.add_argument_group("sharding")
    more.add_argument(
        "--kv-heads", type=shared.positive, help="key and value heads; default: as --heads"
    )
    more.add_argument(
        "--shard",
        choices=("full", "node"),
        default="full",
        help="over all ranks, or within each node with a replica per node (HSDP)",
    )
    shared.add_recompute(more)
    options = made.parse_args(arguments)
    shared.check_size(made, options)
    options.kv_heads = options.kv_heads or options.heads
    if options.heads % options.kv_heads:
        made.error(f"--heads {options.heads} must be a multiple of --kv-heads")
    return options
