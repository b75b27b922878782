"""Fine-tune a T5 (Flan-T5) with the Hugging Face Trainer and DeepSpeed ZeRO-3.

    launch local --nproc 2 --runner deepspeed --checkpoint-dir /tmp/ck --resume auto -- \\
        examples/seq2seq/train.py --checkpoint-dir /tmp/ck --steps 100

Needs transformers and accelerate, and DeepSpeed, which Slipway's images have.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import deepspeed

from common import checkpoints, loop, text, zero
from common import ranks as ranked
from common.options import uses_bf16
from common.progress import Progress
from seq2seq.callback import LauncherCallback
from seq2seq.data import Pairs, rows
from seq2seq.options import parse


def arguments(
    options: argparse.Namespace, config: dict[str, Any], *, bf16: bool, cuda: bool
) -> Seq2SeqTrainingArguments:
    """How the Trainer works; from here on, models are sharded while they are loaded."""
    every: int = options.checkpoint_every
    return Seq2SeqTrainingArguments(
        output_dir=str(options.checkpoint_dir),
        deepspeed=config,
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        learning_rate=options.lr,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, options.steps // 20),
        seed=options.seed,
        # T5 overflows in fp16; bf16 has the range of fp32.
        bf16=bf16,
        use_cpu=not cuda,
        logging_steps=options.log_every,
        logging_first_step=True,
        save_strategy="steps" if every else "no",
        save_steps=every or options.steps,
        save_total_limit=options.keep,
        # Nodes have disks of their own. Each keeps what belongs to its ranks, and the launcher
        # uploads all of it. The best model may be on another node's disk, so it is not asked for.
        save_on_each_node=True,
        load_best_model_at_end=False,
        disable_tqdm=True,
        report_to=[],
    )


def make_model(options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A T5 of the size that was asked for."""
    config = T5Config(
        d_model=options.hidden,
        d_kv=options.hidden // options.heads,
        d_ff=options.intermediate,
        num_layers=options.layers,
        num_heads=options.heads,
        vocab_size=options.vocab,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    torch.manual_seed(options.seed)
    return AutoModelForSeq2SeqLM.from_config(config)


def main() -> None:
    """One rank."""
    options = parse()
    ranks = ranked.find()
    zero.be_quiet()
    deepspeed.init_distributed(dist_backend=ranks.backend, auto_mpi_discovery=False)
    config = zero.read_config(options.zero_config)
    resume: Path | None = options.resume_from
    if resume:
        # The Trainer itself finds the right one, by the file `latest` or `latest_universal`.
        step = checkpoints.step_of(resume)
        zero.source(resume / f"global_step{step}", ranks.world, config)
    cuda = ranks.device.type == "cuda"
    bf16 = uses_bf16(options, cuda=cuda)
    if options.model:
        # After the arguments, so that it is sharded while it is loaded.
        how = arguments(options, config, bf16=bf16, cuda=cuda)
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        model = AutoModelForSeq2SeqLM.from_pretrained(options.model)
    else:
        # Before them: transformers does not initialize a T5 that is made in shards.
        tokenizer = text.byte_tokenizer(close=True)
        model = make_model(options, tokenizer)
        how = arguments(options, config, bf16=bf16, cuda=cuda)
    tokens = options.batch * (options.seq + options.target_seq) * ranks.world
    follower = LauncherCallback(ranks, Progress(tokens, ranks.world))
    trainer = Seq2SeqTrainer(
        model=model,
        args=how,
        train_dataset=Pairs(tokenizer, rows(options), options),
        processing_class=tokenizer,
        callbacks=[follower],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    found = follower.found
    if found["status"] == "done":
        # Gathered on each node's first rank, and written there.
        trainer.save_model(str(options.output_dir))
    loop.summary("seq2seq", ranks, found, transformers=transformers.__version__)
    ranked.finish(ranks)


if __name__ == "__main__":
    main()
