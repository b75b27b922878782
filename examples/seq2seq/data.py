"""Pairs of source and target, all of one length."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from common import text

#: What torch's cross entropy leaves out, and with it transformers (modeling_t5.py).
IGNORED = -100


def rows(options: argparse.Namespace) -> list[dict[str, str]]:
    """The lines of --data, or made ones."""
    if options.data:
        return text.read_lines(options.data, "source", "target")
    return text.pairs(2000, options.seed)


class Pairs(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Padded to --seq and --target-seq, so that every step has the same number of tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        lines: list[dict[str, str]],
        options: argparse.Namespace,
    ) -> None:
        self._sources = self._encode(tokenizer, [row["source"] for row in lines], options.seq)
        targets = self._encode(tokenizer, [row["target"] for row in lines], options.target_seq)
        self._labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, IGNORED)

    @staticmethod
    def _encode(tokenizer: PreTrainedTokenizerBase, lines: list[str], length: int) -> Any:
        return tokenizer(
            lines, max_length=length, padding="max_length", truncation=True, return_tensors="pt"
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {
            "input_ids": self._sources["input_ids"][index],
            "attention_mask": self._sources["attention_mask"][index],
            "labels": self._labels[index],
        }
