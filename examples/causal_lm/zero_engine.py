"""DeepSpeed ZeRO-3: the same training step and checkpoints as sharded.py has for FSDP2."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import checkpoints, zero
from common.errors import ExampleError

try:
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig
except ImportError as error:
    raise ExampleError("--parallel zero3 needs DeepSpeed, which Slipway's images have") from error

from common.loop import Batch
from common.ranks import Ranks
from common.weights import Weight


def read_config(path: Path, batch: int, *, bf16: bool) -> dict[str, Any]:
    """The JSON with its "auto" filled in."""
    config = zero.read_config(path)
    if config.get("train_micro_batch_size_per_gpu", "auto") == "auto":
        config["train_micro_batch_size_per_gpu"] = batch
    section = config.setdefault("bf16", {})
    if section.get("enabled", "auto") == "auto":
        section["enabled"] = bf16
    return config


def connect(ranks: Ranks, config: dict[str, Any]) -> HfDeepSpeedConfig:
    """Make the process group. While the result lives, transformers shards what it loads."""
    zero.be_quiet()
    deepspeed.init_distributed(dist_backend=ranks.backend, auto_mpi_discovery=False)
    return HfDeepSpeedConfig(config)


class ZeroEngine:
    """A model in DeepSpeed's hands. Checkpoints are global_stepN/ and the file `latest`."""

    def __init__(
        self, model: nn.Module, config: dict[str, Any], ranks: Ranks, options: argparse.Namespace
    ) -> None:
        self._ranks, self._options = ranks, options
        self._source: Path | None = None
        if options.resume_from:
            self._source = zero.source(options.resume_from, ranks.world, config)
        # torch's own AdamW: DeepSpeed's needs a compiler on the machine that trains.
        optimizer = torch.optim.AdamW(
            [value for value in model.parameters() if value.requires_grad],
            lr=0.0,
            betas=(0.9, 0.95),
            weight_decay=0.1,
            fused=ranks.device.type == "cuda",
        )
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)

    def train_step(self, batch: Batch, lr: float) -> torch.Tensor:
        """One optimizer step; the loss of this rank."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        loss: torch.Tensor = self._engine(**batch).loss
        self._engine.backward(loss)
        self._engine.step()
        return loss.detach()

    def save(self, step: int) -> None:
        """Every rank writes its part; `latest` last."""
        directory: Path = self._options.checkpoint_dir
        self._engine.save_checkpoint(
            str(directory),
            tag=f"global_step{step}",
            client_state={"step": step},
            exclude_frozen_parameters=self._options.lora_rank > 0,
        )
        if self._ranks.first_here:
            for path in checkpoints.old(directory, "global_step*", self._options.keep):
                checkpoints.remove(path, "zero_pp_rank_0_mp_rank_00_model_states.pt")

    def load(self) -> int:
        """Go on from --resume-from; the step that it was written at."""
        if self._source is None:
            return 0
        loaded, state = self._engine.load_checkpoint(
            str(self._source.parent),
            tag=self._source.name,
            load_module_strict=self._options.lora_rank == 0,
        )
        if loaded is None:
            raise ExampleError(f"DeepSpeed found no checkpoint in {self._source}")
        _own_steps(self._engine.optimizer.optimizer)
        return int(state["step"])

    def weights(self) -> list[Weight]:
        """Every weight of the model, to be gathered one by one."""
        return [
            Weight(name, tuple(getattr(value, "ds_shape", value.shape)), partial(_whole, value))
            for name, value in self._engine.module.named_parameters()
        ]


def _own_steps(optimizer: torch.optim.Optimizer) -> None:
    """Give every part its own count of steps, on its own device.

    From a universal checkpoint DeepSpeed takes one tensor for all parts, on the CPU (deepspeed
    0.19.8, runtime/zero/stage3.py, load_hp_checkpoint_state_from_checkpoint_dir_stage3). The fused
    AdamW refuses that, and the other would count every part's step in it.
    """
    for part, state in optimizer.state.items():
        if "step" in state:
            state["step"] = torch.as_tensor(state["step"]).to(part.device, torch.float32, copy=True)


def _whole(parameter: nn.Parameter) -> torch.Tensor:
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()
