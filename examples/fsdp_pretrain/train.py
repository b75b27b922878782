"""Pre-train a Llama on synthetic tokens: FSDP2, DCP checkpoints, resume at any number of GPUs.

    launch local --nproc 2 --checkpoint-dir /tmp/ck --resume auto -- \\
        examples/fsdp_pretrain/train.py --checkpoint-dir /tmp/ck --steps 100

Needs PyTorch 2.6 or newer and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import loop, sharded, weights
from common import ranks as ranked
from common.options import uses_bf16
from common.progress import Progress
from fsdp_pretrain.model import Llama, Size
from fsdp_pretrain.options import parse


def tokens(size: Size, batch: int, seed: int, index: int, device: torch.device) -> loop.Batch:
    """Sequences that count upwards by a step of their own: a model can learn that."""
    random = torch.Generator().manual_seed(seed * 1_000_003 + index)
    start = torch.randint(size.vocab, (batch, 1), generator=random)
    by = torch.randint(1, 5, (batch, 1), generator=random)
    ids = ((start + by * torch.arange(size.seq)) % size.vocab).to(device)
    return {"input_ids": ids, "labels": ids}


def main() -> None:
    """One rank."""
    options = parse()
    ranks = ranked.find()
    ranked.connect(ranks)
    stop = ranked.Stop(ranks.device)
    size = Size(
        layers=options.layers,
        hidden=options.hidden,
        heads=options.heads,
        kv_heads=options.kv_heads,
        intermediate=options.intermediate,
        vocab=options.vocab,
        seq=options.seq,
    )
    bf16 = uses_bf16(options, cuda=ranks.device.type == "cuda")
    with torch.device("meta"):
        model = Llama(size, recompute=options.recompute == "on")
    mesh = sharded.mesh(ranks, options.shard)
    sharded.shard(model, model.model.layers, mesh, bf16=bf16)
    model.to_empty(device=ranks.device)
    model.initialize(options.seed * 100_003 + mesh.get_local_rank("shard"))
    parameters = sum(weight.numel() for weight in model.parameters())

    engine = sharded.ShardedEngine(model, ranks, options)
    done = engine.load()
    # 6 operations per weight and token, and the attention's (PaLM, arXiv:2204.02311, appendix B).
    flops = 6.0 * parameters + 12.0 * size.layers * size.hidden * size.seq
    progress = Progress(options.batch * size.seq * ranks.world, ranks.world, flops)

    def batch(step: int) -> loop.Batch:
        index = step * ranks.world + ranks.rank
        return tokens(size, options.batch, options.seed, index, ranks.device)

    found = loop.train(engine, batch, options, ranks, stop, progress, done)
    if found["status"] == "done":
        dtype = torch.bfloat16 if bf16 else torch.float32
        weights.write(options.output_dir, engine.weights(), dtype, first=ranks.first)
        if ranks.first:
            config = {**size.config(), "torch_dtype": str(dtype).removeprefix("torch.")}
            weights.write_json(options.output_dir / "config.json", config)
    loop.summary("fsdp_pretrain", ranks, found, parameters=parameters)
    ranked.finish(ranks)


if __name__ == "__main__":
    main()
