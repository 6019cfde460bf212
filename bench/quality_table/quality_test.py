"""Measures with a stand-in for qnpu that writes down how it was called; formats of the table."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

from .measure import Measurement, Setup, fingerprint
from .rows import ABLATION, FLOAT, LISTED, METHODS, Row, chosen_tables
from .table import markdown, percent, perplexity

# Called as qnpu is. Recipes named "broken" cannot be quantized; perplexity is 20, and 10 in float.
STAND_IN = """#!/usr/bin/env python3
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
def value(name):
    return arguments[arguments.index(name) + 1] if name in arguments else None
with open(folder / "calls", "a") as calls:
    model = value("--recipe") or pathlib.Path(arguments[1]).name
    print(arguments[0], model, pathlib.Path(value("--text") or value("--tasks") or "-").name,
          file=calls)
print("freeze: 0.1 s", file=sys.stderr)
if arguments[0] == "quantize":
    if value("--recipe") == "broken":
        sys.exit("qnpu: error: a | b is wrong; do c")
    pathlib.Path(value("--out")).mkdir(exist_ok=True)
    print(json.dumps({"size_bytes": 198e6}))
elif value("--tasks"):
    print(json.dumps({"tasks": {"quiz": {"acc": 0.5, "acc_stderr": 0.125, "acc_norm": 0.25}}}))
elif value("--save-logits"):
    pathlib.Path(value("--save-logits")).write_text("logits")
    print(json.dumps({"perplexity": 10.0, "kl_divergence": None, "top1_agreement": None}))
else:
    assert pathlib.Path(value("--against")).is_file()
    print(json.dumps({"perplexity": 20.0, "kl_divergence": 0.25, "top1_agreement": 0.5}))
"""


class Quality(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        for name in ("model", "recipes"):
            (self.folder / name).mkdir()
        files = {"qnpu": STAND_IN, "qnpu-learn": "", "model/config.json": "{}", "calib.txt": "c",
                 "valid.txt": "v", "web.txt": "w", "quiz.jsonl": "{}", "recipes/good.json": "{}",
                 "recipes/broken.json": "{}",
                 "recipes/online.json": '{"rotation": {"r3": "hadamard"}}'}
        for name, content in files.items():
            (self.folder / name).write_text(content)
        (self.folder / "qnpu").chmod(0o755)
        self.setup = Setup(
            self.folder / "qnpu", self.folder / "recipes", self.folder / "model",
            [self.folder / "calib.txt"],
            {"wikitext": self.folder / "valid.txt", "c4": self.folder / "web.txt"},
            [self.folder / "quiz.jsonl"], 8, 0, self.folder / "out")

    def measure(self, *recipes: str, **changes: Any) -> dict[str, Any]:
        measurement = Measurement(dataclasses.replace(self.setup, **changes))
        return {recipe: measurement.everything(recipe) for recipe in recipes}

    def new_calls(self) -> list[str]:
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.is_file() else []
        calls.unlink(missing_ok=True)
        return lines

    def test_everything_is_measured_once(self) -> None:
        first = self.measure("", "good")
        self.assertEqual(self.new_calls(), [
            "eval model valid.txt", "eval model web.txt", "eval model quiz.jsonl",
            "quantize good -", "eval good valid.txt", "eval good web.txt", "eval good quiz.jsonl"])
        self.assertEqual(first["good"]["texts"]["c4"]["perplexity"], 20)
        self.assertEqual(self.measure("", "good"), first)
        self.assertEqual(self.new_calls(), [])

    def test_only_what_changed_is_measured_again(self) -> None:
        self.measure("", "good", "online")
        self.new_calls()
        (self.folder / "recipes/good.json").write_text('{"name": "good"}')
        (self.folder / "quiz2").mkdir()
        changed = self.folder / "quiz2/quiz.jsonl"
        changed.write_text("{ }")
        self.measure("", "good", "online", tasks=[changed])
        self.assertEqual(self.new_calls(), [
            "eval model quiz.jsonl",
            "quantize good -", "eval good valid.txt", "eval good web.txt", "eval good quiz.jsonl",
            "eval online quiz.jsonl"])

    def test_what_was_deleted_is_made_again_where_it_is_needed(self) -> None:
        self.measure("", "good")
        (self.folder / "out/good").rmdir()
        (self.folder / "out/float.c4.logits").unlink()
        self.new_calls()
        self.measure("", "good")
        self.assertEqual(self.new_calls(), [])
        self.measure("", "good", limit=3)
        self.assertEqual(self.new_calls(), [
            "eval model quiz.jsonl", "quantize good -", "eval good quiz.jsonl"])
        self.measure("online")
        self.assertEqual(self.new_calls(), [
            "quantize online -", "eval online valid.txt", "eval model web.txt",
            "eval online web.txt", "eval online quiz.jsonl"])

    def test_a_failure_is_a_row_and_is_tried_again(self) -> None:
        for _ in range(2):
            self.assertEqual(self.measure("broken")["broken"]["error"], "a | b is wrong; do c")
            self.assertEqual(self.new_calls(), ["quantize broken -"])

    def test_fingerprints(self) -> None:
        model = self.folder / "model"
        before = fingerprint(model, "8")
        self.assertEqual(fingerprint(model, "8"), before)
        self.assertNotEqual(fingerprint(model, "9"), before)
        (model / "model.safetensors").write_text("x")
        self.assertNotEqual(fingerprint(model, "8"), before)

    def test_table(self) -> None:
        reported = (15.0, 1.31e7, None, 22.64)
        rows = [FLOAT, Row("4-8-8", "One", "good", reported, (0.75, None)),
                Row("4-8-8", "Two", "online"), Row("4-8-8", "Three", "broken")]
        results = self.measure("", "good", "online", "broken")
        text = markdown({"A title": rows}, results, ["wikitext", "c4"], ["quiz"])
        lines = [[x.strip() for x in x.split(" | ")] for x in text.splitlines()[2:]]
        self.assertEqual({len(x) for x in lines if x[0][:2] != "|-"}, {18})
        self.assertEqual(lines[1], ["|" + "---|" * 18])
        quiz = ["50.0 ± 12.5", "25.0"]
        self.assertEqual(lines[2], [
            "| float", "float", "–", "–", "10.00", "–", "–", "10.00", "–", "–", *quiz,
            "13.55", "16.85", "13.84", "22.64", "76.2", "54.2 |"])
        measured = ["198", *["20.00 (2)", "0.250", "50.0"] * 2, *quiz]
        self.assertEqual(lines[3], [
            "| 4-8-8", "One", "`good`", *measured,
            "15.00 (1.11)", "1.31e+07 (7.77e+05)", "–", "22.64", "75.0", "– |"])
        self.assertEqual(lines[4][2], "`online` (simulator only)")
        self.assertEqual(lines[5][2:5], ["`broken`: a \\| b is wrong; do c", "–", "–"])

    def test_formats(self) -> None:
        self.assertEqual(perplexity(None, 10), "–")
        self.assertEqual(perplexity(18.614, 13.55), "18.61 (1.37)")
        self.assertEqual(percent(None), "–")
        self.assertEqual(percent(0.5583), "55.8")

    def test_rows(self) -> None:
        self.assertEqual([row.recipe for row in METHODS], list(dict.fromkeys(
            row.recipe for row in METHODS)))
        tables = chosen_tables({"quantnpu-w4a8", "mine"})
        self.assertEqual([[row.recipe for row in rows] for rows in tables.values()],
                         [["", "quantnpu-w4a8"], ["", "quantnpu-w4a8"], ["", "mine"]])

    def test_every_row_has_its_recipe(self) -> None:
        folder = Path(__file__).resolve().parents[2] / "recipes"
        for recipe in LISTED:
            self.assertEqual(json.loads((folder / f"{recipe}.json").read_text())["name"], recipe)
        self.assertEqual(len({row.recipe for row in ABLATION}), len(ABLATION))

    def test_reported_figures_give_the_papers_headline(self) -> None:
        """"+1.23 perplexity": Quant.npu at 4-8-8 less ExecuTorch at 4-16-8, mean of the models."""
        reported = {(row.widths, row.method): row.reported for row in METHODS}
        ours, theirs = reported["4-8-8", "Quant.npu"], reported["4-16-8", "ExecuTorch (LPBQ)"]
        self.assertAlmostEqual(sum(a - b for a, b in zip(ours, theirs)) / 4, 1.23, delta=0.005)


if __name__ == "__main__":
    unittest.main()
