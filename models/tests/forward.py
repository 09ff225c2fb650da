"""A Llama forward pass over a GGUF file in NumPy, in double precision: slow, short, and independent of the rest."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def logits(path: Path, tokens: list[int]) -> np.ndarray:
    """Logits `[rows, vocab]` for `tokens`."""
    reader = gguf.GGUFReader(str(path))
    value = lambda key: reader.fields[f"llama.{key}"].contents()
    weights = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    n_heads, n_kv, head_dim = value("attention.head_count"), value("attention.head_count_kv"), value("rope.dimension_count")
    epsilon, base, rows = value("attention.layer_norm_rms_epsilon"), value("rope.freq_base"), len(tokens)
    angles = np.arange(rows)[:, None] * base ** (-np.arange(0, head_dim, 2) / head_dim)[None, :]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weights[name]

    def rotate(x: np.ndarray) -> np.ndarray:
        even, odd = x[..., 0::2], x[..., 1::2]
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        out = np.empty_like(x)
        out[..., 0::2], out[..., 1::2] = even * cos - odd * sin, even * sin + odd * cos
        return out

    x = weights["token_embd.weight"][tokens]
    for i in range(value("block_count")):
        w = lambda name: weights[f"blk.{i}.{name}.weight"]
        h = norm(x, f"blk.{i}.attn_norm.weight")
        q = rotate((h @ w("attn_q").T).reshape(rows, n_heads, head_dim))
        k = rotate((h @ w("attn_k").T).reshape(rows, n_kv, head_dim))
        v = (h @ w("attn_v").T).reshape(rows, n_kv, head_dim)
        mixed = np.empty((rows, n_heads, head_dim))
        for head in range(n_heads):
            kv = head // (n_heads // n_kv)
            scores = q[:, head] @ k[:, kv].T / np.sqrt(head_dim)
            scores[np.triu_indices(rows, 1)] = -np.inf
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, head] = scores / scores.sum(-1, keepdims=True) @ v[:, kv]
        x = x + mixed.reshape(rows, -1) @ w("attn_output").T
        h = norm(x, f"blk.{i}.ffn_norm.weight")
        gate = h @ w("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w("ffn_up").T)) @ w("ffn_down").T
    output = weights.get("output.weight", weights["token_embd.weight"])
    return norm(x, "output_norm.weight") @ output.T
