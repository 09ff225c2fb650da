"""The pocket models' network: a plain Llama decoder, written for training speed on a CPU.

It uses the interleaved rotary embedding that GGUF's `llama` architecture expects, so export copies the
weights as they are. It deliberately has no KV cache and no sampling: generation belongs to the engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass(frozen=True)
class Config:
    """Shape of a model. Every width is a multiple of 256, so K-quants apply.

    `embd_scale` multiplies the embedding on its way in, not on its way out. Without it a tied embedding is too
    small beside the first layer's output, the residual forgets which token it came from, and nothing learns to
    copy. Export folds it into the embedding and the output norm.
    """

    n_vocab: int = 4096
    n_embd: int = 256
    n_layers: int = 8
    n_heads: int = 4
    n_kv_heads: int = 2
    n_ff: int = 768
    head_dim: int = 64
    n_ctx: int = 2048
    rope_base: float = 500000.0
    norm_eps: float = 1e-5
    embd_scale: float = 64.0


CHUNK = 128
TARGET = Config()
DRAFT = Config(n_layers=2, n_ff=512)


def rope_table(config: Config, n_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, each `[n_rows, head_dim / 2]`."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    angles = torch.arange(n_rows, dtype=torch.float64)[:, None] * (config.rope_base ** -exponents)[None, :]
    return angles.cos().float(), angles.sin().float()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates neighbouring pairs of `x` (`[batch, heads, rows, head_dim]`)."""
    pairs = x.float().unflatten(-1, (-1, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention in chunks of rows, as plain matrix products.

    On a CPU this is several times faster than PyTorch's fused kernel, forwards and backwards. The heads that
    share a key head are stacked as rows of one product.
    """
    batch, n_heads, rows, head_dim = q.shape
    n_kv, groups = k.shape[1], n_heads // k.shape[1]
    q = q.view(batch, n_kv, groups, rows, head_dim) * head_dim**-0.5
    mixed = []
    chunk = CHUNK if rows <= 512 else 2 * CHUNK
    for first in range(0, rows, chunk):
        last = min(first + chunk, rows)
        part = q[:, :, :, first:last].reshape(batch * n_kv, groups * (last - first), head_dim)
        seen_k, seen_v = (x[:, :, :last].reshape(batch * n_kv, last, head_dim) for x in (k, v))
        scores = torch.bmm(part, seen_k.mT).view(batch * n_kv, groups, last - first, last).float()
        future = torch.arange(last)[None, :] > torch.arange(first, last)[:, None]
        weights = scores.masked_fill(future, float("-inf")).softmax(-1).to(v.dtype)
        out = torch.bmm(weights.view(batch * n_kv, groups * (last - first), last), seen_v)
        mixed.append(out.view(batch, n_heads, last - first, head_dim))
    return torch.cat(mixed, dim=2)


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.attn_norm = nn.Parameter(torch.ones(config.n_embd))
        self.attn_q = nn.Linear(config.n_embd, width, bias=False)
        self.attn_k = nn.Linear(config.n_embd, kv_width, bias=False)
        self.attn_v = nn.Linear(config.n_embd, kv_width, bias=False)
        self.attn_output = nn.Linear(width, config.n_embd, bias=False)
        self.ffn_norm = nn.Parameter(torch.ones(config.n_embd))
        self.ffn_gate = nn.Linear(config.n_embd, config.n_ff, bias=False)
        self.ffn_up = nn.Linear(config.n_embd, config.n_ff, bias=False)
        self.ffn_down = nn.Linear(config.n_ff, config.n_embd, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        c = self.config
        batch, rows, _ = x.shape
        h = F.rms_norm(x, (c.n_embd,), self.attn_norm.to(x.dtype), c.norm_eps)
        q = self.attn_q(h).view(batch, rows, c.n_heads, c.head_dim).transpose(1, 2)
        k = self.attn_k(h).view(batch, rows, c.n_kv_heads, c.head_dim).transpose(1, 2)
        v = self.attn_v(h).view(batch, rows, c.n_kv_heads, c.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = attend(q, k, v)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, rows, -1))
        h = F.rms_norm(x, (c.n_embd,), self.ffn_norm.to(x.dtype), c.norm_eps)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Pocket(nn.Module):
    """`forward` maps token ids `[batch, rows]` to logits `[batch, rows, n_vocab]`."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.n_vocab, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.output_norm = nn.Parameter(torch.ones(config.n_embd))
        cos, sin = rope_table(config, config.n_ctx)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.reset()

    def reset(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() != 2:
                continue
            if "token_embd" in name:
                nn.init.normal_(parameter, std=0.05)
            else:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
                if "attn_output" in name or "ffn_down" in name:
                    parameter.data.mul_(1 / math.sqrt(2 * self.config.n_layers))

    def lower_precision(self) -> "Pocket":
        """Weights in bfloat16; the rotation tables stay in float32."""
        cos, sin = self.cos, self.sin
        self.bfloat16()
        self.cos, self.sin = cos, sin
        return self

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        rows = tokens.shape[1]
        x = self.token_embd(tokens) * self.config.embd_scale
        cos, sin = self.cos[:rows], self.sin[:rows]
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.rms_norm(x, (self.config.n_embd,), self.output_norm.to(x.dtype), self.config.norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.linear(self.hidden(tokens), self.token_embd.weight)
