"""Round trips of tiny random GGUF files through the conversion, and damaged ones."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers

from .config import llama3_divisors
from .folder import convert
from .source import ConvertError
from .tensors import hf_name

HEADS, KV_HEADS, HEAD_DIM, HIDDEN, FFN, LAYERS = 4, 2, 16, 48, 64, 2
BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
BYTE_LEVEL_TOKENS = [*BYTES, "ab", "abc", "<|end|>", "<user>", "[PAD260]"]
BYTE_LEVEL_TYPES = [1] * 258 + [3, 4, 5]


def random_tensors(architecture: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """By GGUF name, rows in Hugging Face's order."""

    def values(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float16).astype(np.float32)

    q_size, kv_size = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    tensors = {
        "token_embd.weight": values(len(BYTE_LEVEL_TOKENS), HIDDEN),
        "output_norm.weight": values(HIDDEN),
    }
    for i in range(LAYERS):
        layer = {
            "attn_norm.weight": values(HIDDEN),
            "attn_q.weight": values(q_size, HIDDEN),
            "attn_k.weight": values(kv_size, HIDDEN),
            "attn_v.weight": values(kv_size, HIDDEN),
            "attn_output.weight": values(HIDDEN, q_size),
            "ffn_norm.weight": values(HIDDEN),
            "ffn_gate.weight": values(FFN, HIDDEN),
            "ffn_up.weight": values(FFN, HIDDEN),
            "ffn_down.weight": values(HIDDEN, FFN),
        }
        if architecture == "qwen2":
            layer |= {"attn_q.bias": values(q_size), "attn_k.bias": values(kv_size)}
            layer |= {"attn_v.bias": values(kv_size)}
        if architecture == "qwen3":
            layer |= {"attn_q_norm.weight": values(HEAD_DIM)}
            layer |= {"attn_k_norm.weight": values(HEAD_DIM)}
        tensors |= {f"blk.{i}.{name}": value for name, value in layer.items()}
    return tensors


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Row 2i of a head in GGUF's order for Llama is row i, row 2i + 1 is row i + D/2."""
    order = [
        head * HEAD_DIM + i + half * HEAD_DIM // 2
        for head in range(heads)
        for i in range(HEAD_DIM // 2)
        for half in range(2)
    ]
    return rows[order]


def add_sizes(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(500000.0)


def add_byte_level_tokenizer(writer: gguf.GGUFWriter, kind: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    writer.add_token_list(BYTE_LEVEL_TOKENS)
    writer.add_token_types(BYTE_LEVEL_TYPES)
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(258)
    writer.add_eot_token_id(259)
    writer.add_chat_template("{{ messages }}")


def add_scored_tokenizer(writer: gguf.GGUFWriter) -> None:
    pieces = ["▁", "a", "b", "c", "▁a", "ab", "bc", "abc"]
    scores = [-8.0, -9.0, -10.0, -11.0, -3.0, -1.0, -2.0, -4.0]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)], *pieces])
    writer.add_token_scores([0.0] * 259 + scores)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def write_gguf(
    path: Path,
    architecture: str,
    tensors: dict[str, np.ndarray],
    kind: str = "gpt-2",
    extra: dict[str, np.ndarray] | None = None,
    packed: str = "",
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    add_sizes(writer)
    if kind == "scored":
        add_scored_tokenizer(writer)
    else:
        add_byte_level_tokenizer(writer, kind)
    for name, values in (tensors | (extra or {})).items():
        if architecture == "llama" and ("attn_q." in name or "attn_k." in name):
            values = interleaved(values, HEADS if "attn_q." in name else KV_HEADS)
        if name == packed:
            kind_of_block = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind_of_block), raw_dtype=kind_of_block)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__")
    return {
        name: np.frombuffer(data[start:][slice(*entry["data_offsets"])], "<f2").reshape(
            entry["shape"]
        )
        for name, entry in header.items()
    }


class ConvertTest(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.root = Path(self.temporary.name)
        self.file, self.folder = self.root / "model.gguf", self.root / "out" / "model"
        self.rng = np.random.default_rng(7)

    def convert(self) -> None:
        convert(self.file, self.folder, "digest", {})

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def tokenizer(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def test_every_architecture_comes_back(self) -> None:
        for architecture in ("llama", "qwen2", "qwen3"):
            with self.subTest(architecture):
                tensors = random_tensors(architecture, self.rng)
                write_gguf(self.file, architecture, tensors)
                self.convert()
                written = read_safetensors(self.folder / "model.safetensors")
                self.assertEqual(set(written), {hf_name(name) for name in tensors})
                for name, values in tensors.items():
                    np.testing.assert_array_equal(written[hf_name(name)], values, err_msg=name)
                config = self.read("config.json")
                self.assertEqual(config["model_type"], architecture)
                self.assertEqual(config["rope_theta"], 500000.0)
                self.assertEqual(config["rms_norm_eps"], 1e-6)
                self.assertEqual(config["head_dim"], HEAD_DIM)
                self.assertTrue(config["tie_word_embeddings"])

    def test_quantized_blocks_are_dequantized(self) -> None:
        tensors = random_tensors("qwen2", self.rng)
        name = "blk.0.ffn_down.weight"
        write_gguf(self.file, "qwen2", tensors, packed=name)
        self.convert()
        written = read_safetensors(self.folder / "model.safetensors")[hf_name(name) or ""]
        np.testing.assert_allclose(written, tensors[name], atol=0.03)

    def test_llama3_scaling_is_found_from_its_table(self) -> None:
        table = llama3_divisors(500000.0, HEAD_DIM, 32.0, 1.0, 4.0, 8192).astype(np.float32)
        extra = {"rope_freqs.weight": table}
        write_gguf(self.file, "llama", random_tensors("llama", self.rng), extra=extra)
        self.convert()
        scaling = self.read("config.json")["rope_scaling"]
        self.assertEqual((scaling["rope_type"], scaling["factor"]), ("llama3", 32.0))
        self.assertEqual(scaling["original_max_position_embeddings"], 8192)

    def test_unknown_frequency_table_is_refused(self) -> None:
        table = np.linspace(1, 5, HEAD_DIM // 2, dtype=np.float32)
        extra = {"rope_freqs.weight": table}
        write_gguf(self.file, "llama", random_tensors("llama", self.rng), extra=extra)
        with self.assertRaisesRegex(ConvertError, "not a llama3"):
            self.convert()

    def test_byte_level_tokenizers(self) -> None:
        digits = {"smollm": 4, "qwen2": 4, "llama-bpe": 2, "gpt-2": 1}
        for kind, count in digits.items():
            with self.subTest(kind):
                write_gguf(self.file, "qwen3", random_tensors("qwen3", self.rng), kind)
                self.convert()
                tokenizer = self.tokenizer()
                ids = tokenizer.encode("abc<user>", add_special_tokens=False).ids
                self.assertEqual(ids, [257, 259])
                self.assertEqual(tokenizer.decode([257, 258, 259]), "abc<user>")  # 258 is special
                pieces = tokenizer.pre_tokenizer.pre_tokenize_str("1234")
                self.assertEqual(len(pieces), count)
                self.assertEqual(258 in tokenizer.encode("a").ids, kind == "llama-bpe")
                self.assertNotIn("[PAD260]", tokenizer.get_vocab())
                self.assertEqual(self.read("generation_config.json")["eos_token_id"], [258, 259])
                self.assertIn("chat_template", self.read("tokenizer_config.json"))

    def test_scored_tokenizer_merges_best_first(self) -> None:
        tensors = random_tensors("llama", self.rng)
        tensors["token_embd.weight"] = np.zeros((267, HIDDEN), np.float32)
        write_gguf(self.file, "llama", tensors, "scored")
        self.convert()
        tokenizer = self.tokenizer()
        self.assertEqual(tokenizer.encode("abc").tokens, ["<s>", "▁", "abc"])
        self.assertEqual(tokenizer.encode("a é").tokens, ["<s>", "▁a", "▁", "<0xC3>", "<0xA9>"])
        self.assertEqual(tokenizer.decode(tokenizer.encode("abc é").ids), "abc é")

    def test_damaged_files_are_refused_and_leave_the_folder_alone(self) -> None:
        write_gguf(self.file, "qwen2", random_tensors("qwen2", self.rng))
        self.convert()
        before = (self.folder / "fetched.json").read_bytes()
        whole = self.file.read_bytes()
        for length in (0, 3, 100, 5000, len(whole) // 2, len(whole) - 1):
            self.file.write_bytes(whole[:length])
            with self.subTest(length), self.assertRaisesRegex(ConvertError, "truncated"):
                self.convert()
        self.assertEqual((self.folder / "fetched.json").read_bytes(), before)
        self.assertEqual([path.name for path in self.folder.parent.iterdir()], ["model"])

    def test_missing_tensor_is_named(self) -> None:
        tensors = random_tensors("qwen2", self.rng)
        del tensors["blk.1.attn_k.bias"]
        write_gguf(self.file, "qwen2", tensors)
        with self.assertRaisesRegex(ConvertError, "blk.1.attn_k.bias is missing"):
            self.convert()

    def test_a_foreign_folder_is_kept(self) -> None:
        write_gguf(self.file, "qwen2", random_tensors("qwen2", self.rng))
        self.folder.mkdir(parents=True)
        (self.folder / "precious").touch()
        with self.assertRaisesRegex(ConvertError, "not made by fetch-model"):
            self.convert()
        self.assertTrue((self.folder / "precious").exists())

    def test_unknown_architecture_is_one_sentence_and_exit_code_one(self) -> None:
        write_gguf(self.file, "mamba", random_tensors("qwen2", self.rng))
        command = [sys.executable, "-m", __package__, str(self.file), str(self.folder)]
        scripts = Path(__file__).parents[1]
        done = subprocess.run(command, capture_output=True, text=True, cwd=scripts)
        self.assertEqual(done.returncode, 1)
        self.assertIn("architecture mamba is not supported", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertFalse(self.folder.exists())


if __name__ == "__main__":
    unittest.main()
