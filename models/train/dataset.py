"""Turns examples into packed rows of token ids with a loss weight per token.

The loss of the answers counts fully; prompts count little, because most of what stands in them was drawn at
random and cannot be predicted, and free chat counts more, because it is where English is learnt.

Some answers in free chat stutter: a few tokens stand there several times, and what is learnt is how to go on behind them. A model
that has seen only sound text copies its own slip for ever once it has made one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import chat
import mixture
import wording
from entities import TRAIN

PROMPT_WEIGHT = {"chat": 0.5}
DEFAULT_PROMPT_WEIGHT = 0.1
WEIGHT_STEPS = 10
STUTTER_UNIT, STUTTER_TIMES = 3, 4


@dataclass(frozen=True)
class Ids:
    """Ids of the ChatML marks."""

    end_of_text: int
    start: int
    end: int
    newline: int

    @staticmethod
    def of(tokenizer: Tokenizer) -> "Ids":
        newline = tokenizer.encode("\n").ids
        assert len(newline) == 1
        return Ids(*(tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")), newline[0])


class Encoder:
    """Renders conversations exactly as the chat template in the GGUF does."""

    def __init__(self, tokenizer: Tokenizer, stutter: float = 0.0, rng: random.Random | None = None):
        """A share `stutter` of the answers in free chat stutters."""
        self.tokenizer, self.ids = tokenizer, Ids.of(tokenizer)
        self.stutter, self.rng = stutter, rng or random.Random(0)
        self.roles = {r: tokenizer.encode(r).ids for r in ("system", "user", "assistant")}

    def prompt(self, messages: list[dict]) -> list[int]:
        """Ids up to and including the opening of the assistant's answer."""
        ids: list[int] = []
        for message in messages:
            ids += [self.ids.start, *self.roles[message["role"]], self.ids.newline, *self.encode(message["content"]), self.ids.end, self.ids.newline]
        return ids + [self.ids.start, *self.roles["assistant"], self.ids.newline]

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text.strip(), add_special_tokens=False).ids

    def example(self, example: dict) -> tuple[list[int], list[int]]:
        """Ids and weights (in tenths) of a whole conversation; every assistant turn is learnt."""
        prompt_weight = round(PROMPT_WEIGHT.get(example["task"], DEFAULT_PROMPT_WEIGHT) * WEIGHT_STEPS)
        ids: list[int] = []
        weights: list[int] = []
        for message in example["messages"] + [{"role": "assistant", "content": example["expected"]}]:
            answer = message["role"] == "assistant"
            head = [self.ids.start, *self.roles[message["role"]], self.ids.newline]
            body = self.encode(message["content"]) + [self.ids.end]
            body_weights = [WEIGHT_STEPS if answer else prompt_weight] * len(body)
            if answer and example["task"] == "chat" and self.rng.random() < self.stutter:
                body, body_weights = self.stuttered(body, body_weights)
            ids += head + body + [self.ids.newline]
            weights += [1] * len(head) + body_weights + [1]
        return ids + [self.ids.end_of_text], weights + [1]


    def stuttered(self, body: list[int], weights: list[int]) -> tuple[list[int], list[int]]:
        """`body` with a few of its tokens repeated; the repeated ones are read and not learnt."""
        unit = self.rng.randint(1, min(STUTTER_UNIT, len(body)))
        end = self.rng.randint(unit, len(body))
        more = body[end - unit : end] * self.rng.randint(1, STUTTER_TIMES)
        return body[:end] + more + body[end:], weights[:end] + [0] * len(more) + weights[end:]


def pack(examples, rows: int, n_rows: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Fills `n_rows` rows of `rows + 1` tokens; long rows take the largest example that still fits."""
    ids = np.full((n_rows, rows + 1), pad, dtype=np.uint16)
    weights = np.zeros((n_rows, rows + 1), dtype=np.uint8)
    waiting: list[tuple[list[int], list[int]]] = []
    for row in range(n_rows):
        used = 0
        while used < rows - 24:
            while len(waiting) < 64:
                waiting.append(next(examples))
            room = rows + 1 - used
            fitting = [i for i, (t, _) in enumerate(waiting) if len(t) <= room]
            index = fitting[0] if fitting else 0
            if fitting and room < 400:
                index = max(fitting, key=lambda i: len(waiting[i][0]))
            if not fitting and used > 0 and room < 64:
                break
            tokens, token_weights = waiting.pop(index)
            n = min(room, len(tokens))
            ids[row, used : used + n], weights[row, used : used + n] = tokens[:n], token_weights[:n]
            used += n
    return ids, weights


def build_phase(name: str, tokens: int, encoder: Encoder, pool: list[list[dict]], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a phase, in training order."""
    phase = mixture.PHASES[name]
    rng = random.Random(f"{seed}-{name}")
    encoder.stutter, encoder.rng = phase.stutter, rng
    stream = (encoder.example(mixture.draw(rng, pool, phase.shares, *phase.context)) for _ in iter(int, 1))
    return pack(stream, phase.rows, max(1, int(tokens * phase.share) // phase.rows), encoder.ids.end_of_text)


def load_or_build(folder: Path, name: str, tokens: int, tokenizer_path: Path, dialogues: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A phase's rows, kept in `folder` between runs."""
    path = folder / f"phase-{name}-{tokens}-{seed}.npz"
    if not path.exists():
        encoder = Encoder(Tokenizer.from_file(str(tokenizer_path)))
        conversations = chat.dialogues(dialogues)
        wording.learn(conversations)
        ids, weights = build_phase(name, tokens, encoder, conversations[TRAIN], seed)
        np.savez(path, ids=ids, weights=weights)
    with np.load(path) as data:
        return data["ids"], data["weights"]
