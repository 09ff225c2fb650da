"""A deepened prompt has the length asked for, the same question, and what the answer is about."""

import json
import sys
import unittest
from pathlib import Path

MODELS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(MODELS))
from deepen import deepen, words


class Deepen(unittest.TestCase):
    def test_prompts_get_longer_and_shorter_around_the_same_question(self):
        tasks = [json.loads(line) for line in (MODELS / "workloads/rag.jsonl").read_text(encoding="utf-8").splitlines()]
        questions = {task["messages"][-1]["content"]: task for task in tasks}
        for characters in (2950, 5900):
            made = deepen(tasks, characters, 6)
            self.assertEqual(len(made), 6)
            for task in made:
                system, question = (message["content"] for message in task["messages"])
                self.assertLess(abs(len(system) + len(question) - characters), 0.1 * characters)
                before = questions[question]["messages"][0]["content"].split("\n")
                asked = words(question)
                kept = [line for line in before if words(line) & asked]
                self.assertTrue(all(line in system.split("\n") for line in kept))

    def test_it_does_the_same_twice(self):
        tasks = [json.loads(line) for line in (MODELS / "workloads/rag.jsonl").read_text(encoding="utf-8").splitlines()]
        self.assertEqual(deepen(tasks, 690, 3), deepen(tasks, 690, 3))


if __name__ == "__main__":
    unittest.main()
