"""Free chat: the Schema-Guided Dialogue conversations, and a little small talk about the assistant itself."""

from __future__ import annotations

import gzip
import random
import zlib
from pathlib import Path

from entities import HELD, TRAIN, Entities
from wording import Writer

ROLES = {"User: ": "user", "Assistant: ": "assistant"}
SYSTEMS = ["You are a helpful assistant.", "You are a friendly assistant on a phone.", "You are a helpful assistant. Answer briefly.", "You are Pocket, a small assistant."]
SMALL_TALK = [
    (["Hi", "Hello", "Hey", "Hi there", "Hello!", "Hey there!", "Good morning", "Hi, how are you?"], ["Hello! How can I help you?", "Hi! What can I do for you?"]),
    (["Who are you?", "What are you?", "What is your name?", "Are you a robot?"], ["I am Pocket, a small assistant that runs on your device. How can I help you?"]),
    (["What can you do?", "How can you help me?", "What do you do?", "Help"], ["I can answer questions about your notes, contacts, calendar and messages, sum up a thread, draft replies, and help you find restaurants, movies, music, flights and more."]),
    (["Thanks", "Thank you", "Thanks a lot!", "Thank you so much", "Great, thanks."], ["You're welcome! Is there anything else I can help you with?", "You are welcome. Anything else?"]),
    (["Bye", "Goodbye", "See you later", "That's all, bye.", "No, that is all."], ["Goodbye! Have a great day.", "Have a nice day!"]),
    (["Are you there?", "Can you hear me?", "Test", "Ping"], ["Yes, I am here. How can I help you?"]),
    (["Do you need the internet?", "Where does my data go?", "Do you send my data anywhere?"], ["No, I run on your device and your data stays here."]),
]


def dialogues(path: Path) -> dict[str, list[list[dict]]]:
    """The conversations of both halves; every twenty-fifth, by checksum, is held out."""
    found: dict[str, list[list[dict]]] = {TRAIN: [], HELD: []}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for block in file.read().split("\n\n"):
            turns: list[dict] = []
            for line in block.strip().split("\n"):
                role = next((r for prefix, r in ROLES.items() if line.startswith(prefix)), None)
                if role is None or (turns and turns[-1]["role"] == role) or (not turns and role != "user"):
                    continue
                turns.append({"role": role, "content": line.split(": ", 1)[1].strip()})
            if turns and turns[-1]["role"] == "user":
                turns.pop()
            if len(turns) >= 2:
                found[HELD if zlib.crc32(block.encode()) % 25 == 0 else TRAIN].append(turns)
    return found


def small_talk(rng: random.Random) -> list[dict]:
    turns: list[dict] = []
    for asks, answers in rng.sample(SMALL_TALK, rng.randint(1, 2)):
        turns += [{"role": "user", "content": rng.choice(asks)}, {"role": "assistant", "content": rng.choice(answers)}]
    return turns


def build(rng: random.Random, pool: list[list[dict]]) -> dict:
    """One conversation, sometimes with a greeting in front or a system message."""
    turns = list(rng.choice(pool))
    draw = rng.random()
    if draw < 0.04:
        turns = small_talk(rng)
    elif draw < 0.08:
        turns = small_talk(rng)[:2] + turns
    if rng.random() < 0.15:
        turns = [{"role": "system", "content": rng.choice(SYSTEMS)}] + turns
    return {"task": "chat", "kind": "chat", "messages": turns[:-1], "expected": turns[-1]["content"]}


def repeat(rng: random.Random) -> dict:
    """Copying for its own sake; it teaches the model early that context is worth looking at."""
    e = Entities(rng, TRAIN)
    draws = (e.person, e.town, e.time, e.object, e.phone, e.address, e.event, e.song, e.code, e.password)
    text = ", ".join(rng.choice(draws)() for _ in range(rng.randint(3, 14)))
    ask = Writer(e, TRAIN).pick(["Repeat this:", "Copy this:", "Say this again:"])
    return {"task": "copy", "kind": "copy", "messages": [{"role": "user", "content": f"{ask} {text}"}], "expected": text}
