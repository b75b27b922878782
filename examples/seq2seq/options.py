"""The options of the sequence-to-sequence fine-tuning."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import options as shared

ZERO_CONFIG = Path(__file__).with_name("zero3.json")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with a usage error."""
    made = shared.parser("Fine-tune a T5 with the Hugging Face Trainer and DeepSpeed ZeRO-3.")
    shared.add_size(made, layers=2, hidden=128, heads=4, seq=64)
    what = made.add_argument_group("model and data")
    what.add_argument(
        "--target-seq", type=shared.positive, default=16, help="tokens per answer; --seq: source"
    )
    what.add_argument(
        "--model", type=Path, help="a directory with a pretrained model; default: made on the fly"
    )
    what.add_argument(
        "--data",
        type=Path,
        help='a file of JSON lines {"source": ..., "target": ...}; default: made on the fly',
    )
    what.add_argument("--zero-config", type=Path, default=ZERO_CONFIG, help="DeepSpeed's JSON")
    options = made.parse_args(arguments)
    shared.check_size(made, options)
    return options
