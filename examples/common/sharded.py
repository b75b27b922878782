"""FSDP2 and torch.distributed.checkpoint: PyTorch alone, 2.6 or newer."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from common import checkpoints
from common.errors import ExampleError
from common.loop import Batch
from common.ranks import Ranks
from common.weights import Weight

METADATA = ".metadata"
#: A pretrained model has frozen weights with LoRA: they are no part of a checkpoint.
_OPTIONS = StateDictOptions(ignore_frozen_params=True)


def mesh(ranks: Ranks, shard: str) -> DeviceMesh:
    """Over all ranks; "node": sharded within a node, replicated over the nodes (HSDP)."""
    kind = ranks.device.type
    if shard == "node" and ranks.world > ranks.local_world:
        nodes = ranks.world // ranks.local_world
        return init_device_mesh(
            kind, (nodes, ranks.local_world), mesh_dim_names=("replicate", "shard")
        )
    return init_device_mesh(kind, (ranks.world,), mesh_dim_names=("shard",))


def shard(model: nn.Module, blocks: Iterable[nn.Module], over: DeviceMesh, *, bf16: bool) -> None:
    """Shard every block by itself, so that one at a time is whole; then what is left."""
    policy = MixedPrecisionPolicy()
    if bf16:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in blocks:
        fully_shard(block, mesh=over, mp_policy=policy)
    fully_shard(model, mesh=over, mp_policy=policy)


class ShardedEngine:
    """A sharded model with AdamW. Checkpoints are step-N/, and load at any number of ranks."""

    def __init__(self, model: nn.Module, ranks: Ranks, options: argparse.Namespace) -> None:
        self.model = model
        self._ranks = ranks
        self._directory: Path = options.checkpoint_dir
        self._keep: int = options.keep
        self._source: Path | None = options.resume_from
        self._trained = [value for value in model.parameters() if value.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained,
            lr=0.0,
            betas=(0.9, 0.95),
            weight_decay=0.1,
            fused=ranks.device.type == "cuda",
        )

    def train_step(self, batch: Batch, lr: float) -> torch.Tensor:
        """One optimizer step; the loss of this rank."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        loss: torch.Tensor = self.model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()

    def _state(self, step: int) -> dict[str, object]:
        model, optimizer = get_state_dict(self.model, self._optimizer, options=_OPTIONS)
        return {"model": model, "optimizer": optimizer, "step": torch.tensor(step)}

    def save(self, step: int) -> None:
        """Every rank writes its part; rank 0 writes `.metadata` last."""
        dcp.save(self._state(step), checkpoint_id=self._directory / f"step-{step}")
        if self._ranks.first_here:
            for path in checkpoints.old(self._directory, "step-*", self._keep):
                checkpoints.remove(path, METADATA)

    def load(self) -> int:
        """Go on from --resume-from: the step that it was written at; 0 without one."""
        if self._source is None:
            return 0
        if not (self._source / METADATA).is_file():
            raise ExampleError(f"{self._source} is no complete DCP checkpoint: no {METADATA} in it")
        state = self._state(0)
        try:
            dcp.load(state, checkpoint_id=self._source)
        except CheckpointException as error:
            _, (first, _) = min(error.failures.items())
            raise ExampleError(f"{self._source} is of another model: {first}") from error
        set_state_dict(
            self.model,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(ignore_frozen_params=True, strict=False),
        )
        step = state["step"]
        assert isinstance(step, torch.Tensor)
        return int(step.item())

    def weights(self) -> list[Weight]:
        """Every weight of the model, to be gathered one by one."""
        return [
            Weight(name, tuple(value.shape), partial(_whole, value))
            for name, value in self.model.named_parameters()
        ]


def _whole(parameter: nn.Parameter) -> torch.Tensor:
    value = parameter.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value
