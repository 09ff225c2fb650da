"""Workload prompts brought to a length, to measure behind more or less that is cached.

Data of other prompts is added, or items that share no word with the question are left out. The pocket tokenizer makes a token of
about 3 characters here. They are for measuring speed: what is added may answer the question too. One JSON object per line, as in the workload.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

ITEM = (" - ", " + ")
FEWEST_ITEMS = 15


def words(text: str) -> set[str]:
    return {word for word in (part.strip("?.!,:").lower() for part in text.split()) if len(word) > 3}


def deepen(tasks: list[dict], characters: int, limit: int, seed: int = 7) -> list[dict]:
    """The first `limit` tasks that have a list in a system message, with as many items as make `characters`."""
    rng = random.Random(seed)
    lines = [task["messages"][0]["content"].split("\n") for task in tasks]
    fits = lambda i: len(tasks[i]["messages"]) == 2 and sum(line.startswith(" - ") for line in lines[i]) >= FEWEST_ITEMS
    chosen = [i for i in range(len(tasks)) if fits(i)][:limit]
    return [with_items(tasks[i], characters, [line for j, other in enumerate(lines) if j != i for line in other if line.startswith(" - ")], rng) for i in chosen]


def with_items(task: dict, characters: int, others: list[str], rng: random.Random) -> dict:
    system, question = task["messages"]
    lines, asked = system["content"].split("\n"), words(question["content"])
    size = lambda: len("\n".join(lines)) + len(question["content"])
    spare = [line for line in lines if line.startswith(ITEM) and not words(line) & asked]
    rng.shuffle(others)
    rng.shuffle(spare)
    while size() > characters and spare:
        lines.remove(spare.pop())
    at = next((i for i, line in enumerate(lines) if line.startswith(" - ")), len(lines))
    while size() < characters and others:
        lines.insert(at, others.pop())
    return {**task, "messages": [{**system, "content": "\n".join(lines)}, question]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--characters", type=int, required=True, help="of data and question")
    parser.add_argument("--limit", type=int, default=6, help="prompts")
    arguments = parser.parse_args()
    tasks = [json.loads(line) for line in arguments.workload.read_text(encoding="utf-8").splitlines()]
    for task in deepen(tasks, arguments.characters, arguments.limit):
        print(json.dumps(task, ensure_ascii=False))


if __name__ == "__main__":
    main()
