"""Options that several examples have. Needs nothing but Python, so `--help` is quick.

Every option takes a value, because SageMaker hands over a hyperparameter `name: value` as
`--name value`: there a bare flag cannot be given.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

#: SageMaker packs this directory into one archive when the job ends: hours for a large model.
MODEL_DIR = Path("/opt/ml/model")


def outside_model_dir(text: str) -> Path:
    """A directory to write to; refuses /opt/ml/model."""
    path = Path(text).absolute()
    if path == MODEL_DIR or MODEL_DIR in path.parents:
        raise argparse.ArgumentTypeError(
            f"{text}: SageMaker packs {MODEL_DIR} into one archive at the end, which takes hours "
            "for a large model. Write elsewhere and let `launch --upload DIR=S3` take it"
        )
    return path


def positive(text: str) -> int:
    """A whole number above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of a run: steps, data type, checkpoints, results."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    run = made.add_argument_group("run")
    run.add_argument("--steps", type=positive, default=60, help="optimizer steps in all")
    run.add_argument("--batch", type=positive, default=4, help="sequences per GPU and step")
    run.add_argument("--lr", type=float, default=3e-3, help="learning rate")
    run.add_argument("--seed", type=int, default=0, help="of weights and data")
    run.add_argument(
        "--dtype",
        choices=("auto", "bf16", "fp32"),
        default="auto",
        help="of the computation; auto: bf16 on GPUs, fp32 on CPUs",
    )
    run.add_argument("--log-every", type=positive, default=10, help="steps between two lines")
    run.add_argument(
        "--output-dir",
        type=outside_model_dir,
        default=Path("/tmp/output"),  # noqa: S108 - local NVMe on large SageMaker instances
        help="the final model, as from_pretrained and LMI read it; what --upload should take",
    )
    saved = made.add_argument_group("checkpoints")
    saved.add_argument(
        "--checkpoint-dir",
        type=outside_model_dir,
        default=Path(os.environ.get("LAUNCH_CHECKPOINT_DIR", "/tmp/checkpoints")),  # noqa: S108
        help="the same directory as the launcher's --checkpoint-dir",
    )
    saved.add_argument(
        "--checkpoint-every", type=int, default=20, help="steps between two; 0: only on SIGTERM"
    )
    saved.add_argument("--keep", type=positive, default=2, help="checkpoints left on this disk")
    saved.add_argument(
        "--resume-from",
        type=Path,
        default=os.environ.get("LAUNCH_RESUME_FROM") or None,
        help="a checkpoint to go on from; the launcher's --resume sets it",
    )
    # The deepspeed launcher adds it; the environment's LOCAL_RANK says the same.
    made.add_argument("--local_rank", help=argparse.SUPPRESS)
    return made


def add_size(
    made: argparse.ArgumentParser, *, layers: int, hidden: int, heads: int, seq: int
) -> None:
    """The size of a model that is made on the fly; the defaults are for a minute on a CPU."""
    size = made.add_argument_group("size of a model made on the fly")
    size.add_argument("--layers", type=positive, default=layers, help="transformer blocks")
    size.add_argument("--hidden", type=positive, default=hidden, help="width of the model")
    size.add_argument("--heads", type=positive, default=heads, help="attention heads")
    size.add_argument("--seq", type=positive, default=seq, help="tokens per sequence")
    size.add_argument("--vocab", type=positive, default=512, help="at least 260: bytes and marks")
    size.add_argument(
        "--intermediate", type=positive, help="width of the MLP; default: Llama's rule"
    )


def uses_bf16(options: argparse.Namespace, *, cuda: bool) -> bool:
    """What --dtype means on this device."""
    return options.dtype == "bf16" or (options.dtype == "auto" and cuda)


def add_recompute(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Whether activations are kept; off by default."""
    group.add_argument(
        "--recompute",
        choices=("on", "off"),
        default="off",
        help="recompute activations in the backward pass: less memory, a third more work",
    )


def check_size(made: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Complete what depends on other options; exits with a usage error where they disagree."""
    if options.hidden % (2 * options.heads):
        made.error(f"--hidden {options.hidden} must be a multiple of twice --heads")
    if options.vocab < 260:
        made.error("--vocab must be at least 260")
    if options.intermediate is None:
        options.intermediate = mlp_width(options.hidden)


def mlp_width(hidden: int) -> int:
    """Two thirds of four times the width, to the next multiple of 256 (Llama's reference code)."""
    multiple = 256 if hidden >= 1024 else 16
    return multiple * -(-(8 * hidden // 3) // multiple)
