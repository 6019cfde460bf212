"""The Python module, held against the program, on tiny models.

    module_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]    PROGRAM: qnpu, with qnpu-learn beside it
"""

from __future__ import annotations

import ast
import gc
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from typing import Any

import numpy as np
from numpy.typing import NDArray

import quantnpu

PROGRAM = pathlib.Path(sys.argv[1]).absolute()
SOURCE = pathlib.Path(sys.argv[2]).absolute()
CHECKPOINT = SOURCE / "testdata/models/tiny-llama"
ARTIFACTS = SOURCE / "testdata/artifacts"
PREFIXED = ARTIFACTS / "v2-prefix-qwen3"  # 80 positions, a prefix of 2 tokens
TEXT = SOURCE / "testdata/goldens/prose.txt"
DTYPES = {"I32": np.int32, "I16": np.int16, "I8": np.int8, "F32": np.float32, "F16": np.float16}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def run_json(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def sentence(*arguments: object) -> str:
    """What the program says is wrong."""
    result = run(*arguments)
    assert result.returncode == 1, result.stdout
    return result.stderr.splitlines()[-1].removeprefix("qnpu: error: ")


def tensors(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__" or entry["dtype"] not in DTYPES:
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        found[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


class Case(unittest.TestCase):
    folder: pathlib.Path
    artifact: pathlib.Path
    model: quantnpu.Model

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.artifact = cls.folder / "artifact"
        run_json("quantize", "--model", CHECKPOINT, "--recipe", "w4a8kv8", "--calib", TEXT, "--out",
                 cls.artifact, "--samples", 4, "--length", 64)
        cls.model = quantnpu.load(cls.artifact)

    def tokens(self, count: int, model: quantnpu.Model | None = None) -> list[int]:
        return (model or self.model).tokenizer.encode(TEXT.read_text())[:count]


class Logits(Case):
    def test_goldens(self) -> None:
        """Integers that the C++ runtime stored for every version of the format."""
        for folder in sorted(ARTIFACTS.iterdir()):
            golden = tensors(folder / "golden.safetensors")
            session = quantnpu.Session(quantnpu.load(folder), max_rows=16)
            integers = session.append_integers(golden["tokens"].tolist(), all_rows=True)
            self.assertEqual(integers.dtype, np.int16)
            np.testing.assert_array_equal(integers, golden["logits"], str(folder))

    def test_the_program_stores_the_same(self) -> None:
        stored = self.folder / "stored.safetensors"
        run_json("eval", self.artifact, "--text", TEXT, "--length", 96, "--windows", 2, "--save-logits",
                 stored)
        theirs = tensors(stored)
        session = quantnpu.Session(self.model)
        for window, rows in zip(theirs["tokens"], theirs["logits"].reshape(2, 95, -1)):
            ours = session.prefill(window[:-1].tolist(), all_rows=True)
            self.assertEqual(ours.dtype, np.float32)
            ours = ours - ours.max(axis=1, keepdims=True)
            np.testing.assert_array_equal(ours.astype(np.float16), rows)

    def test_rows_and_pieces_are_the_same(self) -> None:
        tokens = self.tokens(60)
        session = quantnpu.Session(self.model, max_rows=16, threads=1)
        rows = session.append_integers(tokens, all_rows=True)
        self.assertEqual(rows.shape, (60, self.model.vocab_size))
        self.assertEqual(session.position, 60)
        session.truncate(20)
        np.testing.assert_array_equal(session.append_integers(tokens[20:50]), rows[49])
        np.testing.assert_array_equal(session.append_integers(tokens[50:51]), rows[50])
        session.reset()
        self.assertEqual(session.position, 0)
        scale = np.float32(session.logits_scale)
        real = session.append(np.array(tokens), all_rows=True)  # type: ignore[arg-type]
        np.testing.assert_array_equal(real, rows.astype(np.float32) * scale)
        np.testing.assert_array_equal(session.prefill(tokens[:5]), real[4])
        self.assertEqual(session.position, 5)

    def test_weights_outlive_the_session_that_laid_them_out(self) -> None:
        tokens = self.tokens(20)
        sessions = [quantnpu.Session(self.model)]
        wanted = sessions[0].append_integers(tokens)
        sessions.append(quantnpu.Session(self.model, threads=1))
        del sessions[0]
        gc.collect()
        np.testing.assert_array_equal(sessions[0].append_integers(tokens), wanted)

    def test_a_prefix_takes_positions(self) -> None:
        model = quantnpu.load(PREFIXED)
        session = quantnpu.Session(model)
        self.assertEqual((len(model.prefix), session.position, session.context), (2, 2, 80))
        with self.assertRaisesRegex(quantnpu.Error, "position 1"):
            session.truncate(1)

    def test_arrays_outlive_everything(self) -> None:
        model = quantnpu.load(self.artifact)
        session = quantnpu.Session(model)
        first = session.append_integers(self.tokens(9), all_rows=True)
        copy = first.copy()
        session.append(self.tokens(30))
        trace = quantnpu.trace(model, self.tokens(9))["logits"]
        scales = model.sites("lm_head.weight")[0].scales
        kept = scales.copy()
        del session, model
        gc.collect()
        np.testing.assert_array_equal(first, copy)
        np.testing.assert_array_equal(trace, copy)
        np.testing.assert_array_equal(scales, kept)
        self.assertTrue(first.flags.writeable and first.flags.c_contiguous)

    def test_what_is_refused_changes_nothing(self) -> None:
        session = quantnpu.Session(self.model, context=40, max_rows=16)
        tokens = self.tokens(30)
        expected = session.append_integers(tokens)
        position = session.position
        for bad, word in ((self.tokens(11), "40 positions"), ([3, 10**6], "vocabulary"), ([], "token"),
                          ([3] * 8 + [-1], "-1")):
            with self.assertRaisesRegex(quantnpu.Error, word):
                session.append(bad)
            with self.assertRaisesRegex(quantnpu.Error, word):
                session.append_integers(bad, all_rows=True)
            self.assertEqual(session.position, position)
        for wrong in (["a"], "abc", [1.5], 3, None):
            with self.assertRaises(TypeError):
                session.append(wrong)  # type: ignore[arg-type]
        session.truncate(position - 1)
        np.testing.assert_array_equal(session.append_integers(tokens[-1:]), expected)
        for options in ({"context": 10**6}, {"context": -1}, {"threads": -1}, {"max_rows": 0}):
            with self.assertRaises(quantnpu.Error):
                quantnpu.Session(self.model, **options)


class Generate(Case):
    PROMPT = "The river runs through"

    def ours(self, **options: Any) -> quantnpu.Generated:
        session = quantnpu.Session(self.model)
        return session.generate(self.model.tokenizer.encode(self.PROMPT), **options)

    def test_the_program_writes_the_same(self) -> None:
        for options in ({}, {"temperature": 0.9, "seed": 7}, {"speculate": 4},
                        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "seed": 2}):
            flags = [x for key, value in options.items()
                     for x in ("--" + key.replace("_", "-"), value)]
            theirs = run_json("generate", self.artifact, "--prompt", self.PROMPT, "--tokens", 50, *flags)
            result = self.ours(max_tokens=50, **options)
            self.assertEqual(result.tokens, theirs["token_ids"])
            self.assertEqual(result.stop_reason, theirs["stop_reason"])
            self.assertEqual((result.proposed, result.accepted),
                             (theirs["proposed_tokens"], theirs["accepted_tokens"]))
            self.assertGreater(result.prefill_seconds, 0)

    def test_text_comes_as_from_the_program(self) -> None:
        theirs = run_json("generate", self.artifact, "--prompt", self.PROMPT, "--tokens", 50,
                          "--temperature", 2, "--seed", 3)
        prompt = self.model.tokenizer.encode(self.PROMPT)
        stream = quantnpu.TextStream(self.model.tokenizer, prompt[-1])
        session = quantnpu.Session(self.model)
        parts = [stream.add(token)
                 for token in session.stream(prompt, max_tokens=50, temperature=2, seed=3)]
        parts.append(stream.finish())
        self.assertEqual("".join(parts), theirs["text"])
        self.assertEqual(stream.text, theirs["text"])

    def test_chat(self) -> None:
        theirs = run_json("generate", self.artifact, "--chat", "--system", "Be brief.", "--prompt", "Hi",
                          "--tokens", 20)
        tokens = self.model.chat_tokens([{"role": "system", "content": "Be brief."},
                                         {"role": "user", "content": "Hi"}])
        self.assertEqual(len(tokens), theirs["prompt_tokens"])
        self.assertEqual(quantnpu.Session(self.model).generate(tokens, max_tokens=20).tokens,
                         theirs["token_ids"])
        text = self.model.chat_text([{"role": "user", "content": "Hi"}])
        self.assertEqual(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
        with self.assertRaisesRegex(quantnpu.Error, "message 0"):
            self.model.chat_text([{"role": "user"}])

    def test_stream_is_generate(self) -> None:
        prompt = self.model.tokenizer.encode(self.PROMPT)
        for options in ({}, {"temperature": 1.0, "seed": 5}, {"max_tokens": 0}, {"max_tokens": 1}):
            whole = quantnpu.Session(self.model, context=40)
            result = whole.generate(prompt, **options)
            session = quantnpu.Session(self.model, context=40)
            stream = session.stream(prompt, **options)
            self.assertIsNone(stream.stop_reason)
            self.assertEqual(list(stream), result.tokens)
            self.assertEqual(stream.stop_reason, result.stop_reason)
            self.assertEqual(list(stream), [])

    def test_stop_tokens(self) -> None:
        tokens = self.ours(max_tokens=30, temperature=1.5, seed=1).tokens
        stop = tokens[10]
        expected = tokens[: tokens.index(stop)]
        result = self.ours(max_tokens=30, temperature=1.5, seed=1, stop_tokens=[stop])
        self.assertEqual((result.tokens, result.stop_reason), (expected, "end token"))
        stream = quantnpu.Session(self.model).stream(
            self.model.tokenizer.encode(self.PROMPT), temperature=1.5, seed=1, stop_tokens=[stop])
        self.assertEqual((list(stream), stream.stop_reason), (expected, "end token"))
        self.assertEqual(self.model.end_tokens, [266])

    def test_on_token(self) -> None:
        seen: list[int] = []

        def first_five(token: int) -> bool:
            seen.append(token)
            return len(seen) < 5

        result = self.ours(max_tokens=30, on_token=first_five)
        self.assertEqual((result.tokens, result.stop_reason), (seen, "caller"))
        self.assertEqual(self.ours(max_tokens=8, on_token=lambda token: None).stop_reason, "length")

    def test_a_failing_callback(self) -> None:
        session = quantnpu.Session(self.model)
        prompt = self.model.tokenizer.encode(self.PROMPT)

        def fails(token: int) -> None:
            raise KeyError("mine")

        with self.assertRaisesRegex(KeyError, "mine"):
            session.generate(prompt, on_token=fails)
        self.assertEqual(session.position, 0)
        self.assertEqual(session.generate(prompt, max_tokens=5).tokens, self.ours(max_tokens=5).tokens)

    def test_a_stream_notices_what_comes_between(self) -> None:
        session = quantnpu.Session(self.model)
        stream = session.stream(self.model.tokenizer.encode(self.PROMPT))
        next(stream)
        session.reset()
        with self.assertRaisesRegex(quantnpu.Error, "position"):
            next(stream)

    def test_options_out_of_range(self) -> None:
        for options, word in (({"temperature": -1.0}, "temperature"), ({"top_p": 2.0}, "top"),
                              ({"max_tokens": -1}, "-1"), ({"speculate": -1}, "-1")):
            with self.assertRaisesRegex(quantnpu.Error, word):
                self.ours(**options)


class Batches(Case):
    def test_each_gets_what_it_gets_alone(self) -> None:
        """Prompts of any length against the rows of a walk, then tokens of some of them."""
        text = self.tokens(200)
        prompts = {i: text[3 * i : 3 * i + length] for i, length in enumerate((1, 40, 7, 16, 61, 2))}
        for max_rows in (4, 16, 128):
            batch = quantnpu.Batch(self.model, 6, context=100, max_rows=max_rows)
            alone = [quantnpu.Session(self.model, context=100) for _ in prompts]
            for step in (prompts, {4: [5], 1: [9, 8, 7]}, {i: [i + 3] for i in prompts}, {}):
                rows = batch.append_integers(step)
                self.assertEqual(rows.keys(), step.keys())
                for i, tokens in step.items():
                    np.testing.assert_array_equal(rows[i], alone[i].append_integers(tokens))
                    self.assertEqual(batch.position(i), alone[i].position)

    def test_real_logits(self) -> None:
        batch = quantnpu.Batch(self.model, 2)
        integers = batch.append_integers({1: self.tokens(9)})[1]
        batch.reset(1)
        real = batch.append({1: self.tokens(9)})[1]
        self.assertEqual((real.dtype, real.shape), (np.float32, (self.model.vocab_size,)))
        np.testing.assert_array_equal(real, np.float32(batch.logits_scale) * integers)

    def test_a_common_beginning(self) -> None:
        tokens = self.tokens(30)
        batch = quantnpu.Batch(self.model, 3)
        whole = batch.append_integers({0: tokens})[0]
        batch.copy(0, 2, 20)
        self.assertEqual([batch.position(i) for i in range(3)], [30, 0, 20])
        np.testing.assert_array_equal(batch.append_integers({2: tokens[20:]})[2], whole)
        batch.truncate(2, 25)
        np.testing.assert_array_equal(batch.append_integers({2: tokens[25:]})[2], whole)

    def test_a_prefix_takes_positions(self) -> None:
        batch = quantnpu.Batch(quantnpu.load(PREFIXED), 2)
        self.assertEqual((batch.sequences, batch.context, batch.position(1)), (2, 80, 2))

    def test_what_is_refused_changes_nothing(self) -> None:
        batch = quantnpu.Batch(self.model, 3, context=40, max_rows=8)
        tokens = self.tokens(30)
        expected = batch.append_integers({1: tokens})[1]
        for bad, word in (({0: [1], 1: [1] * 11}, "room for 10 in sequence 1"), ({3: [1]}, "sequence 3"),
                          ({-1: [1]}, "sequence -1"), ({0: [1], 2: []}, "sequence 2"),
                          ({0: [1] * 20, 2: [1] * 20 + [10**6]}, "vocabulary")):
            with self.assertRaisesRegex(quantnpu.Error, word):
                batch.append(bad)
            self.assertEqual([batch.position(i) for i in range(3)], [0, 30, 0])
        for call in (lambda: batch.position(3), lambda: batch.reset(-1), lambda: batch.truncate(3, 0),
                     lambda: batch.copy(1, 3, 2), lambda: batch.copy(1, 2, 31)):
            with self.assertRaises(quantnpu.Error):
                call()
        batch.truncate(1, 29)
        np.testing.assert_array_equal(batch.append_integers({1: tokens[-1:]})[1], expected)
        for sequences in (0, -1):
            with self.assertRaises(quantnpu.Error):
                quantnpu.Batch(self.model, sequences)
        with self.assertRaises(TypeError):
            batch.append([1])  # type: ignore[arg-type]


class Signals(Case):
    def setUp(self) -> None:
        # A shell starts what runs in its background with SIGINT ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)

    def longer_than(self, seconds: float) -> int:
        """How many tokens take that long."""
        count = 1000
        while True:
            start = time.monotonic()
            quantnpu.statistics(self.model, (self.tokens(200) * (count // 200)), threads=1)
            if time.monotonic() - start > seconds:
                return count
            count *= 2

    def test_ctrl_c_in_a_long_call(self) -> None:
        """SIGINT from outside, while the call computes and no Python runs."""
        session = quantnpu.Session(self.model, threads=1)
        session.append(self.tokens(7))
        long = self.tokens(200) * (20 * self.longer_than(0.5) // 200)  # 10 s and more
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -INT {os.getpid()}"])
        start = time.monotonic()
        with self.assertRaises(KeyboardInterrupt):
            quantnpu.statistics(self.model, long, threads=1)
        self.assertLess(time.monotonic() - start, 5)
        killer.wait()
        self.assertEqual(session.position, 7)

    def test_a_handler_may_raise_within_generate(self) -> None:
        session = quantnpu.Session(self.model)
        prompt = self.tokens(20)
        with self.assertRaises(KeyboardInterrupt):
            session.generate(prompt, on_token=lambda token: os.kill(os.getpid(), signal.SIGINT))
        self.assertEqual(session.position, 0)


class Threads(Case):
    def test_a_session_is_for_one_call_at_a_time(self) -> None:
        session = quantnpu.Session(self.model)
        started, go_on = threading.Event(), threading.Event()
        results: list[quantnpu.Generated] = []

        def wait(token: int) -> None:
            started.set()
            go_on.wait(30)

        thread = threading.Thread(target=lambda: results.append(
            session.generate(self.tokens(9), max_tokens=6, on_token=wait)))
        thread.start()
        self.assertTrue(started.wait(30))
        for call in (lambda: session.append([1]), lambda: session.generate([1]), session.reset,
                     lambda: session.truncate(1), lambda: session.position,
                     lambda: next(session.stream([1]))):
            with self.assertRaisesRegex(quantnpu.Error, "session of its own"):
                call()
        go_on.set()
        thread.join(30)
        expected = quantnpu.Session(self.model).generate(self.tokens(9), max_tokens=6)
        self.assertEqual(results[0].tokens, expected.tokens)
        self.assertEqual(session.generate([1], max_tokens=1).stop_reason, "length")

    def test_sessions_of_one_model_beside_each_other(self) -> None:
        texts = [self.tokens(100)[i : i + 20] for i in range(0, 80, 10)]
        expected = [quantnpu.Session(self.model).append_integers(text) for text in texts]
        found: list[NDArray[np.int16]] = [np.zeros(0, np.int16)] * len(texts)

        def read(i: int) -> None:
            session = quantnpu.Session(self.model, threads=1)
            for _ in range(5):
                session.reset()
                found[i] = session.append_integers(texts[i])

        threads = [threading.Thread(target=read, args=(i,)) for i in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        np.testing.assert_array_equal(found, expected)

    def test_others_go_on_while_it_computes(self) -> None:
        long = (self.tokens(200) * 1000)[:20_000]
        thread = threading.Thread(target=lambda: quantnpu.statistics(self.model, long, threads=1))
        start = last = time.monotonic()
        longest_gap = 0.0
        thread.start()
        while thread.is_alive():
            time.sleep(0.001)
            now = time.monotonic()
            longest_gap, last = max(longest_gap, now - last), now
        self.assertLess(longest_gap, (last - start) / 3)


class Sites(Case):
    def test_the_table_is_that_of_inspect(self) -> None:
        theirs = {row["name"]: row for row in run_json("inspect", self.artifact)["sites"]}
        ours = self.model.sites()
        self.assertEqual([site.name for site in ours], list(theirs))
        for site in ours:
            row = theirs[site.name]
            self.assertEqual((site.role, site.dtype, site.bits), (row["role"], row["dtype"], row["bits"]))
            self.assertEqual((site.rule or "default", site.range_from), (row["rule"], row["range_from"]))
            for key in ("scale", "zero_point", "low", "high", "sqnr"):
                self.assertEqual(getattr(site, key), row.get(key), site.name)

    def test_scales_of_channels(self) -> None:
        stored = tensors(self.artifact / "model.safetensors")
        (site,) = self.model.sites("layers.1.mlp.down_proj.weight")
        np.testing.assert_array_equal(site.scales, stored[site.name + ".scale"])
        self.assertEqual((site.rows, site.layer), (len(site.scales), 1))
        with self.assertRaisesRegex(quantnpu.Error, "nothing"):
            self.model.sites("nothing.*")

    def test_a_plan_is_that_of_inspect(self) -> None:
        theirs = run_json("inspect", "--model", CHECKPOINT, "--recipe", "executorch-w4a16-block")
        ours = quantnpu.plan(CHECKPOINT, quantnpu.recipes.load("executorch-w4a16-block"))
        self.assertEqual([(s.name, s.dtype, s.bits, s.rule or "default") for s in ours],
                         [(r["name"], r["dtype"], r["bits"], r["rule"]) for r in theirs["sites"]])
        weight = next(s for s in ours if s.name.endswith("down_proj.weight"))
        self.assertEqual((weight.block_size, weight.scale), (32, None))

    def test_the_model_is_that_of_inspect(self) -> None:
        for folder in (self.artifact, PREFIXED):
            theirs, ours = run_json("inspect", folder), quantnpu.load(folder)
            self.assertEqual((ours.config, ours.version, ours.positions),
                             (theirs["config"], theirs["version"], theirs["positions"]))
            self.assertEqual(ours.prefix, [token["id"] for token in theirs.get("prefix", [])])
            self.assertEqual(ours.folder, folder)
        self.assertEqual(self.model.recipe, run_json("inspect", self.artifact)["recipe"])
        self.assertEqual(run("--version").stdout, f"qnpu {quantnpu.__version__}\n")


class Trace(Case):
    def test_rows_of_tables(self) -> None:
        """What an embedding and a SiLU must be, from the artifact's file."""
        stored = tensors(self.artifact / "model.safetensors")
        tokens = self.tokens(40)
        trace = quantnpu.trace(self.model, tokens)
        np.testing.assert_array_equal(trace["embed_tokens.out"], stored["embed_tokens.weight"][tokens])
        graph = json.loads((self.artifact / "graph.json").read_text())["graph"]
        names = [site["name"] for site in graph["sites"]]
        silus = [node for node in graph["nodes"] if node["op"] == "silu"]
        self.assertGreater(len(silus), 1)
        for node in silus:
            table = stored[node["name"] + ".table"]
            gate = trace[names[node["in"][0]]].astype(np.int64)
            self.assertEqual(len(table), 256)
            np.testing.assert_array_equal(trace[names[node["out"]]], table[gate + 128])

    def test_logits(self) -> None:
        tokens = self.tokens(40)
        expected = quantnpu.Session(self.model).append_integers(tokens, all_rows=True)
        np.testing.assert_array_equal(quantnpu.trace(self.model, tokens, "logits")["logits"],
                                      expected)

    def test_caches_and_scores(self) -> None:
        stored = tensors(PREFIXED / "model.safetensors")
        model = quantnpu.load(PREFIXED)
        tokens = self.tokens(30, model)
        trace = quantnpu.trace(model, tokens)
        graph = json.loads((PREFIXED / "graph.json").read_text())["graph"]
        names = [site["name"] for site in graph["sites"]]
        caches = [n for n in graph["nodes"] if n["op"] == "append"]
        self.assertEqual(len(caches), 2 * model.config["num_layers"])
        for node in caches:
            cache = trace[names[node["out"]]]
            np.testing.assert_array_equal(cache[:2], stored[names[node["out"]] + ".prefix"])
            np.testing.assert_array_equal(cache[2:], trace[names[node["in"][0]]])
        heads = model.config["num_heads"]
        for node in graph["nodes"]:
            if node["op"] != "softmax":
                continue
            probabilities = trace[names[node["out"]]]
            self.assertEqual((probabilities.dtype, probabilities.shape), (np.uint16, (heads, 30, 32)))
            sums = probabilities.sum(axis=2, dtype=np.int64)
            self.assertLess(np.abs(sums - 65536).max(), 64)
            hidden = ~np.tri(30, 32, 2, dtype=bool)
            self.assertEqual(probabilities[:, hidden].max(), 0)

    def test_statistics_count_the_trace(self) -> None:
        model = quantnpu.load(PREFIXED)
        tokens = self.tokens(50, model)
        windows = [quantnpu.trace(model, tokens[:30]), quantnpu.trace(model, tokens[30:])]
        statistics = quantnpu.statistics(model, tokens, length=30)
        sites = {site.name: site for site in model.sites()}
        self.assertEqual(statistics.keys(), windows[0].keys())
        for name, found in statistics.items():
            site = sites[name]
            values = np.concatenate([self.visible(site, w[name]) for w in windows]).astype(np.int64)
            low, high = {"s8": (-128, 127), "s16": (-32768, 32767), "u16": (0, 65535)}[site.dtype]
            self.assertEqual(found.values, len(values), name)
            self.assertEqual((found.least_integer, found.greatest_integer), (values.min(), values.max()))
            self.assertAlmostEqual(found.saturated, np.mean((values == low) | (values == high)))
            counts, _ = np.histogram(values, 256, (low - 0.5, high + 0.5))
            np.testing.assert_array_equal(found.histogram, counts, name)
            assert site.scale is not None
            real = site.scale * (values - site.zero_point)
            np.testing.assert_allclose([found.least, found.greatest], [real.min(), real.max()])
            np.testing.assert_allclose(found.mean, real.mean(), atol=1e-9 * site.scale, rtol=1e-9)
            np.testing.assert_allclose(found.rms, np.sqrt((real**2).mean()), rtol=1e-9)
            edges = found.histogram_edges
            np.testing.assert_allclose(edges[[0, -1]], site.scale * (np.array([low, high]) + [-0.5, 0.5]
                                                                     - site.zero_point))

    @staticmethod
    def visible(site: quantnpu.Site, array: NDArray[Any]) -> NDArray[Any]:
        if site.role == "scores":
            _, tokens, positions = array.shape
            return array[:, np.tri(tokens, positions, positions - tokens, dtype=bool)].ravel()
        return (array[2:] if "cache" in site.role else array).ravel()

    def test_what_is_refused(self) -> None:
        for call in (quantnpu.trace, quantnpu.statistics):
            for tokens, match, word in (([], "*", "no tokens"), ([10**6], "*", "vocabulary"),
                                        ([1], "nothing", "nothing"), ([1], "*.weight", "weight")):
                with self.assertRaisesRegex(quantnpu.Error, word):
                    call(self.model, tokens, match)
        with self.assertRaisesRegex(quantnpu.Error, "positions for 78"):
            quantnpu.trace(quantnpu.load(PREFIXED), [1] * 79)
        with self.assertRaisesRegex(quantnpu.Error, "0 tokens"):
            quantnpu.statistics(self.model, [1], length=0)


class Recipes(Case):
    def test_every_recipe_goes_round(self) -> None:
        paths = sorted((SOURCE / "recipes").glob("*.json"))
        self.assertEqual(quantnpu.recipes.names(), sorted(path.stem for path in paths))
        for path in paths:
            recipe = quantnpu.recipes.load(path)
            self.assertEqual(recipe, quantnpu.recipes.load(path.stem))
            self.assertEqual(quantnpu.recipes.check(json.loads(path.read_text())), recipe)
            self.assertEqual(quantnpu.recipes.check(recipe), recipe)
            saved = self.folder / "saved.json"
            quantnpu.recipes.save(recipe, saved)
            self.assertEqual(json.loads(saved.read_text()), recipe)
            for key, value in json.loads(path.read_text()).items():
                self.assertTrue(self.holds(recipe[key], value), (path.name, key))

    def holds(self, ours: Any, given: Any) -> bool:
        """All that the file says, perhaps among defaults that it leaves out."""
        if isinstance(given, dict):
            return all(key in ours and self.holds(ours[key], value) for key, value in given.items())
        return bool(ours == given)

    def test_the_program_reads_what_is_saved(self) -> None:
        recipe = quantnpu.recipes.load("fast")
        recipe["name"] = "mine"
        recipe["rules"].append({"match": "layers.0.mlp.down_proj.in", "bitwidth": 16})
        saved = self.folder / "mine.json"
        quantnpu.recipes.save(recipe, saved)
        values = run_json("inspect", "--model", CHECKPOINT, "--recipe", saved)
        self.assertEqual(values["recipe"], recipe)

    def test_the_same_sentences(self) -> None:
        path = self.folder / "wrong.json"
        for wrong in ({}, {"name": 3}, {"name": "a", "colour": 1}, {"name": "a", "rules": 3},
                      {"name": "a", "rules": [{"match": "*", "bitwidth": 5}]},
                      {"name": "a", "rotation": {"r1": "fourier"}},
                      {"name": "a", "gptq": {"damping": -1}}, {"name": "a", "budget": "nonsense"}):
            path.write_text(json.dumps(wrong))
            expected = sentence("inspect", "--model", CHECKPOINT, "--recipe", path)
            with self.assertRaises(quantnpu.Error) as loading:
                quantnpu.recipes.load(path)
            with self.assertRaises(quantnpu.Error) as checking:
                quantnpu.recipes.check(wrong, where=str(path))
            with self.assertRaises(quantnpu.Error) as saving:
                quantnpu.recipes.save(wrong, path)
            self.assertEqual([str(x.exception) for x in (loading, checking, saving)], [expected] * 3)
        self.assertEqual(json.loads(path.read_text()), {"name": "a", "budget": "nonsense"})

    def test_rules_that_match_nothing(self) -> None:
        recipe = {"name": "a", "rules": [{"match": "layers.9.*", "bitwidth": 8}]}
        path = self.folder / "a.json"
        quantnpu.recipes.save(recipe, path)
        with self.assertRaises(quantnpu.Error) as planning:
            quantnpu.plan(CHECKPOINT, recipe)
        self.assertEqual(str(planning.exception),
                         sentence("inspect", "--model", CHECKPOINT, "--recipe", path))

    def test_what_is_no_recipe(self) -> None:
        with self.assertRaisesRegex(quantnpu.Error, "known are .*fast-w8a8"):
            quantnpu.recipes.load("nothing")
        with self.assertRaisesRegex(quantnpu.Error, "known are"):
            quantnpu.recipes.load("../recipes/fast")
        with self.assertRaises(quantnpu.Error):
            quantnpu.recipes.load(self.folder / "missing.json")
        with self.assertRaises(TypeError):
            quantnpu.recipes.check({"name": {1, 2}})
        with self.assertRaises(ValueError):
            quantnpu.recipes.check({"name": "a", "gptq": {"damping": float("nan")}})
        with self.assertRaises(quantnpu.Error):
            quantnpu.recipes.save({"name": "a"}, self.folder / "no/such/folder.json")


class Files(Case):
    def test_the_same_sentences(self) -> None:
        damaged = pathlib.Path(shutil.copytree(self.artifact, self.folder / "damaged"))
        with open(damaged / "model.safetensors", "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(bytes(range(100)))
        empty = self.folder / "empty"
        empty.mkdir()
        for folder in (damaged, empty, self.folder / "missing", CHECKPOINT):
            expected = sentence("generate", folder, "--prompt", "A")
            with self.assertRaises(quantnpu.Error) as loading:
                quantnpu.load(folder)
            self.assertEqual(str(loading.exception), expected)

    def test_without_a_tokenizer(self) -> None:
        model = quantnpu.load(ARTIFACTS / "v2-a4-llama")
        self.assertEqual(quantnpu.Session(model).append([1, 2]).shape, (model.vocab_size,))
        with self.assertRaisesRegex(quantnpu.Error, "tokenizer.json"):
            model.tokenizer

    def test_tokenizer(self) -> None:
        """Against the goldens that the `tokenizers` library gave."""
        tokenizer = quantnpu.Tokenizer.load(CHECKPOINT)
        text = TEXT.read_text()
        tokens = tokenizer.encode(text)
        self.assertEqual(tokenizer.decode(tokens), text)
        golden = tensors(SOURCE / "testdata/models/tiny-llama/golden.safetensors")
        self.assertLess(max(tokens), tokenizer.vocab_size)
        self.assertIn("tokens", golden)
        end = tokenizer.token_to_id("<|im_end|>")
        assert end is not None
        self.assertTrue(tokenizer.is_special(end))
        self.assertEqual(tokenizer.id_to_token(end), "<|im_end|>")
        self.assertEqual(tokenizer.decode([end], skip_special_tokens=True), "")
        self.assertIsNone(tokenizer.token_to_id("no such token"))
        split = tokenizer.encode("é", add_special_tokens=False)
        self.assertEqual(tokenizer.decode(split), "é")
        self.assertEqual(tokenizer.decode(split[:1]), "\ufffd")
        with self.assertRaises(quantnpu.Error):
            tokenizer.id_to_token(10**6)

    def test_nothing_leaks(self) -> None:
        def use() -> None:
            model = quantnpu.load(self.artifact)
            session = quantnpu.Session(model, context=300)
            tokens = model.tokenizer.encode("The river runs")
            session.append(tokens * 20, all_rows=True)
            session.generate(tokens, max_tokens=4)
            list(session.stream(tokens, max_tokens=3))
            quantnpu.trace(model, tokens)
            quantnpu.statistics(model, tokens)
            model.sites()
            try:
                session.append([10**6])
            except quantnpu.Error:
                pass

        def resident() -> int:
            gc.collect()
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            return pages * resource.getpagesize()

        for _ in range(20):
            use()
        before = resident()
        for _ in range(100):
            use()
        grown = resident() - before
        one = (self.artifact / "model.safetensors").stat().st_size
        self.assertLess(grown, 10 * one, f"{grown} bytes in 100 loads of {one}")


class Types(unittest.TestCase):
    def check(self, *command: str) -> None:
        result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_this_file_by_mypy(self) -> None:
        self.check("mypy", "--strict", "--no-incremental", __file__)

    def test_the_package_by_mypy(self) -> None:
        # nanobind writes PathLike and NDArray without what they are of.
        self.check("mypy", "--strict", "--disable-error-code=type-arg", "--no-incremental", "-p",
                   "quantnpu")

    def test_the_stub_names_what_there_is(self) -> None:
        import quantnpu._core as core

        def members(scope: Any) -> set[str]:
            return {name for name in vars(scope) if not name.startswith("__")}

        stub = ast.parse(pathlib.Path(core.__file__).with_name("_core.pyi").read_text())
        classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
        functions = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
        self.assertEqual(classes.keys() | functions | {"version"}, members(core))
        for name, node in classes.items():
            known = {x.name for x in node.body if isinstance(x, ast.FunctionDef)}
            self.assertEqual({x for x in known if not x.startswith("__")}, members(getattr(core, name)))

    def test_mypy_finds_misuse(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            wrong = pathlib.Path(folder) / "wrong.py"
            wrong.write_text("import quantnpu\n"
                             "model = quantnpu.load(3)\n"
                             "text: str = quantnpu.Session(model).append([1])\n"
                             "model.weights\n")
            result = subprocess.run([sys.executable, "-m", "mypy", "--no-incremental", str(wrong)],
                                    capture_output=True, text=True)
        self.assertEqual(sorted(re.findall(r":(\d+): error", result.stdout)), ["2", "3", "4"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
