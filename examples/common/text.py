"""A tokenizer and texts made in code, so that the examples run without a network."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from common.errors import ExampleError

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
COLOURS = ("red", "green", "blue", "black", "white")
THINGS = ("boat", "door", "horse", "lamp", "stone", "tree")


def byte_tokenizer(*, close: bool) -> PreTrainedTokenizerFast:
    """One token per byte and three marks; with `close` every text ends with the end mark (T5)."""
    symbols = [PAD, BEGIN, END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={s: n for n, s in enumerate(symbols)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if close:
        made.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, symbols.index(END))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=PAD, bos_token=BEGIN, eos_token=END
    )


def pairs(count: int, seed: int) -> list[dict[str, str]]:
    """Questions with answers that follow from them."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    made = []
    for _ in range(count):
        colour, thing = dice.choice(COLOURS), dice.choice(THINGS)
        source = f"the {thing} is {colour}. which colour has the {thing}?"
        made.append({"source": source, "target": f"{colour} {thing}"})
    return made


def read_lines(path: Path, *fields: str) -> list[dict[str, str]]:
    """A file of JSON lines; ExampleError names the first line that lacks a field."""
    rows: list[dict[str, str]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            row: dict[str, Any] = json.loads(line)
            missing = [name for name in fields if name not in row]
            if missing:
                raise ExampleError(f"{path}:{number}: no {', '.join(missing)}")
            rows.append(row)
    return rows
