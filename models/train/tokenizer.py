"""Trains the byte-level BPE of 4,096 tokens and checks what the GGUF vocabulary relies on."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import chat
import mixture
from entities import TRAIN

N_VOCAB = 4096
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def texts(dialogues: Path, seed: int, n: int):
    rng = random.Random(seed)
    pool = chat.dialogues(dialogues)[TRAIN]
    for _ in range(n):
        example = mixture.draw(rng, pool, mixture.TOKENIZER_MIX, 60, 300)
        for message in example["messages"]:
            yield message["content"]
        yield example["expected"]


def train(dialogues: Path, seed: int = 7, n: int = 40000) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    # Digits are split off while merges are learned, so no merge holds one; the shipped splitter is plain GPT-2.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trainer = trainers.BpeTrainer(vocab_size=N_VOCAB, special_tokens=SPECIALS, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(texts(dialogues, seed, n), trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    assert tokenizer.get_vocab_size() == N_VOCAB
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    train(arguments.dialogues).save(str(arguments.out))


if __name__ == "__main__":
    main()
