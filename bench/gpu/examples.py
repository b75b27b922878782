"""The training examples as this bench starts and reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.gpu.bench import EXAMPLES, Bench
from bench.gpu.running import Running

#: Adam in mixed precision: 2 + 2 bytes of bf16 weight and gradient and 12 of float32 state, or 16
#: of float32 weight, gradient and two moments (ZeRO, arXiv:1910.02054, section 3.1).
STATE_BYTES = 16
VOCABULARY = 32000
#: A line of JSON that a rank has printed, behind the launcher's prefix.
SAID = re.compile(r'^\[r\d+\] (\{"event": "(\w+)".*\})$')


@dataclass(frozen=True)
class Example:
    """One example: the launcher's options and the words of its command line."""

    name: str
    runner: str
    words: tuple[str, ...]

    def start(
        self, bench: Bench, words: Sequence[str], *, count: int, options: Sequence[str] = ()
    ) -> Running:
        """Run it on `count` GPUs."""
        options = [f"--runner={self.runner}", *options]
        return bench.launch([*self.words, *words], options=options, count=count)


FSDP = Example("FSDP", "torchrun", (str(EXAMPLES / "fsdp_pretrain" / "train.py"),))
ZERO3 = Example(
    "ZeRO-3", "deepspeed", (str(EXAMPLES / "causal_lm" / "train.py"), "--parallel=zero3")
)


@dataclass(frozen=True)
class Shape:
    """A Llama's size."""

    layers: int
    hidden: int
    heads: int
    vocab: int

    @property
    def parameters(self) -> int:
        """Four square matrices and an MLP of about eight squares a layer; embedding and head."""
        return self.layers * 12 * self.hidden**2 + 2 * self.vocab * self.hidden

    def words(self) -> list[str]:
        """As the examples' options."""
        size = [f"--layers={self.layers}", f"--hidden={self.hidden}"]
        return [*size, f"--heads={self.heads}", f"--vocab={self.vocab}"]


def shape_for(parameters: float) -> Shape:
    """The model nearest to a number of parameters; heads are 128 wide, layers about hidden / 128.

    That is the proportion of Llama's own sizes (arXiv:2302.13971, table 2).
    """
    widths = range(1024, 16384 + 1, 512)
    hidden = min(
        widths,
        key=lambda width: abs(Shape(width // 128, width, width // 128, VOCABULARY).parameters
                              - parameters),
    )  # fmt: skip
    rest = parameters - 2 * VOCABULARY * hidden
    layers = max(1, round(rest / (12 * hidden**2)))
    return Shape(layers, hidden, hidden // 128, VOCABULARY)


def said(lines: Sequence[str], event: str) -> list[dict[str, Any]]:
    """What ranks have reported under the name of an event, in order."""
    matches = [match for match in map(SAID.match, lines) if match and match[2] == event]
    return [json.loads(match[1]) for match in matches]
