"""Twenty conversations for the model card: the user's lines are held out, the answers are the engine's, unedited.

Twelve follow the user's side of held-out dialogues, whatever the model answers; eight ask held-out grounded tasks.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import chat
import evaluate
import grounded
import reply
import summary
import ui
import wording
from entities import HELD

N_CHATS = 12
MOST_TURNS = 5


def users(dialogues: Path, seed: int) -> list[tuple[str, list[str]]]:
    """(title, the user's lines) of every conversation."""
    rng = random.Random(seed)
    conversations = chat.dialogues(dialogues)
    wording.learn(conversations)
    picked = rng.sample(conversations[HELD], N_CHATS)
    found = [("Free chat", [t["content"] for t in turns if t["role"] == "user"][:MOST_TURNS]) for turns in picked]
    for build, title in ((lambda: grounded.build(rng, 160, 3, HELD, HELD), "Questions"), (lambda: summary.build(rng, 160, HELD, HELD), "Summary"), (lambda: ui.build(rng, 0, HELD, HELD), "Screen"), (lambda: reply.build(rng, 0, HELD, HELD), "Reply")):
        for _ in range(2):
            messages = build()["messages"]
            while messages[0]["role"] == "system":
                messages = build()["messages"]
            found.append((title, [m["content"].strip() for m in messages if m["role"] == "user"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("--fulcrum", default="fulcrum")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20)
    arguments = parser.parse_args()
    arguments.n, arguments.extra = 200, []
    lines = ["# Twenty conversations with the pocket model", "", "Greedy, unedited; the user's lines are held out. Written by `train/samples.py`.", ""]
    for number, (title, asks) in enumerate(users(arguments.dialogues, arguments.seed), 1):
        lines += [f"## {number}. {title}", ""]
        messages: list[dict] = []
        for ask in asks:
            messages.append({"role": "user", "content": ask})
            text = evaluate.answer(arguments, {"id": str(number), "task": "chat", "messages": messages})["text"]
            messages.append({"role": "assistant", "content": text})
            quoted = [f"> {line}".rstrip() for line in ask.split("\n")]
            lines += ["**User**", "", *(["```text", *ask.split("\n"), "```"] if "\n" in ask else quoted), "", "**Pocket**", "", "```text", *text.split("\n"), "```", ""]
    arguments.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
