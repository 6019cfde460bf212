"""Runs qnpu as a user does, on tiny models: every command, its JSON, and every bad input.

    cli_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]    PROGRAM: qnpu, with qnpu-learn beside it
"""

import json
import math
import os
import pathlib
import re
import resource
import shutil
import signal
import struct
import subprocess
import time

from program_testing import MODEL, PROGRAM, SOURCE, TEXT, FolderCase, main, quantize, run

PREFIXED = SOURCE / "testdata/artifacts/v2-prefix-qwen3"  # 80 positions, a prefix of 2 tokens
PROGRESS = re.compile(r"(?!qnpu:).*: [\d.]+ (s|min)|(?!qnpu:).* \d+ of \d+.*|expected: .*")


def tree(folder):
    """The bytes of every file under a folder, hidden ones too, but for logs of runs."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "log.jsonl")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def read_safetensors(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


class Case(FolderCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.artifact = cls.folder / "artifact"
        cls.quantized = cls.quantize(cls.artifact)

    @classmethod
    def quantize(cls, out, *arguments, **options):
        return quantize(out, "--json", *arguments, **options)

    def assert_error(self, result, *words):
        """Exit code 1 and, progress aside, one line that holds all `words`."""
        lines = [x for x in result.stderr.splitlines() if not PROGRESS.fullmatch(x)]
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("qnpu: error: "), lines[0])
        self.assertEqual(result.stdout, "")
        for word in words:
            self.assertIn(str(word), lines[0])

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def copy(self, source, name):
        return pathlib.Path(shutil.copytree(source, self.folder / name))


class Commands(Case):
    def test_quantize(self):
        self.assertEqual(self.quantized.returncode, 0, self.quantized.stderr)
        values = json.loads(self.quantized.stdout)
        self.assertEqual(values["out"], str(self.artifact))
        self.assertEqual(values["size_bytes"], sum(map(len, tree(self.artifact).values())))
        self.assertGreater(values["seconds"], 0)
        self.assertGreater(values["peak_bytes"], 1 << 20)
        self.assertGreater(values["expected_seconds"], 0)
        self.assertGreater(values["expected_peak_bytes"], 1 << 20)
        self.assertRegex(self.quantized.stderr, r"expected: about \d+ s and [\d.]+ GB of memory\n")

    def test_a_recipe_says_how_much_text(self):
        content = {"name": "r", "rules": [], "calibration": {"samples": 3, "length": 48}}
        recipe = self.folder / "r.json"
        recipe.write_text(json.dumps(content))
        for options, tokens in (((), 3 * 48), (("--length", 32), 3 * 32), (("--samples", 2), 2 * 48)):
            values = self.json("quantize", "--model", MODEL, "--recipe", recipe, "--calib", TEXT,
                               "--out", self.folder / "r", *options)
            self.assertEqual(values["calibration_tokens"], tokens)

    def test_widths_within_a_budget(self):
        out = self.folder / "budget"
        result = self.quantize(out, "--budget", "16bit<=50%,size<=400kB", recipe="auto")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLessEqual((out / "model.safetensors").stat().st_size, 400000)
        table = "widths within 16bit<=50%,size<=400kB: "
        self.assertEqual(result.stderr.count(table), 2)  # when chosen, and at the end
        inspected = self.json("inspect", out)
        self.assertEqual(inspected["recipe"]["budget"], "16bit<=50%,size<=400kB")
        widths = {s["name"]: s["dtype"] for s in inspected["sites"]}
        wide = [n for n in widths if n.endswith("down_proj.in") and widths[n] == "s16"]
        self.assertLessEqual(len(wide), 1)
        self.assertIn("s8", [widths[n] for n in widths if n.endswith("_proj.weight")])

    def test_same_inputs_give_the_same_bytes(self):
        again = self.folder / "again"
        self.assertEqual(self.quantize(again).returncode, 0)
        self.assertEqual(tree(again), tree(self.artifact))

    def test_an_artifact_is_replaced(self):
        out = self.folder / "replaced"
        self.assertEqual(self.quantize(out).returncode, 0)
        self.assertEqual(self.quantize(out, recipe="w4a8kv8").returncode, 0)
        self.assertEqual(self.json("inspect", out)["recipe"]["name"], "w4a8kv8")

    def test_inspect_artifact(self):
        values = self.json("inspect", self.artifact)
        self.assertEqual(values["config"]["num_layers"], 2)
        sites = {s["name"]: s for s in values["sites"]}
        down = sites["layers.1.mlp.down_proj.in"]
        self.assertEqual((down["dtype"], down["role"]), ("s8", "activation"))
        self.assertLess(down["low"], 0)
        self.assertGreater(down["high"], 0)
        self.assertGreater(down["sqnr"], 10)
        weight = sites["layers.1.mlp.down_proj.weight"]
        self.assertAlmostEqual(weight["high"], 127 * weight["scale"])
        self.assertGreater(weight["sqnr"], 30)
        text = run("inspect", self.artifact, "--sites", "layers.0.*.weight")
        self.assertEqual(text.returncode, 0)
        self.assertIn("layers.0.mlp.down_proj.weight", text.stdout)
        self.assertNotIn("layers.1.", text.stdout)
        self.assert_error(run("inspect", self.artifact, "--sites", "nothing.*"), "nothing.*")

    def test_inspect_prefix(self):
        values = self.json("inspect", PREFIXED)
        tokens = values["prefix"]
        self.assertEqual(len(tokens), 2)
        text = run("inspect", PREFIXED).stdout
        for token in tokens:
            self.assertIn(f"({token['id']})", text)
            self.assertIsInstance(token["text"], str)
        self.assertIn("MLP 64 to 96", text)
        self.assertNotIn("prefix", self.json("inspect", self.artifact))

    def test_inspect_plan(self):
        values = self.json("inspect", "--model", MODEL, "--recipe", "w4a8kv8")
        sites = {s["name"]: s for s in values["sites"]}
        weight = sites["layers.0.mlp.down_proj.weight"]
        self.assertEqual((weight["dtype"], weight["rule"]), ("s4", "*_proj.weight"))
        self.assertEqual(sites["lm_head.weight"]["rule"], "default")
        self.assertNotIn("scale", weight)
        recipe = {"name": "r", "rules": [{"match": "*", "observer": "mse"}]}
        sites = {s["name"]: s for s in self.json("inspect", "--model", MODEL, "--recipe", self.write(
            "all.json", json.dumps(recipe)))["sites"]}
        from_rule = {"layers.0.mlp.silu.out": ("mse", "*"), "embed_tokens.weight": ("minmax", "default")}
        for name, expected in from_rule.items():
            self.assertEqual((sites[name]["range_from"], sites[name]["rule"]), expected)
        plan = ("inspect", "--model", MODEL, "--recipe", "executorch-w4a16-block")
        sites = {s["name"]: s for s in self.json(*plan)["sites"]}
        weight = sites["layers.0.mlp.down_proj.weight"]
        self.assertEqual((weight["bits"], weight["block_size"], weight["dtype"]), (4, 32, "s8"))
        self.assertIn("4 bits, blocks of 32", run(*plan, "--sites", "*down_proj.weight").stdout)

    def test_inspect_needs_something(self):
        self.assert_error(run("inspect"), "--model")
        self.assert_error(run("inspect", "--model", MODEL), "--recipe")

    def test_version_and_help(self):
        self.assertRegex(run("--version").stdout, r"^qnpu \d+\.\d+\.\d+\n$")
        for command in ("quantize", "eval", "generate", "inspect"):
            self.assertIn(command, run("--help").stdout)
            self.assertIn("--json", run(command, "--help").stdout)

    def test_no_libtorch_in_qnpu(self):
        libraries = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True).stdout
        self.assertIn("libc.so", libraries)
        for name in ("libtorch", "libc10"):
            self.assertNotIn(name, libraries)


class Eval(Case):
    def evaluate(self, model, *arguments):
        return self.json("eval", model, "--text", TEXT, "--length", 128, "--windows", 4, *arguments)

    def test_keys_agree_with_each_other(self):
        values = self.evaluate(self.artifact)
        self.assertEqual(values["tokens"], 4 * 127)
        self.assertGreater(values["perplexity"], 1)
        bits = math.log2(values["perplexity"]) * values["tokens"]
        self.assertAlmostEqual(values["bits_per_byte"] * values["bytes"], bits, places=6)
        self.assertGreater(values["seconds"], 0)
        self.assertGreater(values["prefill_tokens_per_second"], 0)
        self.assertIsNone(values["kl_divergence"])
        self.assertIsNone(values["top1_agreement"])

    def test_against_checkpoint_equals_against_its_stored_logits(self):
        stored = self.folder / "float.safetensors"
        of_float = self.evaluate(MODEL, "--save-logits", stored)
        direct = self.evaluate(self.artifact, "--against", MODEL)
        by_file = self.evaluate(self.artifact, "--against", stored)
        self.assertEqual(direct["perplexity"], by_file["perplexity"])
        self.assertEqual(direct["reference_perplexity"], of_float["perplexity"])
        self.assertAlmostEqual(direct["kl_divergence"], by_file["kl_divergence"], delta=1e-4)
        self.assertGreater(direct["kl_divergence"], 0)
        self.assertLess(direct["kl_divergence"], 0.1)
        self.assertGreater(direct["top1_agreement"], 0.5)
        fewer = self.json("eval", self.artifact, "--text", TEXT, "--length", 128, "--windows", 2,
                          "--against", stored)
        self.assertEqual(fewer["tokens"], 2 * 127)

    def test_a_model_equals_itself(self):
        values = self.evaluate(self.artifact, "--against", self.artifact)
        self.assertEqual((values["kl_divergence"], values["top1_agreement"]), (0, 1))
        self.assertEqual(values["perplexity"], values["reference_perplexity"])
        values = self.evaluate(MODEL, "--against", MODEL)
        self.assertEqual((values["kl_divergence"], values["top1_agreement"]), (0, 1))

    def test_any_number_of_threads_gives_the_same(self):
        one = self.evaluate(self.artifact, "--threads", 1)
        two = self.evaluate(self.artifact, "--threads", 2)
        self.assertEqual(one["perplexity"], two["perplexity"])

    def test_bf16_is_near_fp32(self):
        fp32 = self.evaluate(MODEL)["perplexity"]
        bf16 = self.evaluate(MODEL, "--dtype", "bf16")["perplexity"]
        self.assertAlmostEqual(fp32, bf16, delta=0.02 * fp32)

    def test_windows_stand_behind_a_prefix(self):
        command = ("eval", PREFIXED, "--text", TEXT, "--windows", 2, "--length")
        self.assertEqual(self.json(*command, 78)["tokens"], 2 * 77)
        self.assert_error(run(*command, 79), "has 78 positions for text", "--length 78")

    def test_simulated_is_near_the_integer_runtime(self):
        executed = self.evaluate(self.artifact)
        simulated = self.evaluate(self.artifact, "--simulate")
        self.assertEqual((executed["simulated"], simulated["simulated"]), (False, True))
        self.assertAlmostEqual(simulated["perplexity"], executed["perplexity"],
                               delta=0.05 * executed["perplexity"])
        self.assertNotEqual(simulated["perplexity"], executed["perplexity"])
        self.assert_error(run("eval", self.artifact, "--text", TEXT, "--simulate", "--length", 1024),
                          "positions")

    def test_what_rounding_an_activation_costs(self):
        def distance(*exact):
            return self.evaluate(self.artifact, "--simulate", "--against", MODEL,
                                 *exact)["kl_divergence"]

        rounded, inputs, none = (distance(*exact) for exact in (
            (), ("--exact", "layers.*_proj.in"), ("--exact", "layers.*", "--exact", "lm_head.in")))
        self.assertLess(inputs, rounded)
        self.assertLess(none, inputs)
        command = ("eval", self.artifact, "--text", TEXT, "--exact")
        self.assert_error(run(*command, "layers.*", "--length", 128), "--simulate")
        self.assert_error(run(*command, "layers.9.*", "--simulate", "--length", 128),
                          "'layers.9.*' matches no activation", "qnpu inspect")
        self.assert_error(run("eval", MODEL, "--text", TEXT, "--simulate", "--exact", "layers.*"),
                          MODEL, "is no artifact", "--exact")

    def test_what_cannot_be_deployed_is_simulated(self):
        out = self.folder / "online"
        self.assertEqual(self.quantize(out, recipe="quarot-online-w4a8").returncode, 0)
        values = self.evaluate(out, "--against", MODEL)
        self.assertTrue(values["simulated"])
        self.assertLess(values["kl_divergence"], 1)
        text = run("eval", out, "--text", TEXT, "--length", 128, "--windows", 1)
        self.assertIn("simulated", text.stdout)
        self.assert_error(run("generate", out, "--prompt", "A"), out, "R3", "R4", "simulated")
        self.assertIn("simulated only", run("inspect", out).stdout)
        self.check_no_npu_gets_it(out)

    def check_no_npu_gets_it(self, online):
        graphs, work = self.folder / "online.graphs", self.folder / "online.verify"
        for to in ("onnx", "aimet", "qnn"):
            result = run("export", online, "--to", to, "--rows", 8, "--context", 32, "--out", graphs)
            self.assert_error(result, online, "R3", "R4", "simulated")
        self.assert_error(run("verify", online, "--text", TEXT, "--work", work), "R3", "R4")
        self.assertEqual([graphs.exists(), work.exists()], [False, False])
        plan = ("--model", MODEL, "--recipe", "quarot-online-w4a8")
        for what in ((online,), plan):
            self.assert_error(run("estimate", *what), "R3", "R4")
            result = run("inspect", *what, "--target", "SM8750")
            self.assertEqual(result.returncode, 1)
            self.assertIn("R4", result.stderr)
            self.assertNotIn("places all", result.stdout)

    def test_stored_logits_of_something_else(self):
        stored = self.folder / "stored.safetensors"
        self.evaluate(self.artifact, "--save-logits", stored)
        other = self.write("other.txt", TEXT.read_text()[::-1])
        command = ("eval", self.artifact, "--against", stored, "--text")
        self.assert_error(run(*command, other, "--length", 128), "another text")
        self.assert_error(run(*command, TEXT, "--length", 64), "--length")
        self.assert_error(run(*command, TEXT, "--length", 128), "windows")
        command = ("eval", self.artifact, "--text", TEXT, "--length", 128, "--against")
        self.assert_error(run(*command, self.artifact / "model.safetensors"), "--save-logits")
        self.assert_error(run(*command, self.folder / "missing"), "missing")


class Tasks(Case):
    ITEMS = [
        {"query": "The river", "choices": ["runs through the town", "is", "a"], "gold": 0},
        {"query": "In the morning the\n", "choices": ["light", "birds were loud"], "gold": 1},
        {"query": "She said", "choices": ["nothing.", "that the road was long"], "gold": 1},
    ]

    def task(self, name, items):
        return self.write(name, "".join(json.dumps(x) + "\n" for x in items))

    def negative_log_likelihood(self, model, text):
        """Of all tokens but the first, by a window that is the whole text."""
        command = ("eval", model, "--text", self.write("one.txt", text), "--length")
        count = re.search(r"has (\d+) tokens", run(*command, 10000).stderr)[1]
        values = self.json(*command, count)
        return math.log(values["perplexity"]) * values["tokens"]

    def test_accuracies_are_those_of_perplexities(self):
        right = right_normalised = 0
        wanted = []
        for item in self.ITEMS:
            query = item["query"].rstrip()
            before = self.negative_log_likelihood(self.artifact, query)
            sums = [before - self.negative_log_likelihood(self.artifact, f"{item['query']} {x}")
                    for x in item["choices"]]
            wanted.append(sums)
            per_character = [s / len(x) for s, x in zip(sums, item["choices"])]
            right += sums.index(max(sums)) == item["gold"]
            right_normalised += per_character.index(max(per_character)) == item["gold"]
        self.assertNotEqual(right, right_normalised)  # items that tell the two apart
        path = self.folder / "items.jsonl"
        values = self.json("eval", self.artifact, "--tasks", self.task("quiz.jsonl", self.ITEMS),
                           "--items", path)
        for line, (text, sums) in enumerate(zip(path.read_text().splitlines(), wanted, strict=True)):
            said = json.loads(text)
            self.assertEqual((said["task"], said["line"]), ("quiz", line + 1))
            for got, sum_of_tokens in zip(said["log_likelihoods"], sums, strict=True):
                self.assertAlmostEqual(got, sum_of_tokens, places=3)
        quiz = values["tasks"]["quiz"]
        self.assertEqual(quiz["items"], 3)
        self.assertAlmostEqual(quiz["acc"], right / 3)
        self.assertAlmostEqual(quiz["acc_norm"], right_normalised / 3)
        p = right / 3
        self.assertAlmostEqual(quiz["acc_stderr"], math.sqrt(p * (1 - p) / 2))
        self.assertNotIn("perplexity", values)

    def test_float_text_and_several_tasks(self):
        quiz, other = self.task("quiz.jsonl", self.ITEMS), self.task("other.jsonl", self.ITEMS[1:])
        of_artifact, of_float = (
            self.json("eval", model, "--text", TEXT, "--length", 128, "--windows", 1,
                      "--tasks", quiz, "--tasks", other, "--limit", 2)
            for model in (self.artifact, MODEL))
        self.assertEqual([x["items"] for x in of_float["tasks"].values()], [2, 2])
        self.assertEqual(of_float["tokens"], 127)
        self.assertEqual(of_artifact["tasks"], of_float["tasks"])  # 8 bits: no answer changes
        alone = self.json("eval", MODEL, "--tasks", other, "--limit", 1)["tasks"]["other"]
        self.assertIsNone(alone["acc_stderr"])
        text = run("eval", self.artifact, "--tasks", quiz)
        self.assertEqual(text.returncode, 0)
        self.assertRegex(text.stdout, r"^quiz +acc 0\.\d{4} \+- .*, 3 items\n$")

    def test_bad_tasks(self):
        good = self.ITEMS[0]
        bad = {"key": {**good, "answer": 0}, "gold": {**good, "gold": 3},
               "choices": {**good, "choices": []}, "query": {**good, "query": " "}}
        for word, item in bad.items():
            path = self.task(f"bad-{word}.jsonl", [good, item])
            self.assert_error(run("eval", self.artifact, "--tasks", path), f"{path}, line 2", word)
        path = self.write("broken.jsonl", json.dumps(good) + "\n{\"query\": \n")
        self.assert_error(run("eval", self.artifact, "--tasks", path), f"{path}, line 2", "JSON")
        long = self.task("long.jsonl", [good, {**good, "query": TEXT.read_text() * 20}])
        for model in (self.artifact, MODEL, PREFIXED):
            self.assert_error(run("eval", model, "--tasks", long), f"{long}, line 2", "positions")
        before_the_text = run("eval", self.artifact, "--text", TEXT, "--tasks", long)
        self.assert_error(before_the_text, f"{long}, line 2")
        self.assertNotIn("evaluate", before_the_text.stderr)
        one = self.folder / "one"
        self.assert_error(run("eval", self.artifact, "--text", TEXT, "--tasks", long,
                              "--save-logits", one, "--items", one), "choose two files")
        self.assert_error(run("eval", self.artifact, "--tasks", long, "--tasks", long), "one name")
        self.assert_error(run("eval", self.artifact), "--text", "--tasks")
        self.assert_error(run("eval", self.artifact, "--tasks", long, "--windows", 2), "--text")
        self.assert_error(run("eval", self.artifact, "--text", TEXT, "--limit", 2), "--tasks")


class Generate(Case):
    def test_keys(self):
        values = self.json("generate", self.artifact, "--prompt", "The river", "--tokens", 12)
        self.assertEqual(values["tokens"], len(values["token_ids"]))
        self.assertIn(values["stop_reason"], ("length", "end token"))
        self.assertLessEqual(values["tokens"], 12)
        self.assertIsInstance(values["text"], str)
        self.assertGreaterEqual(values["decode_tokens_per_second"], 0)
        self.assertGreater(values["prefill_tokens_per_second"], 0)
        again = self.json("generate", self.artifact, "--prompt", "The river", "--tokens", 12)
        self.assertEqual(values["token_ids"], again["token_ids"])
        plain = run("generate", self.artifact, "--prompt", "The river", "--tokens", 12)
        self.assertEqual(plain.stdout, values["text"] + "\n")

    def test_seeds_draw_differently_and_repeatably(self):
        def draw(seed):
            values = self.json("generate", self.artifact, "--prompt", "A", "--tokens", 24, "--seed",
                               seed, "--temperature", 1.5, "--top-k", 200, "--top-p", 0.99)
            return values["token_ids"]
        self.assertEqual(draw(1), draw(1))
        self.assertNotEqual(draw(1), draw(2))

    def test_prompt_file(self):
        file = self.write("prompt.txt", "The river")
        by_file = self.json("generate", self.artifact, "--prompt-file", file, "--tokens", 5)
        direct = self.json("generate", self.artifact, "--prompt", "The river", "--tokens", 5)
        self.assertEqual(by_file["token_ids"], direct["token_ids"])

    def test_context_overflow(self):
        prompt = ("generate", self.artifact, "--prompt", "The river", "--temperature", 2, "--seed",
                  5, "--tokens", 400)
        full = run(*prompt, "--context", 20, "--json")
        self.assertEqual(full.returncode, 0)
        self.assertEqual(json.loads(full.stdout)["stop_reason"], "context full")
        self.assertIn("context of 20", full.stderr)
        self.assert_error(run(*prompt, "--context", 3), "context")
        self.assert_error(run(*prompt, "--context", 1 << 20), "context")

    def test_context_counts_a_prefix(self):
        prompt = ("generate", PREFIXED, "--prompt", "The river", "--tokens", 400, "--temperature", 2)
        one = self.json("generate", PREFIXED, "--prompt", "The river", "--tokens", 1)
        size = one["prompt_tokens"] + 5
        full = json.loads(run(*prompt, "--context", size, "--json").stdout)
        self.assertEqual((full["stop_reason"], full["tokens"]), ("context full", 4))
        self.assert_error(run(*prompt, "--context", one["prompt_tokens"] + 1), "2 of the prefix")
        self.assert_error(run(*prompt, "--context", 2), "prefix")

    def test_chat(self):
        model = SOURCE / "testdata/models/tiny-qwen2"
        out = self.folder / "qwen2"
        self.assertEqual(self.quantize(out, model=model).returncode, 0)
        chat = self.json("generate", out, "--chat", "--system", "Be brief.", "--prompt", "Hi")
        plain = self.json("generate", out, "--prompt", "Hi")
        self.assertGreater(chat["prompt_tokens"], plain["prompt_tokens"])

    def test_bad_arguments(self):
        prompt = ("generate", self.artifact, "--prompt", "A")
        self.assert_error(run("generate", self.artifact), "--prompt")
        self.assert_error(run("generate", self.artifact, "--prompt", ""), "prompt")
        self.assert_error(run(*prompt, "--temperature", "-1"), "temperature")
        self.assert_error(run(*prompt, "--top-p", "2"), "top-p")
        self.assert_error(run(*prompt, "--tokens", "many"), "--tokens")
        self.assert_error(run(*prompt, "--system", "Be brief."), "--chat")
        self.assert_error(run("generate", MODEL, "--prompt", "A"))
        self.assert_error(run("generate", self.folder / "missing", "--prompt", "A"), "missing")


class BadInput(Case):
    """Each leaves an artifact that was at --out as it was, and nothing beside it."""

    def setUp(self):
        self.before = tree(self.folder)

    def assert_refused(self, result, *words):
        self.assert_error(result, *words)
        after = tree(self.folder)
        new = [p for p in after if p not in self.before and p.startswith((".", "artifact"))]
        self.assertEqual(new, [])
        for path, content in self.before.items():
            self.assertEqual(after[path], content, path)

    def test_calibration_text(self):
        texts = {"empty": "", "binary": bytes(range(256)) * 50, "short": "A few words.\n"}
        for name, content in texts.items():
            path = self.write(f"{name}.txt", content)
            self.assert_refused(self.quantize(self.artifact, calib=path), "text")
        missing = self.folder / "none.txt"
        self.assert_refused(self.quantize(self.artifact, calib=missing), "none.txt")

    def test_evaluation_text(self):
        short = self.write("short2.txt", "A few words.\n")
        command = ("eval", self.artifact, "--length", 64, "--text")
        self.assert_refused(run(*command, short), "short2.txt", "tokens", "--length")
        self.assert_refused(run(*command, self.write("empty2.txt", "")), "empty2.txt")
        self.assert_refused(run(*command, self.write("binary2.txt", b"\0\1\2" * 99)), "binary2.txt")
        self.assert_refused(run(*command[:2], "--length", 2048, "--text", TEXT), "--length")

    def test_checkpoint_without_a_tensor(self):
        model = self.copy(MODEL, "incomplete")
        header, data = read_safetensors(model / "model.safetensors")
        lost = "model.layers.1.mlp.up_proj.weight"
        header["renamed"] = header.pop(lost)
        write_safetensors(model / "model.safetensors", header, data)
        self.assert_refused(self.quantize(self.artifact, model=model), lost.removeprefix("model."))

    def test_checkpoint_with_nan(self):
        model = self.copy(MODEL, "nan")
        header, data = read_safetensors(model / "model.safetensors")
        tensor = header["model.layers.0.self_attn.v_proj.weight"]
        self.assertEqual(tensor["dtype"], "F16")
        begin = tensor["data_offsets"][0] + 10
        write_safetensors(model / "model.safetensors", header,
                          data[:begin] + b"\x00\x7e" + data[begin + 2 :])
        self.assert_refused(self.quantize(self.artifact, model=model), "v_proj.weight")

    def test_checkpoint_cut_short(self):
        model = self.copy(MODEL, "cut")
        path = model / "model.safetensors"
        path.write_bytes(path.read_bytes()[:50000])
        self.assert_refused(self.quantize(self.artifact, model=model), "model.safetensors")

    def test_recipes(self):
        def recipe(name, **changes):
            content = {"name": name, "description": "", "rules": [], **changes}
            return self.write(f"{name}.json", json.dumps(content))
        unknown = recipe("unknown", colour="red")
        nothing = recipe("nothing", rules=[{"match": "layers.*.no_such_site", "bitwidth": 4}])
        self.assert_refused(self.quantize(self.artifact, recipe=unknown), "colour")
        self.assert_refused(self.quantize(self.artifact, recipe=nothing), "no_such_site")
        self.assert_refused(self.quantize(self.artifact, recipe="w8a8kv9"), "mean 'w8a8kv8'")
        broken = self.write("broken.json", "{")
        self.assert_refused(self.quantize(self.artifact, recipe=broken), "broken.json")

    def test_budgets(self):
        def with_budget(budget, recipe="auto"):
            return self.quantize(self.artifact, "--budget", budget, recipe=recipe)
        self.assert_refused(with_budget("90MB"), "'90MB'", '"16bit<=10%,size<=90MB"')
        self.assert_refused(with_budget(""), "--budget: its value is empty")
        self.assert_refused(with_budget("size<=90MB", recipe="fast"), "'fast'", "--recipe auto")
        refused = with_budget("size<=1kB")
        self.assert_refused(refused, "at least size<=")
        self.assertRegex(refused.stderr, r"give at least size<=\d+kB, and a little more")
        least = re.search(r"size<=\d+kB", refused.stderr).group()  # of 131 kB: 10 are not enough
        self.assert_refused(with_budget(least), "give at least size<=", "smallest")

    def test_folders(self):
        self.assert_refused(self.quantize(self.artifact, model=self.folder / "none"), "none")
        precious = self.folder / "precious"
        precious.mkdir()
        (precious / "thesis.txt").write_text("years of work")
        self.before = tree(self.folder)
        self.assert_refused(self.quantize(precious), "no artifact")
        self.assert_refused(self.quantize(precious / "thesis.txt"), "a file of that name")
        self.assert_refused(self.quantize("."), "choose a new folder")
        self.assert_refused(self.quantize("/proc"), "mount point")
        for run_folder in (self.artifact, self.artifact / "log"):
            self.assert_refused(self.quantize(self.artifact, "--run", run_folder), "beside it")

    def test_folders_of_graphs(self):
        precious = self.folder / "graphs"
        precious.mkdir()
        (precious / "thesis.txt").write_text("years of work")
        self.before = tree(self.folder)
        graphs = ("--rows", 8, "--context", 32)
        for out in (precious, self.artifact, self.folder):
            result = run("export", self.artifact, *graphs, "--out", out)
            self.assert_refused(result, "no earlier export")
        result = run("verify", self.artifact, "--on", "onnxruntime", "--text", TEXT, *graphs,
                     "--tokens", 16, "--decode", 4, "--work", self.folder)
        self.assert_refused(result, "no earlier check")
        out = self.folder / "exported"
        for _ in range(2):
            self.assertEqual(run("export", self.artifact, *graphs, "--out", out).returncode, 0)
        shutil.rmtree(out)

    def test_json_that_cannot_be_kept(self):
        deep = "[" * 100000 + "]" * 100000
        config = json.loads((MODEL / "config.json").read_text())
        for name, text in {"deep": json.dumps(config)[:-1] + ', "x": ' + deep + "}",
                           "infinite": json.dumps(config)[:-1] + ', "x": 1e999}'}.items():
            model = self.copy(MODEL, name)
            (model / "config.json").write_text(text)
            self.assert_refused(run("inspect", "--model", model, "--recipe", "w8a8kv8"), name,
                                "config.json")
        recipe = self.write("deep.json", '{"name": "deep", "rules": ' + deep + "}")
        self.assert_refused(self.quantize(self.artifact, recipe=recipe), recipe, "levels deep")
        task = self.write("deep.jsonl", '{"query": "a", "choices": ["b"], "gold": ' + deep + "}")
        result = run("eval", self.artifact, "--tasks", task)
        self.assert_refused(result, f"{task}, line 1", "levels deep")
        shown = self.write("deep-eval.json", '{"perplexity": ' + deep + "}")
        result = run("report", self.artifact, "--eval", shown, "--out", self.folder / "r.html")
        self.assert_refused(result, shown, "levels deep")
        damaged = self.copy(self.artifact, "deep-graph")
        (damaged / "graph.json").write_text('{"graph": ' + deep + "}")
        self.assert_refused(run("inspect", damaged), "graph.json", "levels deep")

    def test_sizes_without_bounds(self):
        model = self.copy(MODEL, "huge")
        config = json.loads((MODEL / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2**31 - 1}))
        result = run("inspect", "--model", model, "--recipe", "w8a8kv8")
        self.assert_refused(result, "num_hidden_layers", "must be from 1 to")

    def test_folder_name_that_is_not_utf8(self):
        model = os.fsencode(self.folder) + b"/caf\xe9"
        shutil.copytree(os.fsencode(MODEL), model)
        self.addCleanup(shutil.rmtree, model)
        command = [os.fsencode(PROGRAM), b"quantize", b"--model", model, b"--recipe", b"w8a8kv8",
                   b"--calib", os.fsencode(TEXT), b"--out", os.fsencode(self.folder / "cafe"),
                   b"--samples", b"4", b"--length", b"64"]
        result = subprocess.run(command, capture_output=True, timeout=120)
        self.assertEqual(result.returncode, 0, result.stderr)
        report = json.loads((self.folder / "cafe/report.json").read_text())
        self.assertEqual(report["model"], "caf\ufffd")
        self.assertEqual(run("inspect", self.folder / "cafe").returncode, 0)

    def test_task_name_that_is_not_utf8(self):
        task = os.fsencode(self.folder) + b"/t\xe9.jsonl"
        pathlib.Path(os.fsdecode(task)).write_text(
            '{"query": "A", "choices": ["b", "c"], "gold": 0}\n')
        self.addCleanup(os.remove, task)
        items = self.folder / "items.jsonl"
        command = [PROGRAM, "eval", self.artifact, "--tasks", task, "--items", items]
        result = subprocess.run(command, capture_output=True, timeout=120)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(items.read_text())["task"], "t\ufffd")

    def test_damaged_report(self):
        folder = self.copy(self.artifact, "damaged-report")
        path = folder / "report.json"
        good = json.loads(path.read_text())
        rows = {r["name"]: r for r in self.inspected(folder)}
        lost = next(s["name"] for s in good["sites"] if "sqnr" in s)
        for name in ([], [7]):
            bad = json.loads(json.dumps(good))
            entry = next(s for s in bad["sites"] if s["name"] == lost)
            del entry["name"]
            if name:
                entry["name"] = name[0]
            path.write_text(json.dumps(bad))
            after = {r["name"]: r for r in self.inspected(folder)}
            self.assertNotIn("sqnr", after[lost])
            self.assertEqual({k: v for k, v in after.items() if k != lost},
                             {k: v for k, v in rows.items() if k != lost})
            result = run("report", folder, "--out", self.folder / "page.html")
            self.assertEqual(result.returncode, 0, result.stderr)

    def inspected(self, folder):
        return self.json("inspect", folder)["sites"]

    def test_options_out_of_range(self):
        prompt = ("generate", self.artifact, "--prompt", "A")
        for command in ((*prompt, "--tokens", 0), (*prompt, "--context", "x"),
                        ("bench", self.artifact, "--prompts", "abc"),
                        ("serve", self.artifact, "--queue", 0),
                        ("eval", self.artifact, "--text", TEXT, "--windows", 0)):
            result = run(*command)
            self.assert_refused(result, command[-2], f"'{command[-1]}' must be a positive integer")
            self.assertLess(len(result.stderr), 200)
        self.assert_refused(run(*prompt, "--threads", 100000), "--threads", "1024")
        for option in ("--time-limit", "--drain", "--max-body"):
            refused = run("serve", self.artifact, option, "nan")
            self.assert_refused(refused, option, "'nan' must be a number")
        long = "a" * 300
        self.assert_refused(run("eval", long, "--text", TEXT), f"no folder {long}")
        against = run("eval", self.artifact, "--text", TEXT, "--length", 64, "--against", long)
        self.assert_refused(against, long, "File name too long")

    def test_full_disk(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
        self.assert_refused(self.quantize(self.artifact, preexec_fn=limit), "cannot write")
        logits = self.folder / "artifact.logits"
        command = ("eval", self.artifact, "--text", TEXT, "--length", 64, "--save-logits", logits)
        self.assert_refused(run(*command, preexec_fn=limit), "cannot write")
        with open("/dev/full", "w") as full:
            command = [PROGRAM, "inspect", self.artifact]
            for extra in ([], ["--json"]):
                result = subprocess.run(command + extra, stdout=full, stderr=subprocess.PIPE)
                self.assertEqual(result.returncode, 1)
                self.assertIn(b"No space left", result.stderr)

    def test_usage(self):
        self.assert_refused(run("evel"), "mean 'eval'")
        self.assert_refused(run(), "--help")
        self.assert_refused(run("eval"), "--help")
        self.assert_refused(run("eval", self.artifact, "--text", TEXT, "--colour"), "--colour")

    def test_device(self):
        def quantize(*device):
            return run("quantize", "--model", MODEL, "--recipe", "w8a8kv8", "--out",
                       self.folder / "new", "--device", *device)
        self.assert_refused(quantize("tpu"), "--device", "tpu")
        if not pathlib.Path("/dev/nvidia0").exists():
            self.assert_refused(quantize("cuda"), "--device cuda", "no CUDA")
            self.assert_refused(quantize("cuda", "--processes", 2), "no CUDA")

    def test_without_learning_tools(self):
        alone = self.folder / "bin"
        alone.mkdir()
        program = shutil.copy(PROGRAM, alone)
        self.before = tree(self.folder)
        self.assert_refused(self.quantize_with(program), "QNPU_LEARN")
        result = run("eval", MODEL, "--text", TEXT, "--length", 64, program=program)
        self.assert_refused(result, "QNPU_LEARN")
        result = run("eval", self.artifact, "--text", TEXT, "--length", 64, program=program)
        self.assertEqual(result.returncode, 0, result.stderr)

    def quantize_with(self, program):
        return run("quantize", "--model", MODEL, "--recipe", "w8a8kv8", "--out", self.artifact,
                   program=program)


class BadArtifact(Case):
    def damaged(self, file, change):
        folder = self.folder / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.artifact, folder)
        path = folder / file
        path.write_bytes(change(path.read_bytes()))
        return folder

    def assert_unusable(self, file, change, *words):
        folder = self.damaged(file, change)
        before = tree(folder)
        self.assert_error(run("inspect", folder), *words)
        self.assert_error(run("generate", folder, "--prompt", "A"), *words)
        self.assert_error(run("eval", folder, "--text", TEXT, "--length", 64), *words)
        self.assertEqual(tree(folder), before)

    def test_truncated(self):
        self.assert_unusable("model.safetensors", lambda x: x[: len(x) // 2], "model.safetensors")
        self.assert_unusable("model.safetensors", lambda x: b"", "model.safetensors")
        self.assert_unusable("graph.json", lambda x: x[: len(x) // 2], "graph.json")

    def test_one_bit(self):
        def flip(position):
            return lambda x: x[:position] + bytes([x[position] ^ 4]) + x[position + 1 :]
        size = (self.artifact / "model.safetensors").stat().st_size
        for position in (size // 3, size // 2, size - 1000):
            self.assert_unusable("model.safetensors", flip(position), "model.safetensors")

    def test_changed_graph(self):
        self.assert_unusable("graph.json", lambda x: x.replace(b'"head_dim"', b'"head_dym"', 1))

    def test_newer_version(self):
        def newer(content):
            return re.sub(rb'"version": *\d+', b'"version": 99', content)
        self.assert_unusable("graph.json", newer, "99")


class SeveralProcesses(Case):
    def recipe(self, steps):
        return self.write(f"learn-{steps}.json", json.dumps({
            "name": "learn", "rotation": {"r1": "hadamard", "r2": "hadamard"},
            "rules": [{"match": "layers.*_proj.weight", "bitwidth": 4}],
            "learn": {"steps": steps, "sequences": 3, "length": 32, "rotations": True,
                      "input_scales": True, "weight_scales": True, "lr_scales": 0.3}}))

    def scales(self, artifact):
        return {s["name"]: s["scale"] for s in self.json("inspect", artifact)["sites"]
                if "scale" in s and s["scale"]}

    def learn(self, name, steps, *arguments):
        result = self.quantize(self.folder / name, *arguments, recipe=self.recipe(steps))
        self.assertEqual(result.returncode, 0, result.stderr)
        report = json.loads((self.folder / name / "report.json").read_text())
        return self.scales(self.folder / name), report["learn"]

    def test_two_learn_what_one_learns(self):
        one, report = self.learn("one", 1)
        two, same = self.learn("two", 1, "--processes", 2)
        self.assertEqual(one.keys(), two.keys())
        for name, scale in one.items():
            self.assertAlmostEqual(two[name] / scale, 1, delta=1e-3, msg=name)
        self.assertTrue(report["accepted"])
        self.assertAlmostEqual(same["losses"][0], report["losses"][0], places=5)
        for key in ("before", "after"):
            self.assertAlmostEqual(same["held_out"][0][key], report["held_out"][0][key], places=3)
        self.assertEqual([x.name for x in (self.folder / "two.work").iterdir()], ["log.jsonl"])

    def test_two_flatten_as_one_does(self):
        recipe = self.write("flatten.json", json.dumps({
            "name": "flatten", "rotation": {"r1": "hadamard", "r2": "hadamard"}, "flatten": {},
            "rules": [{"match": "layers.*_proj.weight", "bitwidth": 4}]}))
        scales, powers = [], []
        for processes in (1, 2):
            out = self.folder / f"flattened-{processes}"
            result = self.quantize(out, "--processes", processes, recipe=recipe)
            self.assertEqual(result.returncode, 0, result.stderr)
            scales.append(self.scales(out))
            powers.append(json.loads((out / "report.json").read_text())["flatten"]["fourth_powers"])
        self.assertEqual(scales[0].keys(), scales[1].keys())
        for name, scale in scales[0].items():
            self.assertAlmostEqual(scales[1][name] / scale, 1, delta=1e-3, msg=name)
        for one, two in zip(*powers):
            self.assertAlmostEqual(one, two, places=4)
        self.assertLess(powers[0][1], powers[0][0])

    def start(self, name):
        """A long run of two processes: the first, and the id of the second once it learns."""
        out = self.folder / name
        command = [PROGRAM, "quantize", "--model", MODEL, "--recipe", self.recipe(1000000),
                   "--calib", TEXT, "--out", out, "--samples", 4, "--length", 64, "--processes", 2]
        first = subprocess.Popen([str(x) for x in command], text=True, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
        children = pathlib.Path(f"/proc/{first.pid}/task/{first.pid}/children")
        deadline = time.monotonic() + 60
        state = self.folder / f"{name}.work/learn.safetensors"
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        (second,) = children.read_text().split()
        return first, int(second)

    def assert_stopped(self, name, first, second, code, *words):
        out, err = first.communicate(timeout=60)
        lines = [x for x in err.splitlines() if not PROGRESS.fullmatch(x)]
        self.assertEqual((first.returncode, out, len(lines)), (code, "", 1), err)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertFalse(pathlib.Path(f"/proc/{second}").exists())
        left = [x.name for x in self.folder.iterdir() if name in x.name]
        self.assertEqual(left, [f"{name}.work"])  # to continue from

    def test_a_lost_process_stops_all(self):
        first, second = self.start("lost")
        os.kill(second, signal.SIGKILL)
        self.assert_stopped("lost", first, second, 1, "qnpu: error: process 2 of 2", "signal 9")

    def test_an_interrupt_stops_all(self):
        first, second = self.start("long")
        first.send_signal(signal.SIGINT)
        self.assert_stopped("long", first, second, 130, "qnpu: stopped")

    def test_more_processes_than_sequences(self):
        self.assert_error(self.quantize(self.folder / "many", "--processes", 4,
                                        recipe=self.recipe(1)), "4 processes", "'sequences' (3)")

    def test_bad_environment(self):
        environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "two"}
        self.assert_error(self.quantize(self.folder / "bad", env=environment), "RANK", "two")


class Interrupts(Case):
    def interrupt(self, *arguments, after):
        """SIGINT once the path pattern `after` exists; the process's exit code."""
        process = subprocess.Popen([str(x) for x in (PROGRAM, *arguments)], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not list(self.folder.glob(after)) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        lines = [x for x in err.splitlines() if not PROGRESS.fullmatch(x)]
        self.assertEqual(lines, ["qnpu: stopped; nothing was changed"])
        self.assertEqual(out, "")
        return process.returncode

    def test_quantize(self):
        long = self.write("long.txt", TEXT.read_text() * 400)
        before = tree(self.folder)
        code = self.interrupt("quantize", "--model", MODEL, "--recipe", "w8a8kv8", "--calib", long,
                              "--out", self.artifact, "--samples", 100000, "--length", 16,
                              after=".artifact.partial-*")
        self.assertEqual(code, 130)
        self.assertEqual(tree(self.folder), before)

    def test_eval(self):
        long = self.write("long2.txt", TEXT.read_text() * 400)
        before = tree(self.folder)
        code = self.interrupt("eval", self.artifact, "--text", long, "--length", 256,
                              "--save-logits", self.folder / "logits", after=".logits.partial-*")
        self.assertEqual(code, 130)
        self.assertEqual(tree(self.folder), before)


if __name__ == "__main__":
    main()
