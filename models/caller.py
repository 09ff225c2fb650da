"""Writes a model that calls a tool: whatever it is asked, it looks at the weather of Zürich, and with a result at hand it answers.

    python3 caller.py caller.gguf

It has learnt nothing. Its weights are a chain from token to token: no attention, no feed-forward, and an output matrix that turns each
token of its two texts into the next. So tests of tools have a model whose calls are known and a file of a few kilobytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np

ASK, ANSWER, OPEN, CLOSE, START, END = "<|ask|>", "<|answer|>", "<tool_call>", "</tool_call>", "<|im_start|>", "<|im_end|>"
CONTROLS = [START, END, ASK, ANSWER, OPEN, CLOSE]
CALL = ["Let me", " look.", OPEN, '{"name": "weather", ', '"arguments": {"city": "Zür', 'ich"}}', CLOSE, END]
TEXT = ["It is", " warm in", " Zürich.", END]

CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<|answer|>' if messages[-1].role == 'tool' else '<|ask|>' }}{% endif %}"
)
WIDTH, FFN, HEADS, CONTEXT = 64, 64, 2, 2048


def stand_ins() -> dict[int, str]:
    """GPT-2's printable stand-ins for bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def vocabulary() -> list[str]:
    """Every byte, one merge, the pieces of the texts, the control tokens."""
    letters = stand_ins()
    pieces = [piece for piece in CALL + TEXT if piece not in CONTROLS]
    return [*letters.values(), "th", *("".join(letters[byte] for byte in piece.encode()) for piece in pieces), *CONTROLS]


def hadamard(size: int) -> np.ndarray:
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def write(out: Path) -> None:
    tokens, letters = vocabulary(), stand_ins()
    index = lambda piece: tokens.index(piece if piece in CONTROLS else "".join(letters[byte] for byte in piece.encode()))
    chains = [[index(piece) for piece in chain] for chain in ([ASK, *CALL], [ANSWER, *TEXT])]
    linked = dict.fromkeys(token for chain in chains for token in chain)
    rows = hadamard(WIDTH)
    assert len(linked) < WIDTH
    embedding = np.tile(rows[-1], (len(tokens), 1))
    for row, token in enumerate(linked):
        embedding[token] = rows[row]
    output = np.zeros_like(embedding)
    for chain in chains:
        for token, following in zip(chain, chain[1:]):
            output[following] += embedding[token]

    writer = gguf.GGUFWriter(str(out), "llama")
    writer.add_name("Tool caller")
    writer.add_description("Calls one tool and answers one text: for tests")
    writer.add_license("cc0-1.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in CONTROLS else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(tokens.index(START))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)

    nothing = np.zeros((WIDTH, WIDTH), np.float32)
    matrices = {"token_embd": embedding, "output": output}
    matrices |= {f"blk.0.{name}": nothing for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    for name, matrix in matrices.items():
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quantize(matrix, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
