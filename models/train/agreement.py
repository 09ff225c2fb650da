"""How often the draft's first choice is the target's own next token, and how well both stand in for each other.

Reads the answers that `evaluate.py --out` wrote and runs draft and target over them teacher-forced, from the
exported GGUF files.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

import dataset
from model import Config, Pocket


def load(path: Path) -> Pocket:
    """A model from its GGUF file, dequantised."""
    reader = gguf.GGUFReader(str(path))
    value = lambda key: reader.fields[f"llama.{key}"].contents()
    config = Config(
        n_vocab=value("vocab_size"), n_embd=value("embedding_length"), n_layers=value("block_count"), n_heads=value("attention.head_count"),
        n_kv_heads=value("attention.head_count_kv"), n_ff=value("feed_forward_length"), norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_base=value("rope.freq_base"), embd_scale=1.0,
    )
    model, state = Pocket(config), {}
    for tensor in reader.tensors:
        name = tensor.name.replace("blk.", "blocks.")
        name = name.removesuffix(".weight") if "norm" in name else name
        state[name] = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def choices(model: Pocket, ids: list[int], n: int) -> torch.Tensor:
    """The first choice at each of the last `n` positions."""
    hidden = model.hidden(torch.tensor([ids]))[0, -n:]
    return (hidden @ model.token_embd.weight.T).argmax(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path, help="written by evaluate.py --out")
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    arguments = parser.parse_args()
    encoder = dataset.Encoder(Tokenizer.from_file(str(arguments.tokenizer)))
    draft, target = load(arguments.draft), load(arguments.target)
    agreed: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for record in json.loads(arguments.answers.read_text(encoding="utf-8")):
        prompt, answer = encoder.prompt(record["messages"]), record["tokens"]
        if not answer:
            continue
        ids = (prompt + answer)[:-1]
        expected, counts = torch.tensor(answer), agreed[record["task"]]
        counts[0] += int((choices(draft, ids, len(answer)) == expected).sum())
        counts[1] += int((choices(target, ids, len(answer)) == expected).sum())
        counts[2] += len(answer)
    for task, (by_draft, by_target, n) in sorted(agreed.items()):
        print(f"{task}: draft agrees with the target on {by_draft / n:.1%} of {n} tokens (target with itself, recomputed: {by_target / n:.1%})")


if __name__ == "__main__":
    main()
