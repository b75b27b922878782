"""Texts as blocks of tokens: no padding, so every step has the same number of them."""

from __future__ import annotations

import argparse

import torch
from transformers import PreTrainedTokenizerBase

from common import text
from common.errors import ExampleError
from common.loop import Batch
from common.ranks import Ranks


def texts(options: argparse.Namespace, ranks: Ranks) -> list[str]:
    """The lines of --data, or enough made ones for some steps without a repetition."""
    if options.data:
        return [row["text"] for row in text.read_lines(options.data, "text")]
    characters = 4 * ranks.world * options.batch * options.seq
    rows = text.pairs(max(500, characters // 60), options.seed)
    return [f"{row['source']} {row['target']}." for row in rows]


class Blocks:
    """All texts in one row, with an end mark after each, cut into blocks of `seq` tokens."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, lines: list[str], options: argparse.Namespace
    ) -> None:
        ids = [
            token
            for encoded in tokenizer(lines, add_special_tokens=False)["input_ids"]
            for token in (*encoded, tokenizer.eos_token_id)
        ]
        count = len(ids) // options.seq
        if not count:
            raise ExampleError(f"--data has {len(ids)} tokens, fewer than --seq {options.seq}")
        self._blocks = torch.tensor(ids[: count * options.seq]).view(count, options.seq)
        self._batch, self._seed = options.batch, options.seed
        self._order: dict[int, list[int]] = {}

    def batch(self, step: int, ranks: Ranks) -> Batch:
        """This rank's sequences of a step: each epoch in an order of its own."""
        first = ((step - 1) * ranks.world + ranks.rank) * self._batch
        chosen = [self._at(first + n) for n in range(self._batch)]
        ids = self._blocks[chosen].to(ranks.device)
        return {"input_ids": ids, "labels": ids}

    def _at(self, index: int) -> int:
        epoch, place = divmod(index, len(self._blocks))
        if epoch not in self._order:
            random = torch.Generator().manual_seed(self._seed * 1009 + epoch)
            self._order = {epoch: torch.randperm(len(self._blocks), generator=random).tolist()}
        return self._order[epoch][place]
