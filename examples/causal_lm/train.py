"""Fine-tune a causal language model (Llama-shaped): all weights, or a LoRA adapter.

    launch local --nproc 2 --checkpoint-dir /tmp/ck --resume auto -- \\
        examples/causal_lm/train.py --checkpoint-dir /tmp/ck --steps 100
    launch local --nproc 2 --runner deepspeed -- examples/causal_lm/train.py --parallel zero3

Needs transformers; peft for --lora-rank, DeepSpeed for --parallel zero3.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from causal_lm import model as models
from causal_lm.data import Blocks, texts
from causal_lm.options import parse
from common import loop, sharded
from common import ranks as ranked
from common import weights as weight_files
from common.options import uses_bf16
from common.progress import Progress
from common.ranks import Ranks


class Run:
    """One rank of one run: who it is, and in which precision it works."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.ranks: Ranks = ranked.find()
        self.bf16 = uses_bf16(options, cuda=self.ranks.device.type == "cuda")
        self.dtype = torch.bfloat16 if self.bf16 else torch.float32
        self.lora = options.lora_rank > 0
        self.tokenizer = models.load_tokenizer(options)

    def fsdp(self) -> loop.Engine:
        """Weights in float32 (frozen ones as they are computed with), sharded by block."""
        ranked.connect(self.ranks)
        stored = self.dtype if self.lora else torch.float32
        # A pretrained model is loaded on the CPU and moved block by block; one made on the fly is
        # made where it stays, which takes seconds instead of minutes.
        with torch.device("cpu" if self.options.model else self.ranks.device):
            model = models.load_model(self.options, self.tokenizer, stored)
        blocks = models.blocks(model)
        if self.lora:
            model = models.add_adapter(model, self.options)
        sharded.shard(model, blocks, sharded.mesh(self.ranks, "full"), bf16=self.bf16)
        self.model = model
        return sharded.ShardedEngine(model, self.ranks, self.options)

    def zero3(self) -> loop.Engine:
        """Sharded by DeepSpeed, already while they are made or loaded."""
        from causal_lm import zero_engine

        config = zero_engine.read_config(
            self.options.zero_config, self.options.batch, bf16=self.bf16
        )
        sharding = zero_engine.connect(self.ranks, config)
        model = models.load_model(self.options, self.tokenizer, self.dtype)
        if self.lora:
            model = models.add_adapter(model, self.options)
        self.model = model
        engine = zero_engine.ZeroEngine(model, config, self.ranks, self.options)
        del sharding
        return engine

    def export(self, engine: loop.Engine) -> None:
        """The plain model, adapter merged in, as from_pretrained and LMI read it."""
        weights = engine.weights()
        folder: Path = self.options.output_dir
        if self.lora:
            adapter = [weight for weight in weights if ".lora_" in weight.name]
            models.write_adapter(folder / "adapter", adapter, self.model, first=self.ranks.first)
            weights = models.merged(weights, self.options.lora_alpha / self.options.lora_rank)
        weight_files.write(folder, weights, self.dtype, first=self.ranks.first)
        if self.ranks.first:
            models.save_config(self.model, self.tokenizer, folder, self.dtype)


def main() -> None:
    """One rank."""
    options = parse()
    run = Run(options)
    ranks = run.ranks
    engine = run.zero3() if options.parallel == "zero3" else run.fsdp()
    stop = ranked.Stop(ranks.device)
    data = Blocks(run.tokenizer, texts(options, ranks), options)
    done = engine.load()

    parameters = sum(weight.count for weight in engine.weights())
    config = run.model.config
    # 6 operations per weight and token, 4 where weights are frozen, and the attention's (PaLM,
    # arXiv:2204.02311, appendix B).
    flops = (4.0 if run.lora else 6.0) * parameters
    flops += 12.0 * config.num_hidden_layers * config.hidden_size * options.seq
    progress = Progress(options.batch * options.seq * ranks.world, ranks.world, flops)

    def batch(step: int) -> loop.Batch:
        return data.batch(step, ranks)

    found = loop.train(engine, batch, options, ranks, stop, progress, done)
    if found["status"] == "done":
        run.export(engine)
    loop.summary(
        "causal_lm",
        ranks,
        found,
        parameters=parameters,
        parallel=options.parallel,
        lora_rank=options.lora_rank,
        transformers=transformers.__version__,
    )
    ranked.finish(ranks)


if __name__ == "__main__":
    main()
