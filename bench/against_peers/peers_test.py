"""Stand-ins for the engines; medians, ratios and verdicts of made-up runs; a small GGUF file."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import gguf

from . import engines
from .engines import LLAMA4, OPENVINO, OURS, Work, run_engine, run_process
from .figures import Run, summary, targets
from .models import Failed, Files, cache_bytes
from .random_gguf import write
from .runner import Figures, measure
from .table import markdown

# Called as the peers' Python is. Dies of a signal unless it is told to leave weights as they are.
CRASHING = """#!/usr/bin/env python3
import json, os, signal, sys
if "--plain" not in sys.argv:
    os.kill(os.getpid(), signal.SIGSEGV)
print(json.dumps({"arguments": sys.argv[2:]}))
"""


def result(prefill: float, decode: float, load: float = 0.05, peak: int = 10,
           **more: Any) -> dict[str, Any]:
    return {"prefill": [{"prompt": 512, "tokens_per_second": prefill}],
            "decode": [{"context": 128, "tokens_per_second": decode}],
            "load_seconds": load, "peak_bytes": peak, "plain": False} | more


class Processes(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.addCleanup(engines.plain.clear)

    def test_memory_is_that_of_the_process(self) -> None:
        program = "x = bytearray({}); x[::4096] = b'1' * len(x[::4096]); print(len(x))"
        small, large = (run_process([sys.executable, "-c", program.format(size)])
                        for size in (1, 300_000_000))
        self.assertEqual((large.code, large.output), (0, "300000000\n"))
        self.assertGreater(large.peak_bytes, 300_000_000)
        self.assertLess(large.peak_bytes - small.peak_bytes, 310_000_000)

    def test_repacked_weights_that_crash_are_left_out_from_then_on(self) -> None:
        python = self.folder / "python"
        python.write_text(CRASHING)
        python.chmod(0o755)
        files = Files(self.folder, Path("q4"), Path("q8"))
        work = Work([8], [4, 6], 2)
        for _ in range(2):
            done = run_engine(LLAMA4, files, work, 3, self.folder, python)
            self.assertEqual(done["arguments"], [
                "q4", "--prompts", "8", "--contexts", "4,6", "--decode", "2", "--threads", "3",
                "--plain"])
            self.assertTrue(done["plain"])
        with self.assertRaisesRegex(Failed, "openvino ended with code -11"):
            run_engine(OPENVINO, files, work, 3, self.folder, python)


class Measured(unittest.TestCase):
    def test_each_length_is_run_once(self) -> None:
        calls = []

        class Peer:
            load_seconds = 7.0

            def seconds(self, length: int, steps: int) -> Figures:
                calls.append((length, steps))
                return Figures(0.5 * length, 0.25 * steps)

        args = argparse.Namespace(prompts=[10, 30], contexts=[10, 20], decode=4)
        self.assertEqual(measure(Peer(), args), {
            "load_seconds": 7.0,
            "prefill": [{"prompt": 10, "tokens_per_second": 2.0},
                        {"prompt": 30, "tokens_per_second": 2.0}],
            "decode": [{"context": 10, "tokens_per_second": 4.0},
                       {"context": 20, "tokens_per_second": 4.0}]})
        self.assertEqual(calls[1:], [(10, 4), (20, 4), (30, 1)])

    def test_cache(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            config = {"num_layers": 3, "num_kv_heads": 2, "head_dim": 8}
            (Path(name) / "graph.json").write_text(json.dumps({"graph": {"config": config}}))
            self.assertEqual(cache_bytes(Path(name), 10), 3 * (2 * 8 * 10) * 2)


class Ratios(unittest.TestCase):
    def runs(self, isa: str) -> list[Run]:
        ours = [Run(OURS, 2, result(prefill, 90, peak=100 + i, isa=isa))
                for i, prefill in enumerate((100, 900, 300))]
        peers = [Run(name, 2, result(prefill, decode))
                 for name, prefill, decode in ((OPENVINO, 150, 45), (LLAMA4, 50, 60))]
        return ours + peers

    def test_medians_and_ratios(self) -> None:
        by_engine = summary(self.runs("avx2"))
        ours, peer = by_engine[OURS]["2"], by_engine[LLAMA4]["2"]
        self.assertEqual((ours["prefill"], ours["peak_bytes"]), ({"512": 300}, 102))
        self.assertEqual(peer["ratio"], {"prefill": {"512": 6.0}, "decode": {"128": 1.5}})

    def test_the_fastest_peer_counts(self) -> None:
        rows = {isa: targets("smollm2", summary(self.runs(isa)), 101)
                for isa in ("avx512vnni", "amxint8")}
        figures = {isa: {x["name"]: (x["measured"], x["reached"]) for x in row}
                   for isa, row in rows.items()}
        common = {"decode at 128 / best": (1.5, False), "peak memory, MB": (102e-6, False),
                  "load, s": (0.05, True)}
        self.assertEqual(figures["avx512vnni"],
                         {"prefill 512 / llama.cpp, no AMX": (6.0, True)} | common)
        self.assertEqual(figures["amxint8"],
                         {"prefill 512 / OpenVINO GenAI": (2.0, False),
                          "prefill 512 / llama.cpp": (6.0, False)} | common)

    def test_table(self) -> None:
        by_engine = summary(self.runs("avx2"))
        text = markdown({"model": "smollm2", "rounds": 3, "engines": by_engine,
                         "targets": targets("smollm2", by_engine, 200)}).splitlines()
        self.assertIn("| prefill 512 | 300.0 | 150.0 (x 2.00) | 50.0 (x 6.00) |", text)
        self.assertIn("| decode at 128 | 90.0 | 45.0 (x 2.00) | 60.0 (x 1.50) |", text)
        self.assertIn("- decode at 128 / best: 1.50 (1.80): MISSED", text)


class RandomFile(unittest.TestCase):
    CONFIG = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
              "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
              "vocab_size": 5, "rope_theta": 1e4, "rms_norm_eps": 1e-5}

    def test_read_back(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            tokenizer, path = Path(name) / "tokenizer.gguf", Path(name) / "random.gguf"
            writer = gguf.GGUFWriter(tokenizer, "llama")
            writer.add_token_list(["a", "b"])
            writer.add_token_types([1, 3])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.close()
            write(str(tokenizer), str(path), self.CONFIG)
            reader = gguf.GGUFReader(path)
            fields = {key: field.contents() for key, field in reader.fields.items()}
            shapes = {x.name: tuple(map(int, x.shape)) for x in reader.tensors}
        self.assertEqual(fields["tokenizer.ggml.tokens"],
                         ["a", "b", "<unused2>", "<unused3>", "<unused4>"])
        self.assertEqual(fields["tokenizer.ggml.token_type"], [1, 3, 5, 5, 5])
        self.assertEqual(fields["llama.attention.head_count_kv"], 2)
        self.assertEqual(shapes["blk.1.ffn_down.weight"], (96, 64))  # inputs first
        self.assertEqual(shapes["blk.0.attn_k.weight"], (64, 32))
        self.assertEqual((shapes["token_embd.weight"], shapes["output_norm.weight"]),
                         ((64, 5), (64,)))


if __name__ == "__main__":
    unittest.main()
