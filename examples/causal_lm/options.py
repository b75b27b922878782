"""The options of the causal LM fine-tuning."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import options as shared

ZERO_CONFIG = Path(__file__).with_name("zero3.json")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with a usage error."""
    made = shared.parser("Fine-tune a causal language model: all weights, or a LoRA adapter.")
    shared.add_size(made, layers=4, hidden=128, heads=4, seq=128)
    what = made.add_argument_group("model and data")
    what.add_argument(
        "--model", type=Path, help="a directory with a pretrained model; default: made on the fly"
    )
    what.add_argument(
        "--data", type=Path, help='a file of JSON lines {"text": ...}; default: made on the fly'
    )
    what.add_argument(
        "--parallel",
        choices=("fsdp", "zero3"),
        default="fsdp",
        help="fsdp: PyTorch alone (FSDP2); zero3: DeepSpeed",
    )
    what.add_argument(
        "--zero-config", type=Path, default=ZERO_CONFIG, help="DeepSpeed's JSON, with zero3"
    )
    what.add_argument(
        "--lora-rank", type=int, default=0, help="above 0: train a LoRA adapter of this rank"
    )
    what.add_argument("--lora-alpha", type=float, default=32.0, help="its scale, times the rank")
    shared.add_recompute(what)
    options = made.parse_args(arguments)
    shared.check_size(made, options)
    return options
