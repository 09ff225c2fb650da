"""The tool caller in the repository is what its script writes."""

import sys
import tempfile
import unittest
from pathlib import Path

MODELS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(MODELS))
sys.path.insert(0, str(MODELS / "tests"))
import caller
from forward import logits


class Caller(unittest.TestCase):
    def test_the_file_is_what_the_script_writes(self):
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "caller.gguf"
            caller.write(made)
            self.assertEqual(made.read_bytes(), (MODELS / "caller.gguf").read_bytes())

    def test_it_says_its_two_texts(self):
        tokens, letters = caller.vocabulary(), caller.stand_ins()
        spelt = {"".join(letters[byte] for byte in piece.encode()): piece for piece in caller.CALL + caller.TEXT}
        for first, text in ((caller.ASK, caller.CALL), (caller.ANSWER, caller.TEXT)):
            at, said = tokens.index(first), []
            for _ in text:
                at = int(logits(MODELS / "caller.gguf", [0, at])[-1].argmax())
                said.append(tokens[at] if tokens[at] in caller.CONTROLS else spelt[tokens[at]])
            self.assertEqual(said, text)


if __name__ == "__main__":
    unittest.main()
