"""A Llama in PyTorch alone. Its weights have the names and meaning of transformers' own
(huggingface/transformers:src/transformers/models/llama/modeling_llama.py), so what it trains is
loaded by from_pretrained and served by vLLM as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

EPSILON = 1e-5
THETA = 10000.0


@dataclass(frozen=True)
class Size:
    """What decides the model's shape."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    seq: int

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    def config(self) -> dict[str, Any]:
        """config.json of transformers (configuration_llama.py)."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.seq,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "rms_norm_eps": EPSILON,
            "rope_theta": THETA,
            "tie_word_embeddings": False,
            "vocab_size": self.vocab,
            "bos_token_id": None,
            "eos_token_id": None,
        }


class Result(NamedTuple):
    """What a training step needs."""

    loss: torch.Tensor


def rotation(seq: int, head: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary embedding, one row per position."""
    steps = torch.arange(0, head, 2, device=device, dtype=torch.float32) / head
    angles = torch.outer(torch.arange(seq, device=device, dtype=torch.float32), THETA**-steps)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn each half of a head against the other, as transformers' rotate_half does."""
    cos, sin = (part.to(x.dtype) for part in turn)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention; several query heads may share a key and value head."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        wide, narrow = size.heads * size.head, size.kv_heads * size.head
        self.q_proj = nn.Linear(size.hidden, wide, bias=False)
        self.k_proj = nn.Linear(size.hidden, narrow, bias=False)
        self.v_proj = nn.Linear(size.hidden, narrow, bias=False)
        self.o_proj = nn.Linear(wide, size.hidden, bias=False)

    def forward(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """From (batch, seq, hidden) to the same."""
        batch, seq, _ = x.shape

        def heads(projected: torch.Tensor) -> torch.Tensor:
            return projected.view(batch, seq, -1, self.size.head).transpose(1, 2)

        query, key = (rotate(heads(part(x)), turn) for part in (self.q_proj, self.k_proj))
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            heads(self.v_proj(x)),
            is_causal=True,
            enable_gqa=self.size.kv_heads < self.size.heads,
        )
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, seq, -1))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.hidden, size.intermediate, bias=False)
        self.up_proj = nn.Linear(size.hidden, size.intermediate, bias=False)
        self.down_proj = nn.Linear(size.intermediate, size.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (batch, seq, hidden) to the same."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One transformer block."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(size.hidden, eps=EPSILON)
        self.self_attn = Attention(size)
        self.post_attention_layernorm = nn.RMSNorm(size.hidden, eps=EPSILON)
        self.mlp = Mlp(size)

    def forward(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """From (batch, seq, hidden) to the same."""
        x = x + self.self_attn(self.input_layernorm(x), turn)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Embedding, blocks, norm."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocab, size.hidden)
        self.layers = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.hidden, eps=EPSILON)


class Llama(nn.Module):
    """The whole model; make it on the meta device, shard it, then `initialize`."""

    def __init__(self, size: Size, *, recompute: bool = False) -> None:
        super().__init__()
        self.size = size
        self.recompute = recompute
        self.model = Body(size)
        self.lm_head = nn.Linear(size.hidden, size.vocab, bias=False)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Fill weights that have storage but no values, each rank its own shards.

        Shards that are replicas of each other must get the same `seed`, others another one.
        """
        torch.manual_seed(seed)
        for name, weight in self.named_parameters():
            mine = weight.to_local() if isinstance(weight, DTensor) else weight
            if name.endswith("norm.weight"):
                mine.fill_(1.0)
            else:
                mine.normal_(std=0.02)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Result:
        """The mean loss of predicting each label's next token, as in transformers."""
        turn = rotation(input_ids.shape[1], self.size.head, input_ids.device)
        x = self.model.embed_tokens(input_ids)
        for block in self.model.layers:
            if self.recompute:
                x = checkpoint(block, x, turn, use_reentrant=False)
            else:
                x = block(x, turn)
        logits = self.lm_head(self.model.norm(x)).float()
        before, after = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return Result(functional.cross_entropy(before, after))
