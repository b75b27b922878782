"""The model to fine-tune: a pretrained one, or a Llama made on the fly; a LoRA adapter on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerBase,
)

from common import text, weights
from common.errors import ExampleError
from common.weights import Weight


def load_tokenizer(options: argparse.Namespace) -> PreTrainedTokenizerBase:
    """The pretrained model's, or one made on the fly."""
    if options.model:
        return AutoTokenizer.from_pretrained(options.model)
    return text.byte_tokenizer(close=False)


def load_model(
    options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype
) -> nn.Module:
    """From --model, else made with the size that was asked for."""
    if options.model:
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    else:
        config = LlamaConfig(
            hidden_size=options.hidden,
            intermediate_size=options.intermediate,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            num_key_value_heads=options.heads,
            max_position_embeddings=options.seq,
            vocab_size=options.vocab,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        torch.manual_seed(options.seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.config.use_cache = False
    if options.recompute == "on":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def add_adapter(model: nn.Module, options: argparse.Namespace) -> nn.Module:
    """Freeze the model and put a LoRA adapter on every linear layer of its blocks."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        cure = "pip install -r examples/requirements.txt"
        raise ExampleError(f"--lora-rank needs peft: {cure}") from error
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    if options.recompute == "on":
        # Frozen embeddings give no gradient to what follows (peft, "Troubleshooting").
        model.enable_input_require_grads()
    return get_peft_model(model, config)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks: what is sharded, gathered and freed as one."""
    names: Sequence[str] = getattr(model, "_no_split_modules", None) or ()
    return [module for module in model.modules() if type(module).__name__ in names]


def merged(every: Sequence[Weight], scale: float) -> list[Weight]:
    """The weights of a model with an adapter as those of the plain model: W + scale * B A.

    The names are peft's (huggingface/peft:src/peft/tuners/lora/layer.py).
    """
    by_name = {weight.name.removeprefix("base_model.model."): weight for weight in every}
    plain = []
    for name, weight in by_name.items():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        layer, inside, _ = name.partition(".base_layer.weight")
        if inside:
            down, up = (by_name[f"{layer}.lora_{side}.default.weight"] for side in "AB")
            weight = replace(weight, whole=_Merged(weight, down, up, scale))
            name = f"{layer}.weight"
        plain.append(replace(weight, name=name.replace(".base_layer.", ".")))
    return plain


class _Merged:
    """Gathers three tensors and adds them up in float32."""

    def __init__(self, base: Weight, down: Weight, up: Weight, scale: float) -> None:
        self._parts, self._scale = (base, down, up), scale

    def __call__(self) -> torch.Tensor:
        base, down, up = (part.whole().float() for part in self._parts)
        return base + self._scale * (up @ down)


def write_adapter(
    folder: Path, adapter: Sequence[Weight], model: nn.Module, *, first: bool
) -> None:
    """The adapter alone, as peft and LMI read it. All ranks call this; the first one writes."""
    plain = [replace(weight, name=weight.name.replace(".default.", ".")) for weight in adapter]
    weights.write(folder, plain, torch.float32, first=first, stem="adapter_model")
    if first:
        model.peft_config["default"].save_pretrained(folder)


def save_config(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype
) -> None:
    """Everything beside the weights that from_pretrained reads."""
    config: Any = model.config
    config.dtype = dtype
    config.use_cache = True
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        generation.save_pretrained(folder)
