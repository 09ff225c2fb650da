"""Writes the benchmark workloads and the held-out sets: entities and wordings that training never saw.

One JSON object per line: `id`, `task`, `kind`, `messages` (role and content, the last one to be answered),
`expected` (the exact answer; in free chat merely what a human said) and `prompt_tokens`.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Callable, Iterator

from tokenizers import Tokenizer

import chat
import dataset
import grounded
import reply
import summary
import ui
import wording
from entities import HELD

LONGEST_PROMPT = 1700
N_WORKLOAD = 50


def chat_turns(rng: random.Random, pool: list[list[dict]]) -> Iterator[dict]:
    """A held-out dialogue cut at a random answer."""
    for turns in rng.sample(pool, len(pool)):
        cut = 2 * rng.randint(0, min(5, len(turns) // 2 - 1)) + 1
        yield {"task": "chat", "kind": "chat", "messages": turns[:cut], "expected": turns[cut]["content"]}


def repeat(build: Callable[[], dict]) -> Iterator[dict]:
    while True:
        yield build()


def workloads(seed: int, pool: list[list[dict]]) -> dict[str, Iterator[dict]]:
    """The benchmarks' prompts; questions and summaries stand behind long contexts."""
    rng = {task: random.Random(f"{seed}-{task}") for task in ("chat", "rag", "summary", "ui", "reply")}
    return {
        "chat": chat_turns(rng["chat"], pool),
        "rag": repeat(lambda: grounded.build(rng["rag"], rng["rag"].randint(1600, 2300), 1, HELD, HELD)),
        "summary": repeat(lambda: summary.build(rng["summary"], rng["summary"].randint(950, 1600), HELD, HELD)),
        "ui": repeat(lambda: ui.build(rng["ui"], 0, HELD, HELD)),
        "reply": repeat(lambda: reply.build(rng["reply"], rng["reply"].randint(200, 800), HELD, HELD)),
    }


def held_out(seed: int) -> dict[str, Iterator[dict]]:
    """The sets that exact match is measured on; contexts from short to long, several questions in a row."""
    rng = {task: random.Random(f"{seed}-held-{task}") for task in ("rag", "summary", "ui", "reply")}
    return {
        "rag": repeat(lambda: grounded.build(rng["rag"], rng["rag"].randint(100, 1400), rng["rag"].randint(1, 3), HELD, HELD)),
        "summary": repeat(lambda: summary.build(rng["summary"], rng["summary"].randint(100, 1400), HELD, HELD)),
        "ui": repeat(lambda: ui.build(rng["ui"], 0, HELD, HELD)),
        "reply": repeat(lambda: reply.build(rng["reply"], rng["reply"].randint(150, 800), HELD, HELD)),
    }


def write(folder: Path, sets: dict[str, Iterator[dict]], n: int, encoder: dataset.Encoder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for task, examples in sets.items():
        lines: list[str] = []
        while len(lines) < n:
            example = next(examples)
            messages = [{"role": m["role"], "content": m["content"].strip()} for m in example["messages"]]
            n_tokens = len(encoder.prompt(messages))
            if n_tokens <= LONGEST_PROMPT:
                record = {"id": f"{task}-{len(lines):03d}", "task": task, "kind": example["kind"], "messages": messages, "expected": example["expected"].strip(), "prompt_tokens": n_tokens}
                lines.append(json.dumps(record, ensure_ascii=False))
        (folder / f"{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="gets workloads/ and heldout/")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--held", type=int, default=100, help="held-out examples per task")
    arguments = parser.parse_args()
    encoder = dataset.Encoder(Tokenizer.from_file(str(arguments.tokenizer)))
    conversations = chat.dialogues(arguments.dialogues)
    wording.learn(conversations)
    pool = conversations[HELD]
    write(arguments.out / "workloads", workloads(arguments.seed, pool), N_WORKLOAD, encoder)
    write(arguments.out / "heldout", held_out(arguments.seed), arguments.held, encoder)


if __name__ == "__main__":
    main()
