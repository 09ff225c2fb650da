"""Scaling changes cost and nothing else."""

import sys
import tempfile
import unittest
from pathlib import Path

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import scale
from forward import logits

N_VOCAB, WIDTH, N_FF, N_LAYERS, HEAD_DIM = 48, 256, 256, 2, 64
TOKENS = [3, 41, 7, 7, 0, 19]


def small_model(path: Path, kind: gguf.GGMLQuantizationType, tied: bool) -> None:
    rng = np.random.default_rng(5)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("small")
    writer.add_file_type(0)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-3)
    writer.add_token_list([f"t{i}" for i in range(N_VOCAB)])

    def matrix(name: str, rows: int, columns: int) -> None:
        values = rng.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    def gain(name: str) -> None:
        writer.add_tensor(name, rng.uniform(0.5, 1.5, WIDTH).astype(np.float32))

    matrix("token_embd.weight", N_VOCAB, WIDTH)
    for i in range(N_LAYERS):
        gain(f"blk.{i}.attn_norm.weight")
        gain(f"blk.{i}.ffn_norm.weight")
        for name, rows, columns in (("attn_q", 256, WIDTH), ("attn_k", 128, WIDTH), ("attn_v", 128, WIDTH), ("attn_output", WIDTH, 256), ("ffn_gate", N_FF, WIDTH), ("ffn_up", N_FF, WIDTH), ("ffn_down", WIDTH, N_FF)):
            matrix(f"blk.{i}.{name}.weight", rows, columns)
    gain("output_norm.weight")
    if not tied:
        matrix("output.weight", N_VOCAB, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Scaling(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def scaled(self, kind: str, widen: int, deepen: int, tied: bool = True, source_type=gguf.GGMLQuantizationType.F32):
        source, out = self.folder / "small.gguf", self.folder / "large.gguf"
        small_model(source, source_type, tied)
        scale.write(scale.Small(source), out, kind, widen, deepen)
        return source, out

    def test_logits_are_the_small_models(self):
        for widen, deepen, tied in ((1, 5, True), (2, 2, True), (4, 3, True), (2, 4, False), (3, 2, True)):
            with self.subTest(widen=widen, deepen=deepen, tied=tied):
                source, out = self.scaled("f32", widen, deepen, tied)
                small, large = logits(source, TOKENS), logits(out, TOKENS)
                self.assertLess(np.abs(small - large).max(), 1e-5 * np.abs(small).max())

    def test_q8_0_bytes_are_kept(self):
        source, out = self.scaled("q8_0", 2, 3, source_type=gguf.GGMLQuantizationType.Q8_0)
        small, large = logits(source, TOKENS), logits(out, TOKENS)
        self.assertLess(np.abs(small - large).max(), 1e-5 * np.abs(small).max())
        before = {t.name: t for t in gguf.GGUFReader(str(source)).tensors}
        after = {t.name: t for t in gguf.GGUFReader(str(out)).tensors}
        copied = after["blk.0.ffn_up.weight"] if np.any(after["blk.0.ffn_down.weight"].data) else after["blk.1.ffn_up.weight"]
        row = before["blk.0.ffn_up.weight"].data[0]
        self.assertTrue(np.array_equal(copied.data[0], np.tile(row, 2)))

    def test_quantised_source_and_other_target(self):
        source, out = self.scaled("q4_0", 2, 2)
        _, same = self.scaled("q4_0", 1, 2)
        self.assertTrue(np.isfinite(logits(out, TOKENS)).all())
        self.assertEqual({t.tensor_type.name for t in gguf.GGUFReader(str(same)).tensors}, {"F32", "Q4_0"})

    def test_real_blocks_are_spread(self):
        for n_real, n_blocks in ((2, 2), (2, 7), (8, 20), (8, 9), (3, 100)):
            order = scale.sources(n_real, n_blocks)
            self.assertEqual(len(order), n_blocks)
            self.assertEqual([s for s, real in order if real], list(range(n_real)))

    def test_choice_is_near(self):
        source = self.folder / "small.gguf"
        small_model(source, gguf.GGMLQuantizationType.F32, True)
        small = scale.Small(source)
        for wanted in (20_000_000, 100_000_000, 1_000_000_000, 3_000_000_000):
            self.assertLess(abs(small.params(*scale.choose(small, wanted)) / wanted - 1), 0.1)

    def test_count(self):
        self.assertEqual((scale.count("1B"), scale.count("62.5M"), scale.count("12")), (10**9, 62_500_000, 12))


if __name__ == "__main__":
    unittest.main()
