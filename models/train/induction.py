"""Seeds a model with the circuit that copies from context, instead of waiting for training to find it.

A model this small needs far more tokens than two cores can give before "induction heads" appear, and grounded
tasks hardly improve without them. So a few heads are written down, and training takes over from there:

- Layer 0, first key group. Queries and keys are constants, so that with the rotary embedding one head always
  looks one token back and the other two. They write 32 numbers about that token into two reserved subspaces.
- Layer 1, all heads. The query is the current token, the keys are those earlier tokens, matched in the slow
  half of the rotary dimensions; the value is the token that follows the match, written back along its
  embedding. One group also wants the token before to match.

The reserved subspaces are the directions that the embeddings use least.
"""

from __future__ import annotations

import math

import torch

from model import Config, Pocket

FEATURES = 32


def split(embedding: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Orthonormal directions: the constant one, two reserved subspaces, the match features, the copied ones."""
    _, _, directions = torch.linalg.svd(embedding - embedding.mean(0), full_matrices=False)
    least, used = directions[-(2 * FEATURES + 1) :], directions[1 : -(2 * FEATURES + 1)]
    mean = embedding.mean(0)
    used = used - torch.outer(used @ mean, mean) / mean.dot(mean)
    mixed = torch.linalg.qr((torch.randn(len(used), len(used), generator=generator) @ used).T)[0].T
    return {
        "constant": least[-1],
        "before": least[:FEATURES],
        "two_before": least[FEATURES : 2 * FEATURES],
        "match": mixed[:FEATURES],
        "copy": mixed[-128:],
    }


def look_back(model: Pocket, parts: dict[str, torch.Tensor], sharpness: float, write: float) -> None:
    """Layer 0's first group: one head one token back, one head two."""
    config, block = model.config, model.blocks[0]
    hidden = model.token_embd.weight / model.token_embd.weight.square().mean(1, keepdim=True).sqrt() * block.attn_norm
    ridge = 1e-2 * len(hidden) * torch.eye(config.n_embd)
    ones = torch.linalg.solve(hidden.T @ hidden + ridge, hidden.sum(0))
    angles = config.rope_base ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
    n_fast = 10
    block.attn_k.weight[: config.head_dim] *= 0.02
    block.attn_q.weight[: 2 * config.head_dim] *= 0.02
    for pair in range(n_fast):
        block.attn_k.weight[2 * pair] += math.sqrt(sharpness) * ones
        for head in range(2):
            turn = -(head + 1) * float(angles[pair])
            row = head * config.head_dim + 2 * pair
            block.attn_q.weight[row] += math.sqrt(sharpness) * math.cos(turn) * ones
            block.attn_q.weight[row + 1] += math.sqrt(sharpness) * math.sin(turn) * ones
    block.attn_v.weight[:FEATURES] = parts["match"] / block.attn_norm
    for head, place in enumerate(("before", "two_before")):
        columns = slice(head * config.head_dim, (head + 1) * config.head_dim)
        block.attn_output.weight[:, columns] *= 0.1
        block.attn_output.weight[:, columns.start : columns.start + FEATURES] = write * parts[place].T


def reserve(model: Pocket, parts: dict[str, torch.Tensor], constant: float) -> None:
    """Keeps embeddings and layer 0's other outputs out of the reserved subspaces; adds the constant.

    Layer 0's outputs are kept out of the match features too, so that these are the token's own.

    Adding one vector to every row of a tied embedding shifts all logits alike and changes no probability.
    """
    reserved = torch.cat((parts["before"], parts["two_before"], parts["constant"][None]))
    keep = torch.eye(model.config.n_embd) - reserved.T @ reserved
    model.token_embd.weight.copy_(model.token_embd.weight @ keep + constant * parts["constant"])
    clean = keep - parts["match"].T @ parts["match"]
    model.blocks[0].attn_output.weight.copy_(clean @ model.blocks[0].attn_output.weight)
    model.blocks[0].ffn_down.weight.copy_(clean @ model.blocks[0].ffn_down.weight)


def match_and_copy(model: Pocket, parts: dict[str, torch.Tensor], sharpness: float, write: float) -> None:
    """Layer 1: look for the token after an earlier copy of this one."""
    config, block = model.config, model.blocks[1]
    size, gain = config.head_dim, 1 / block.attn_norm
    half = FEATURES // 2
    for weight in (block.attn_q.weight, block.attn_k.weight):
        weight *= 0.1
    queries = [parts["match"], torch.cat((parts["match"][:half], parts["before"][:half]))]
    keys = [parts["before"], torch.cat((parts["before"][:half], parts["two_before"][:half]))]
    for group in range(config.n_kv_heads):
        slow = slice(group * size + size - FEATURES, (group + 1) * size)
        block.attn_k.weight[slow] = math.sqrt(sharpness) * keys[group] * gain
        copied = parts["copy"][group * size : (group + 1) * size]
        block.attn_v.weight[group * size : (group + 1) * size] = copied * gain
        for head in (2 * group, 2 * group + 1):
            slow = slice(head * size + size - FEATURES, (head + 1) * size)
            block.attn_q.weight[slow] = math.sqrt(sharpness) * queries[group] * gain
            block.attn_output.weight[:, head * size : (head + 1) * size] = write / 2 * copied.T


@torch.no_grad()
def seed(model: Pocket, look: float = 90.0, note: float = 5.0, match: float = 20.0, copy: float = 40.0, constant: float = 1.2) -> None:
    """Writes the circuit into `model`, whose embeddings should already be trained a little."""
    config: Config = model.config
    assert (config.n_heads, config.n_kv_heads, config.head_dim) == (4, 2, 64)
    parts = split(model.token_embd.weight, torch.Generator().manual_seed(9))
    reserve(model, parts, constant)
    look_back(model, parts, look, note)
    match_and_copy(model, parts, match, copy)
