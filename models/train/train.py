"""Trains the target in two runs, or the draft against the target. Resumes from its last checkpoint.

One process per core, each with one thread: they meet once per step to add up their gradients. Two threads
inside one process meet at every operation instead, which costs more than half the speed on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as distributed
import torch.multiprocessing
import torch.nn.functional as F

import dataset
import induction
import mixture
from model import DRAFT, TARGET, Pocket
from muon import Optimizer

STEP_TOKENS = 8192
MICRO_TOKENS = 4096
WARMUP_STEPS = 60
DECAY_SHARE = 0.3
CHECKPOINT_SECONDS = 120
DISTIL_SHARE = 0.7


def cross_entropy(model: Pocket, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum of next-token losses; `tokens` is `[batch, rows + 1]`."""
    logits = model(tokens[:, :-1]).flatten(0, 1).float()
    loss = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
    return (loss * weights[:, 1:].flatten()).sum()


def distillation(model: Pocket, tokens: torch.Tensor, weights: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """As `cross_entropy`, mixed with the distance from the target's distribution."""
    logits = model(tokens[:, :-1]).flatten(0, 1).float()
    log_probabilities = logits.log_softmax(-1)
    hard = F.nll_loss(log_probabilities, tokens[:, 1:].flatten(), reduction="none")
    soft = -(teacher.flatten(0, 1).float().softmax(-1) * log_probabilities).sum(-1)
    return ((DISTIL_SHARE * soft + (1 - DISTIL_SHARE) * hard) * weights[:, 1:].flatten()).sum()


def learning_rate(progress: float, step: int) -> float:
    """Warm up, hold, then fall linearly to nearly nothing."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * min(1.0, max(0.02, (1 - progress) / DECAY_SHARE))


def plan(phases: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[tuple[str, int]]:
    """(phase, first row) of every step."""
    steps = []
    for name, (ids, _) in phases.items():
        per_step = STEP_TOKENS // mixture.PHASES[name].rows
        steps += [(name, first) for first in range(0, len(ids) - per_step + 1, per_step)]
    return steps


def start_from(draft: Pocket, target: Pocket) -> None:
    """The draft begins with the target's embedding and its first layers, as far as they fit."""
    with torch.no_grad():
        draft.token_embd.weight.copy_(target.token_embd.weight)
        draft.output_norm.copy_(target.output_norm)
        for own, taken in zip(draft.blocks, target.blocks):
            for (_, parameter), (_, source) in zip(own.named_parameters(), taken.named_parameters()):
                parameter.copy_(source[tuple(slice(n) for n in parameter.shape)])


def save(path: Path, optimizer: Optimizer, step: int, history: list[dict], config) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"optimizer": optimizer.state(), "step": step, "history": history, "config": vars(config)}, partial)
    os.replace(partial, path)


SEEN = {"warm": ["w"], "target": ["a", "b", "c"], "draft": ["c"], "last": ["d"]}


def load_phases(arguments: argparse.Namespace) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The rows of each of a run's phases; every run draws its own."""
    seed = arguments.seed + 10 * list(SEEN).index(arguments.which)
    return {n: dataset.load_or_build(arguments.work, n, arguments.tokens, arguments.tokenizer, arguments.dialogues, seed) for n in SEEN[arguments.which]}


def add_up(model: Pocket) -> None:
    """Replaces every gradient by its sum over all workers."""
    parameters = list(model.parameters())
    flat = torch.cat([p.grad.float().flatten() for p in parameters])
    distributed.all_reduce(flat)
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad.copy_(part.view_as(p))


def run(rank: int, arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{arguments.meeting}", rank=rank, world_size=arguments.workers)
    folder: Path = arguments.work
    config = DRAFT if arguments.which == "draft" else TARGET
    phases = load_phases(arguments)
    model, teacher = Pocket(config), None
    if arguments.which == "draft":
        teacher = Pocket(TARGET)
        teacher.load_state_dict(torch.load(folder / "target.pt", weights_only=True)["optimizer"]["masters"])
        start_from(model, teacher)
        teacher = teacher.lower_precision().requires_grad_(False)
    if arguments.start is not None:
        model.load_state_dict(torch.load(arguments.start, weights_only=True)["optimizer"]["masters"])
    elif arguments.which == "target" and not (folder / f"{arguments.name}.pt").exists():
        model.load_state_dict(torch.load(folder / "warm.pt", weights_only=True)["optimizer"]["masters"])
        induction.seed(model)
    optimizer = Optimizer(model, other_lr=0.003 if teacher is None else 0.002)
    model = model.lower_precision()
    optimizer.parameters = dict(model.named_parameters())
    path, step, history = folder / f"{arguments.name}.pt", 0, []
    if path.exists():
        state = torch.load(path, weights_only=True)
        optimizer.load(state["optimizer"])
        step, history = state["step"], state["history"]
    loss_of = torch.compile(cross_entropy if teacher is None else distillation, dynamic=False)
    teach = torch.compile(lambda t: teacher(t[:, :-1]), dynamic=False)
    steps, saved, began, seen = plan(phases), time.time(), time.time(), 0
    if rank == 0:
        print(f"{arguments.which}: {sum(p.numel() for p in model.parameters())} parameters, {len(steps)} steps, from {step}", flush=True)
    while step < len(steps):
        name, first = steps[step]
        rows = mixture.PHASES[name].rows
        batch = slice(first, first + STEP_TOKENS // rows)
        tokens = torch.from_numpy(phases[name][0][batch].astype(np.int64))
        weights = torch.from_numpy(phases[name][1][batch].astype(np.float32) / dataset.WEIGHT_STEPS)
        total, n = 0.0, MICRO_TOKENS // rows
        weight_sum = float(weights[:, 1:].sum())
        for i in range(rank * n, len(tokens), n * arguments.workers):
            part = (tokens[i : i + n], weights[i : i + n])
            if teacher is None:
                loss = loss_of(model, *part)
            else:
                with torch.no_grad():
                    taught = teach(part[0])
                loss = loss_of(model, *part, taught)
            (loss / weight_sum).backward()
            total += float(loss.detach())
        add_up(model)
        optimizer.step(arguments.peak * learning_rate(step / len(steps), optimizer.steps))
        step, seen = step + 1, seen + STEP_TOKENS
        history.append({"step": step, "phase": name, "loss": total / weight_sum * arguments.workers})
        if rank > 0:
            continue
        if step % 20 == 0:
            recent = history[-20:]
            print(json.dumps({"step": step, "of": len(steps), "phase": name, "loss": round(sum(h["loss"] for h in recent) / 20, 4), "tokens_per_s": round(seen / (time.time() - began)), "minutes": round((time.time() - began) / 60, 1)}), flush=True)
        if time.time() - saved > CHECKPOINT_SECONDS:
            save(path, optimizer, step, history, config)
            saved = time.time()
    if rank == 0:
        save(path, optimizer, step, history, config)
    distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=tuple(SEEN))
    parser.add_argument("--work", type=Path, required=True, help="folder for rows and checkpoints")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=24_000_000)
    parser.add_argument("--workers", type=int, default=2, help="processes; a divisor of 2")
    parser.add_argument("--start", type=Path, help="checkpoint whose weights to begin with, for a further run")
    parser.add_argument("--peak", type=float, default=1.0, help="share of the usual learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", help="of the run's checkpoint, if not that of what is trained")
    arguments = parser.parse_args()
    arguments.name = arguments.name or arguments.which
    arguments.work.mkdir(parents=True, exist_ok=True)
    load_phases(arguments)
    with tempfile.TemporaryDirectory() as meeting:
        arguments.meeting = Path(meeting) / "store"
        torch.multiprocessing.spawn(run, (arguments,), arguments.workers)


if __name__ == "__main__":
    main()
