#!/usr/bin/env python3
"""Makes a cost-equivalent larger model from a small Llama GGUF without changing what it computes.

    python3 scale.py pocket.gguf pocket-1b.gguf --params 1B --type q8_0
    python3 scale.py pocket.gguf wide.gguf --widen 4 --deepen 16 --type q4_k_m --ggml libggml-base.so

It is a way to measure time and I/O at a size with the small model's real acceptance. It is not a better
model: the distribution over next tokens is the small model's, while every byte is stored, read and
multiplied.

Widening by f. Let x be the small model's residual, x̂ = x / sqrt(mean(x²) + ε) and n = g ⊙ x̂. The large residual is
X = f · tile(x, f): embeddings are tiled and multiplied by f. With ε' = f² ε,
X / sqrt(mean(X²) + ε') = tile(x̂), and gains g' = tile(g) / f give N = tile(n) / f. A matrix W becomes f × f
copies of itself, unchanged: each output copy is the sum of f equal terms W n / f, that is W n. So queries, keys,
values and the FFN's hidden layer are the small ones, f times over (heads keep their width, hence the attention
scale), while attention output and FFN down, which read un-normed tiles, yield f · tile(o), which is what the
residual needs. The output matrix is the tied embedding, tile(E) · f, reading N: it would give f times the
logits, so the output norm is divided by f once more. An untied output matrix is tiled unchanged.
Dividing the weights instead would push the f16 scales of quantised blocks into the subnormal range.

Deepening. Blocks whose attention output and FFN down are zero add nothing to the residual. They are spread
evenly between the real ones, and their other matrices are copies of a real block's.

Quantised types: the small matrix is quantised once and its bytes are tiled, so the copies are identical. A source
that already has the wanted type is not touched at all. With f a power of two every factor is exact. Tensors are
written one at a time: memory stays at one tensor.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import math
import re
from pathlib import Path

import gguf
import numpy as np

Type = gguf.GGMLQuantizationType
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M,
}
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
ZEROED = ("attn_output", "ffn_down")


class Small:
    """The source model: hyperparameters and dequantised tensors."""

    def __init__(self, path: Path):
        self.reader = gguf.GGUFReader(str(path))
        self.tensors = {t.name: t for t in self.reader.tensors}
        architecture = self.value("general.architecture")
        if architecture != "llama":
            raise SystemExit(f"{path}: architecture {architecture} is not supported, only llama")
        self.n_layers = self.value("llama.block_count")
        self.tied = "output.weight" not in self.tensors
        expected = {f"blk.{i}.{m}.weight" for i in range(self.n_layers) for m in (*MATRICES, "attn_norm", "ffn_norm")}
        other = set(self.tensors) - expected - {"token_embd.weight", "output_norm.weight", "output.weight"}
        if other or not expected <= set(self.tensors):
            raise SystemExit(f"{path}: tensors this script does not know: {sorted(other)[:4] or 'some are missing'}")

    def value(self, key: str):
        return self.reader.fields[key].contents()

    def bytes(self, name: str) -> np.ndarray:
        """Raw rows, `[rows, bytes per row]`."""
        return np.asarray(self.tensors[name].data).view(np.uint8).reshape(int(self.tensors[name].shape[1]), -1)

    def floats(self, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    def params(self, widen: int, deepen: int) -> int:
        block = sum(t.n_elements * widen ** (2 if len(t.shape) > 1 else 1) for n, t in self.tensors.items() if n.startswith("blk.0."))
        rest = sum(t.n_elements * widen for n, t in self.tensors.items() if not n.startswith("blk."))
        return int(block * deepen + rest)


def choose(small: Small, wanted: int) -> tuple[int, int]:
    """The factor (a power of two) and depth that come nearest to `wanted` parameters without becoming a tower."""
    best = None
    for widen in (1, 2, 4, 8, 16, 32):
        per_block = small.params(widen, 1) - small.params(widen, 0)
        deepen = max(small.n_layers, round((wanted - small.params(widen, 0)) / per_block))
        error = abs(math.log(small.params(widen, deepen) / wanted))
        score = error + 0.05 * abs(math.log(deepen / (2 * small.n_layers)))
        if best is None or score < best[0]:
            best = (score, widen, deepen)
    return best[1], best[2]


def sources(n_real: int, n_blocks: int) -> list[tuple[int, bool]]:
    """For every block of the large model: which block it copies, and whether it is real."""
    real = {(i * n_blocks + n_blocks // 2) // n_real if n_blocks > n_real else i: i for i in range(n_real)}
    assert len(real) == n_real and max(real) < n_blocks
    order, last = [], 0
    for position in range(n_blocks):
        last = real.get(position, last)
        order.append((last, position in real))
    return order


def use_more_bits(position: int, n_blocks: int) -> bool:
    """Which blocks get Q6_K in a Q4_K_M mix: the first and last eighth and every third between."""
    return position < n_blocks // 8 or position >= 7 * n_blocks // 8 or (position - n_blocks // 8) % 3 == 2


def matrix_type(kind: str, name: str, n_blocks: int, tied: bool) -> Type:
    simple = {"f32": Type.F32, "f16": Type.F16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0}
    output = name == "output.weight" or (tied and name == "token_embd.weight")
    if kind in simple:
        return simple[kind]
    if output:
        return Type.Q6_K
    block = re.match(r"blk\.(\d+)\.(attn_v|ffn_down)\.", name)
    return Type.Q6_K if block and use_more_bits(int(block.group(1)), n_blocks) else Type.Q4_K


class Quantiser:
    """Rows of floats to rows of bytes. K-quants go through ggml's own `ggml_quantize_chunk`."""

    def __init__(self, library: Path | None):
        self.library = library
        self.function = None

    def __call__(self, rows: np.ndarray, kind: Type) -> np.ndarray:
        if kind in (Type.F32, Type.F16, Type.Q8_0, Type.Q4_0):
            return gguf.quantize(rows, kind).view(np.uint8).reshape(len(rows), -1)
        return self._chunk(np.ascontiguousarray(rows, dtype=np.float32), kind)

    def _chunk(self, rows: np.ndarray, kind: Type) -> np.ndarray:
        if self.function is None:
            self.function = ctypes.CDLL(str(self._find())).ggml_quantize_chunk
            self.function.restype = ctypes.c_size_t
            self.function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
        n_rows, width = rows.shape
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if width % block:
            raise SystemExit(f"rows of {width} values cannot be stored as {kind.name}")
        out = np.empty((n_rows, width // block * size), dtype=np.uint8)
        written = self.function(int(kind), rows.ctypes.data, out.ctypes.data, 0, n_rows, width, None)
        assert written == out.nbytes
        return out

    def _find(self) -> Path:
        if self.library is not None:
            return self.library.resolve()
        try:
            import llama_cpp

            folder = Path(llama_cpp.__file__).parent / "lib"
            return next(p for pattern in ("libggml-base.so*", "libggml-base.dylib") for p in folder.glob(pattern))
        except (ImportError, StopIteration):
            raise SystemExit("K-quants need ggml: pass --ggml libggml-base.so, or install llama-cpp-python (see README.md)") from None


@dataclasses.dataclass
class Plan:
    """One tensor of the large model: its type, shape, and how to make its bytes."""

    name: str
    type: Type
    shape: tuple[int, ...]
    make: object

    def n_bytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // block * size


def matrix(small: Small, quantise: Quantiser, name: str, kind: Type, repeat: tuple[int, int], factor: float = 1.0, zero: bool = False) -> np.ndarray:
    """Bytes of `name`, tiled `repeat` = (down, across) times."""
    source = small.tensors[name]
    if zero:
        rows = quantise(np.zeros((int(source.shape[1]), int(source.shape[0])), dtype=np.float32), kind)
    elif source.tensor_type == kind and factor == 1.0:
        rows = small.bytes(name)
    elif source.tensor_type == kind == Type.Q8_0:
        rows = scale_q8_0(small.bytes(name), factor)
    else:
        rows = quantise(small.floats(name) * np.float32(factor), kind)
    return np.tile(rows, repeat)


def scale_q8_0(rows: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies the f16 scale that starts each block of 34 bytes."""
    blocks = rows.reshape(-1, 34).copy()
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32) * factor
    assert np.all(np.isfinite(scales.astype(np.float16)))
    blocks[:, :2] = scales.astype(np.float16).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows.shape)


def plans(small: Small, quantise: Quantiser, kind: str, widen: int, deepen: int):
    """Every tensor of the large model, in file order."""

    def gains(name: str, divisor: int) -> Plan:
        tensor = small.tensors[name]
        return Plan(name, Type.F32, (int(tensor.shape[0]) * widen,), lambda: np.tile(small.floats(name).ravel() / np.float32(divisor), widen))

    def weights(name: str, source: str, repeat: tuple[int, int], factor: float = 1.0, zero: bool = False) -> Plan:
        tensor, to = small.tensors[source], matrix_type(kind, name, deepen, small.tied)
        shape = (int(tensor.shape[1]) * repeat[0], int(tensor.shape[0]) * repeat[1])
        return Plan(name, to, shape, lambda: matrix(small, quantise, source, to, repeat, factor, zero))

    yield weights("token_embd.weight", "token_embd.weight", (1, widen), float(widen))
    for position, (source, real) in enumerate(sources(small.n_layers, deepen)):
        for norm in ("attn_norm", "ffn_norm"):
            plan = gains(f"blk.{source}.{norm}.weight", widen)
            yield dataclasses.replace(plan, name=f"blk.{position}.{norm}.weight")
        for part in MATRICES:
            zero = not real and part in ZEROED
            yield weights(f"blk.{position}.{part}.weight", f"blk.{source}.{part}.weight", (widen, widen), 1.0, zero)
    yield gains("output_norm.weight", widen * widen if small.tied else widen)
    if not small.tied:
        yield weights("output.weight", "output.weight", (1, widen))


def copy_metadata(small: Small, writer: gguf.GGUFWriter, changed: dict) -> None:
    for key, field in small.reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = changed.get(key, field.contents())
        sub_type = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, field.types[0], sub_type)


def write(small: Small, out: Path, kind: str, widen: int, deepen: int, library: Path | None = None) -> str:
    """Writes the large model to `out`, one tensor in memory at a time."""
    writer = gguf.GGUFWriter(str(out), "llama")
    size = small.params(widen, deepen)
    changed = {f"llama.{k}": small.value(f"llama.{k}") * widen for k in ("embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv")}
    changed |= {
        "llama.block_count": deepen,
        "llama.attention.layer_norm_rms_epsilon": small.value("llama.attention.layer_norm_rms_epsilon") * widen * widen,
        "general.file_type": int(FILE_TYPES[kind]),
        "general.name": f"{small.value('general.name')} at the cost of {size / 1e6:.0f}M",
        "general.description": "Cost-equivalent copy of a small model: same next-token distribution, more bytes and products",
    }
    copy_metadata(small, writer, changed)
    writer.add_uint32("fulcrum.scaled.widen", widen)
    writer.add_uint32("fulcrum.scaled.deepen", deepen)
    todo = list(plans(small, Quantiser(library), kind, widen, deepen))
    for plan in todo:
        plain = plan.type in (Type.F32, Type.F16)
        shape = plan.shape if plain else gguf.quant_shape_to_byte_shape(plan.shape, plan.type)
        dtype = {Type.F32: np.float32, Type.F16: np.float16}.get(plan.type, np.uint8)
        writer.add_tensor_info(plan.name, shape, np.dtype(dtype), plan.n_bytes(), raw_dtype=None if plain else plan.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for plan in todo:
        data = plan.make()
        assert data.nbytes == plan.n_bytes(), plan.name
        writer.write_tensor_data(data)
    writer.close()
    return f"{out}: widened {widen} times, {deepen} blocks ({small.n_layers} real), {size / 1e6:.1f}M parameters, {out.stat().st_size / 1e6:.1f} MB"


def count(text: str) -> int:
    """`1B`, `62.5M` or a plain number."""
    units = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}
    return round(float(text[:-1]) * units[text[-1].upper()]) if text[-1].isalpha() else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=FILE_TYPES, default="q8_0")
    parser.add_argument("--params", type=count, help="chooses --widen and --deepen: 100M, 1B, 3B")
    parser.add_argument("--widen", type=int, help="how many times the residual stream is tiled")
    parser.add_argument("--deepen", type=int, help="blocks of the large model, real ones included")
    parser.add_argument("--ggml", type=Path, help="a shared library with ggml_quantize_chunk, for q4_k_m")
    arguments = parser.parse_args()
    small = Small(arguments.source)
    widen, deepen = arguments.widen or 1, arguments.deepen or small.n_layers
    if arguments.params:
        if arguments.widen or arguments.deepen:
            parser.error("--params chooses --widen and --deepen itself")
        widen, deepen = choose(small, arguments.params)
    if widen < 1 or deepen < small.n_layers:
        parser.error(f"--widen is at least 1 and --deepen at least {small.n_layers}")
    print(write(small, arguments.out, arguments.type, widen, deepen, arguments.ggml))


if __name__ == "__main__":
    main()
