"""Which tasks the models see, how often and how long, phase by phase."""

from __future__ import annotations

import random
from dataclasses import dataclass

import chat
import grounded
import reply
import summary
import ui
from entities import HELD, TRAIN


@dataclass(frozen=True)
class Phase:
    """`shares` are shares of examples; `context` is the range of context sizes in tokens; `stutter` the share of answers that do."""

    rows: int
    share: float
    shares: dict[str, float]
    context: tuple[int, int]
    stutter: float = 0.0


TOKENIZER_MIX = {"chat": 0.45, "rag": 0.25, "summary": 0.1, "ui": 0.12, "reply": 0.08}
WARM = {"w": Phase(512, 1.0, {"chat": 0.30, "rag": 0.38, "summary": 0.08, "ui": 0.08, "reply": 0.08, "copy": 0.08}, (50, 240))}
MAIN = {
    "a": Phase(512, 0.02, {"chat": 0.18, "rag": 0.36, "ui": 0.08, "reply": 0.12, "copy": 0.16, "summary": 0.10}, (40, 120)),
    "b": Phase(512, 0.38, {"chat": 0.20, "rag": 0.50, "summary": 0.11, "ui": 0.08, "reply": 0.09, "copy": 0.02}, (60, 300), 0.3),
    "c": Phase(2048, 0.60, {"chat": 0.22, "rag": 0.48, "summary": 0.10, "ui": 0.08, "reply": 0.12}, (60, 1500), 0.3),
}
LAST = {"d": Phase(512, 1.0, {"chat": 0.70, "rag": 0.16, "summary": 0.04, "ui": 0.04, "reply": 0.06}, (60, 400), 0.3)}
PHASES = WARM | MAIN | LAST


def draw(rng: random.Random, pool: list[list[dict]], shares: dict[str, float], low: int, high: int, entities: str = TRAIN, templates: str = TRAIN) -> dict:
    task = rng.choices(list(shares), list(shares.values()))[0]
    tokens = rng.randint(low, high)
    if task == "chat":
        return chat.build(rng, pool)
    if task == "copy":
        return chat.repeat(rng)
    if task == "rag":
        return grounded.build(rng, tokens, max(1, min(12, round(tokens / 60 + rng.random() * 2))), entities, templates)
    if task == "summary":
        return summary.build(rng, tokens, entities, templates)
    if task == "ui":
        return ui.build(rng, 0, entities, templates)
    return reply.build(rng, min(tokens, 1200) if rng.random() < 0.5 else 0, entities, templates)
