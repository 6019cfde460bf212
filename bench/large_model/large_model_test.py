"""A small random model, read back; the lines of a made-up result."""

from __future__ import annotations

import json
import math
import struct
import tempfile
import unittest
from pathlib import Path

import numpy as np

from .command import lines
from .random_model import LLAMA_1B, make_random_model, shapes_of

SMALL = LLAMA_1B | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                    "vocab_size": 100}


def read(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8:8 + size]), data[8 + size:]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        bits = np.frombuffer(rest[begin:end], "<u2").astype(np.uint32) << 16
        tensors[name] = bits.view(np.float32).reshape(entry["shape"])
    return tensors


class RandomModel(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.tokenizer = self.folder / "tokenizer"
        self.tokenizer.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            (self.tokenizer / name).write_text("{}")
        (self.tokenizer / "config.json").write_text('{"eos_token_id": 2, "hidden_size": 5}')

    def test_the_shape_of_llama_has_its_parameters(self) -> None:
        self.assertEqual(sum(math.prod(x) for x in shapes_of(LLAMA_1B).values()), 1_235_814_400)

    def test_files(self) -> None:
        model = self.folder / "model"
        make_random_model(model, SMALL, self.tokenizer)
        tensors = read(model / "model.safetensors")
        self.assertEqual({x: y.shape for x, y in tensors.items()}, shapes_of(SMALL))
        self.assertTrue((tensors["model.norm.weight"] == 1).all())
        up = tensors["model.layers.1.mlp.up_proj.weight"]
        self.assertAlmostEqual(float(up.std()) * math.sqrt(32), 1.0, delta=0.1)
        config = json.loads((model / "config.json").read_text())
        self.assertEqual(config, SMALL | {"eos_token_id": 2})

    def test_a_model_of_the_same_shape_is_kept(self) -> None:
        model = self.folder / "model"
        make_random_model(model, SMALL, self.tokenizer)
        weights = model / "model.safetensors"
        before = weights.stat().st_mtime_ns
        make_random_model(model, SMALL, self.tokenizer)
        self.assertEqual(weights.stat().st_mtime_ns, before)
        make_random_model(model, SMALL | {"num_hidden_layers": 1}, self.tokenizer)
        self.assertLess(len(read(weights)), len(shapes_of(SMALL)))


class Lines(unittest.TestCase):
    def test_verdict(self) -> None:
        result = {"peak_bytes": 7.5e9, "seconds": 61.0, "step_seconds": {"load": 1.0, "total": 61.0}}
        self.assertIn("7.50 GB: within 8 GB", lines(SMALL, result)[1])
        self.assertIn("ABOVE", lines(SMALL, result | {"peak_bytes": 8.1e9})[1])
        self.assertEqual(lines(SMALL, result)[2], "61 s: load 1")


if __name__ == "__main__":
    unittest.main()
