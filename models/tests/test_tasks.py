"""The generated tasks are answerable from their prompts, reproducible, and split as they claim."""

import json
import random
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import chat
import grounded
import reply
import summary
import ui
from entities import HELD, TRAIN, Entities, is_held


def prompt(example: dict) -> str:
    return "\n".join(m["content"] for m in example["messages"])


class Tasks(unittest.TestCase):
    def test_a_seed_reproduces_a_task(self):
        for build in (lambda r: grounded.build(r, 300, 3), lambda r: summary.build(r, 300), ui.build, reply.build):
            self.assertEqual(build(random.Random(4)), build(random.Random(4)))

    def test_entities_never_cross_the_split(self):
        for split in (TRAIN, HELD):
            e = Entities(random.Random(1), split)
            for draw in (e.first, e.last, e.town, e.object, e.event, e.song):
                self.assertTrue(all(is_held(draw()) == (split == HELD) for _ in range(200)))

    def test_wordings_never_cross_the_split(self):
        tables = [*grounded.QUESTIONS.values(), *grounded.NOTES.values(), *grounded.MESSAGES.values(), *ui.GOALS.values(), grounded.FRAMES, summary.THREAD_KEYS, summary.NOTE_KEYS, summary.ASKS, ui.LAYOUTS, reply.INVITES, reply.EARLIER, reply.ASKS]
        for table in tables:
            self.assertFalse(set(table[TRAIN]) & set(table[HELD]))
        writer = grounded.Writer(Entities(random.Random(4), TRAIN), TRAIN)
        self.assertFalse({grounded.entry_layout(writer) for _ in range(20_000)} & set(grounded.ENTRY_LAYOUTS[HELD]))

    def test_every_answer_is_copied_from_its_prompt(self):
        rng = random.Random(2)
        for _ in range(300):
            section = rng.choice(list(grounded.SECTIONS.values()))(grounded.Writer(Entities(rng, HELD), HELD), 4)
            for _, _, answer in section.asks:
                self.assertIn(answer.removeprefix(grounded.ANSWERS[section.kind]), section.text)

    def test_questions_have_one_answer(self):
        rng = random.Random(3)
        for make in grounded.SECTIONS.values():
            for _ in range(100):
                answers: dict[str, set[str]] = {}
                for _, question, answer in make(grounded.Writer(Entities(rng, TRAIN), TRAIN), 8).asks:
                    answers.setdefault(question, set()).add(answer)
                self.assertTrue(all(len(a) == 1 for a in answers.values()), answers)

    def test_summaries_repeat_lines_in_order(self):
        rng = random.Random(4)
        for _ in range(100):
            example = summary.build(rng, 400, HELD, HELD)
            text, position = prompt(example), 0
            for line in example["expected"].split("\n")[1:]:
                position = text.index(line.removeprefix(" - "), position)

    def test_actions_name_an_element_on_screen(self):
        rng = random.Random(5)
        for _ in range(300):
            example = ui.build(rng, 0, HELD, HELD)
            action, screen = json.loads(example["expected"]), example["messages"][-1]["content"]
            if "target" in action:
                self.assertEqual(screen.count(json.dumps(action["target"])), 1)

    def test_replies_keep_the_style(self):
        rng = random.Random(6)
        for _ in range(100):
            example = reply.build(rng, 0, HELD, HELD)
            closing = example["expected"].rsplit(" ", 1)[-1]
            self.assertGreater(prompt(example).lower().count(closing.lower()), 2)

    def test_small_talk_alternates(self):
        for seed in range(20):
            roles = [m["role"] for m in chat.small_talk(random.Random(seed))]
            self.assertEqual(roles, ["user", "assistant"] * (len(roles) // 2))


if __name__ == "__main__":
    unittest.main()
