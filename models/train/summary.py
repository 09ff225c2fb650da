"""Extractive summaries: pick the lines of a thread or note that carry decisions, tasks, dates or amounts.

The expected summary repeats those lines word for word, in order, and leaves out the small talk. What makes a
line matter is what it says, not where it stands.
"""

from __future__ import annotations

import random

from entities import HELD, TRAIN, Entities
from wording import FILLERS, THREAD_FILLERS, Writer

THREAD_KEYS = {
    TRAIN: [
        "We moved the {event} to {day} at {time}.", "The {event} is on {day} at {time}.", "Please bring the {object} to {venue}.", "We decided to meet at {venue} at {time}.",
        "The deadline for the {event} is {date}.", "I will book {venue} for the {event}.", "{name} will bring the {object}.", "The new door code for {venue} is {code}.",
        "Please send {name} the {object} before {day}.", "The tickets cost {price} each.", "You can call {name} at {phone}.", "The {event} is cancelled.",
        "We agreed to pay {price} for the {object}.", "My train arrives at {time} on {day}.", "We need the {object} for the {event}.", "{name} will pick you up at {time} at {venue}.",
    ],
    HELD: ["The {event} now starts at {time} on {day}.", "Please pay {name} {price} before {date}.", "We decided that {name} will book {venue}.", "You need to bring the {object} at {time}.", "The {event} will be at {venue} on {date}."],
}
NOTE_KEYS = {
    TRAIN: [
        "The {event} is on {day} at {time}.", "I must bring the {object} to {venue}.", "The deadline for the {event} is {date}.", "I promised {name} the {object}.", "I have to call {name} at {phone}.",
        "The door code for {venue} is {code}.", "I agreed to pay {price} for the {object}.", "We decided to meet at {venue} at {time}.", "The {event} was moved to {date}.", "I need the {object} for the {event}.",
        "{name} will bring the {object}.", "The {object} costs {price}.", "I will meet {name} at {venue} at {time}.",
    ],
    HELD: ["I have to send the {object} to {name} before {date}.", "The {event} now starts at {time}.", "I need to pay {name} {price}.", "We agreed that the {event} is at {venue}."],
}
ASKS = {
    TRAIN: ["Summarize this {kind}.", "Give me a summary of this {kind}.", "Summary of the {kind}, please.", "What are the main points of this {kind}?", "What matters in this {kind}?", "Sum up the {kind}."],
    HELD: ["Can you give me the main points of this {kind}?", "Please summarize the {kind}."],
}
OPENING = "Here are the main points:\n"


def key_line(writer: Writer, templates: dict[str, list[str]]) -> str:
    e = writer.entities
    text = writer.pick(templates[writer.templates])
    return text.format(
        event=e.event(), day=e.day(), time=e.time(), date=e.date(), object=e.object(), venue=e.venue(),
        name=e.first() if e.rng.random() < 0.6 else e.person(), code=e.code(), price=e.price(), phone=e.phone(),
    )


def thread(writer: Writer, n_lines: int, n_keys: int) -> tuple[str, list[str]]:
    """Messages of two to four people, and the lines that matter."""
    e = writer.entities
    people = e.many(e.first, e.rng.randint(2, 4))
    keyed = set(e.rng.sample(range(n_lines), n_keys))
    minute, style = e.rng.randint(420, 900), e.rng.randrange(2)
    lines, keys = [], []
    for i in range(n_lines):
        text = key_line(writer, THREAD_KEYS) if i in keyed else " ".join(writer.filler(THREAD_FILLERS) for _ in range(1 + (e.rng.random() < 0.4)))
        said = f"{writer.pick(people)}: {text}"
        minute += e.rng.randint(1, 6)
        lines.append((f"[{minute // 60}:{minute % 60:02d}] " if style else " - ") + said)
        if i in keyed:
            keys.append(said)
    return "\n".join(lines), keys


def note(writer: Writer, n_lines: int, n_keys: int) -> tuple[str, list[str]]:
    """A note in paragraphs, and the sentences that matter."""
    e = writer.entities
    keyed = set(e.rng.sample(range(n_lines), n_keys))
    sentences = [key_line(writer, NOTE_KEYS) if i in keyed else writer.filler(FILLERS) for i in range(n_lines)]
    size = e.rng.randint(3, 6)
    text = "\n".join(" " + " ".join(sentences[i : i + size]) for i in range(0, n_lines, size))
    return text, [sentences[i] for i in sorted(keyed)]


def build(rng: random.Random, tokens: int, entities: str = TRAIN, templates: str = TRAIN) -> dict:
    """A summary task over about `tokens` tokens."""
    writer = Writer(Entities(rng, entities), templates)
    kind = rng.choice(("thread", "thread", "note"))
    n_lines = max(4, round(tokens / (20 if kind == "thread" else 13)))
    n_keys = min(rng.randint(2, 6), n_lines // 2)
    text, keys = (thread if kind == "thread" else note)(writer, n_lines, n_keys)
    ask = writer.pick(ASKS[templates]).format(kind=kind)
    body = f"{ask}\n\n{text}" if rng.random() < 0.5 else f"{text}\n\n{ask}"
    expected = OPENING + "\n".join(f" - {k}" for k in keys)
    return {"task": "summary", "kind": kind, "messages": [{"role": "user", "content": body}], "expected": expected}
