"""Exact match on held-out examples straight from a checkpoint, without decoding.

Greedy decoding reproduces an expected answer exactly when every token of it is the arg max given the ones
before, so one forward pass per example is enough. `evaluate.py` measures the exported file instead.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from pathlib import Path

import torch
from tokenizers import Tokenizer

import chat
import dataset
import mixture
import wording
from entities import HELD, TRAIN
from model import Config, Pocket


def load(path: Path) -> tuple[Pocket, int]:
    state = torch.load(path, weights_only=True)
    model = Pocket(Config(**state["config"]))
    model.load_state_dict(state["optimizer"]["masters"])
    return model.eval(), state["step"]


@torch.no_grad()
def matches(model: Pocket, encoder: dataset.Encoder, example: dict) -> tuple[bool, float]:
    """Whether the whole answer is right, and the share of its tokens that are."""
    prompt = encoder.prompt(example["messages"])
    answer = encoder.encode(example["expected"]) + [encoder.ids.end]
    tokens = torch.tensor([prompt + answer])
    hidden = model.hidden(tokens[:, :-1])[:, len(prompt) - 1 :]
    said = (hidden @ model.token_embd.weight.T).argmax(-1)[0]
    right = said == torch.tensor(answer)
    return bool(right.all()), float(right.float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("-n", type=int, default=40)
    parser.add_argument("--low", type=int, default=100)
    parser.add_argument("--high", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wording.learn(chat.dialogues(arguments.dialogues))
    model, step = load(arguments.checkpoint)
    model = model.lower_precision()
    encoder = dataset.Encoder(Tokenizer.from_file(str(arguments.tokenizer)))
    for entities, templates in ((HELD, TRAIN), (HELD, HELD)):
        rng, results, kinds = random.Random(5), defaultdict(list), defaultdict(list)
        for task in ("rag", "summary", "ui", "reply"):
            for _ in range(arguments.n):
                example = mixture.draw(rng, [], {task: 1.0}, arguments.low, arguments.high, entities, templates)
                result = matches(model, encoder, example)
                results[task].append(result)
                kinds[f"{task}.{example['kind']}"].append(result[0])
        print(step, entities, templates, {t: (round(sum(r[0] for r in v) / len(v), 3), round(sum(r[1] for r in v) / len(v), 3)) for t, v in results.items()})
        print("   ", {k: f"{sum(v)}/{len(v)}" for k, v in sorted(kinds.items())})


if __name__ == "__main__":
    main()
