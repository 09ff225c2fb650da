"""Writes a checkpoint as GGUF: Q8_0 matrices, F32 norm gains, vocabulary, merges and chat template inside."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch

from model import Config

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def tensor_name(name: str) -> str:
    """`blocks.3.attn_q.weight` is `blk.3.attn_q.weight` in GGUF; gains get their `.weight`."""
    name = name.replace("blocks.", "blk.")
    return name if name.endswith(".weight") else f"{name}.weight"


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: dict) -> None:
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    assert [i for _, i in vocabulary] == list(range(len(vocabulary)))
    tokens = [t for t, _ in vocabulary]
    specials = {t["content"] for t in tokenizer["added_tokens"]}
    merges = [" ".join(m) if isinstance(m, list) else m for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in specials else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_eot_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_hyperparameters(writer: gguf.GGUFWriter, config: Config, name: str) -> None:
    writer.add_name(name)
    writer.add_description("Small assistant for tests and demonstrations of on-device inference")
    writer.add_license("cc-by-sa-4.0")
    writer.add_vocab_size(config.n_vocab)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.n_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_eps)


def export(masters: dict[str, torch.Tensor], config: Config, tokenizer: dict, name: str, out: Path, kind: str = "q8_0") -> None:
    quantisation, file_type = TYPES[kind]
    writer = gguf.GGUFWriter(str(out), "llama")
    add_hyperparameters(writer, config, name)
    writer.add_file_type(file_type)
    add_vocabulary(writer, tokenizer)
    factors = {"token_embd.weight": config.embd_scale, "output_norm": 1 / config.embd_scale}
    for key, value in masters.items():
        array = value.float().numpy() * np.float32(factors.get(key, 1.0))
        if array.ndim == 1:
            writer.add_tensor(tensor_name(key), array.astype(np.float32))
        else:
            writer.add_tensor(tensor_name(key), gguf.quantize(array, quantisation), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    arguments = parser.parse_args()
    state = torch.load(arguments.checkpoint, weights_only=True)
    tokenizer = json.loads(arguments.tokenizer.read_text(encoding="utf-8"))
    export(state["optimizer"]["masters"], Config(**state["config"]), tokenizer, arguments.name, arguments.out, arguments.type)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, step {state['step']}")


if __name__ == "__main__":
    main()
