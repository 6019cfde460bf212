"""What the program says of targets: placement, estimates, refusals; on the artifacts of testdata/.

    target_cli_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import json
import sys
import unittest

from cli_test import MODEL, PREFIXED, SOURCE, Case, run

ARTIFACT = SOURCE / "testdata/artifacts/v1-tiny-llama"
FOUR_BITS = SOURCE / "testdata/artifacts/v2-a4-llama"  # inputs of 4 bits, which no target has
SITE = "layers.0.self_attn.qkv_proj.in"


class Placement(Case):
    def test_an_unknown_soc_is_no_target_of_graphs_either(self):
        out = self.folder / "unknown"
        self.assert_error(run("export", ARTIFACT, "--soc", "nosuch", "--out", out), "nosuch")
        self.assertFalse(out.exists())

    def test_all_is_placed(self):
        values = self.json("inspect", ARTIFACT, "--target", "SM8650,sm8750")
        placed = {"placed": True, "problems": []}
        self.assertEqual(values["placement"], {"SM8650": placed, "SM8750": placed})
        self.assertNotIn("placement", self.json("inspect", ARTIFACT))
        text = run("inspect", ARTIFACT, "--target", "SM8750")
        self.assertRegex(text.stdout, r"SM8750 +places all \d+ nodes in integers\n$")

    def test_what_cannot_be_placed_is_named(self):
        result = run("inspect", FOUR_BITS, "--target", "SM8750", "--json")
        self.assertEqual(result.returncode, 1)
        problems = json.loads(result.stdout)["placement"]["SM8750"]["problems"]
        self.assertEqual(problems[0]["site"], SITE)
        self.assertIn("16>4 bits, which would become fp16", problems[0]["reason"])
        self.assertRegex(result.stderr, "^qnpu: error: SM8750 cannot place 18 parts .*" + SITE)
        self.assertEqual(result.stderr.count("\n"), 1)

    def test_a_plan_is_checked(self):
        plan = ("inspect", "--model", MODEL, "--target", "SM8650", "--recipe")
        self.assertEqual(run(*plan, "w4a8kv8").returncode, 0)
        result = run(*plan, "default-w4a4")
        self.assertEqual(result.returncode, 1)
        self.assertIn("4 bits", result.stderr)

    def test_export_refuses_before_it_compiles(self):
        for to in ("qnn", "genie", "ort-genai"):
            out = self.folder / f"refused-{to}"
            result = run("export", FOUR_BITS, "--to", to, "--soc", "SM8750", "--rows", 8,
                         "--context", 32, "--out", out, env={"QNPU_PYTHON": "/nowhere/python"})
            self.assert_error(result, "SM8750", SITE)
            self.assertEqual([x.name for x in self.folder.iterdir() if "refused" in x.name], [])


class Estimate(Case):
    def test_both_graphs_on_both_targets(self):
        values = self.json("estimate", ARTIFACT, "--rows", 16, "--context", 64)
        self.assertIs(values["estimate"], True)
        graphs = values["graphs"]
        self.assertEqual([(g["target"], g["graph"], g["rows"]) for g in graphs],
                         [("SM8650", "prefill", 16), ("SM8650", "decode", 1),
                          ("SM8750", "prefill", 16), ("SM8750", "decode", 1)])
        for graph in graphs:
            self.assertAlmostEqual(sum(graph["shares"].values()), 1)
            self.assertAlmostEqual(graph["tokens_per_second"], graph["rows"] / graph["seconds"])
            self.assertGreater(graph["joules"], 0)
        self.assertGreater(graphs[0]["seconds"], graphs[2]["seconds"])
        self.assertGreater(values["model"]["held_back"]["decode"]["typical"], 1)

    def test_weights_are_those_of_the_artifact(self):
        weights = (ARTIFACT / "model.safetensors").stat().st_size
        graph = self.json("estimate", ARTIFACT, "--context", 512)["graphs"][0]
        # Beside the weights the file has sums of rows, multipliers and tables of functions.
        self.assertLess(graph["weight_bytes"], weights)
        self.assertGreater(graph["weight_bytes"], 0.5 * weights)

    def test_text_says_what_it_is(self):
        text = run("estimate", ARTIFACT, "--rows", 16, "--context", 64, "--target", "SM8750").stdout
        self.assertTrue(text.startswith("An estimate, not a measurement."))
        self.assertIn("prefill", text)

    def test_a_plan(self):
        plan = ("estimate", "--model", MODEL, "--rows", 16, "--context", 64, "--recipe")
        eight, four = (self.json(*plan, x)["graphs"][0] for x in ("w8a8kv8", "w4a8kv8"))
        self.assertLess(four["weight_bytes"], eight["weight_bytes"])
        self.assertLess(four["moved_bytes"], eight["moved_bytes"])


class BadTargets(Case):
    def estimate(self, *arguments):
        return run("estimate", ARTIFACT, *arguments)

    def test_unknown_target(self):
        self.assert_error(self.estimate("--target", "SM8751"), "SM8751", "did you mean 'SM8750'")
        self.assert_error(run("inspect", ARTIFACT, "--target", "nothing"), "nothing", "SA8775")

    def test_target_without_figures(self):
        self.assert_error(self.estimate("--target", "SA8775"), "SA8775", "memory_gb_per_s")

    def test_missing_key(self):
        target = json.loads((SOURCE / "targets/sm8750.json").read_text())
        del target["session_mb"]
        path = self.write("t.json", json.dumps(target))
        self.assert_error(self.estimate("--target", path), path, "session_mb")
        path = self.write("broken.json", '{"name": ')
        self.assert_error(self.estimate("--target", path), path)
        self.assert_error(self.estimate("--target", self.folder / "none.json"), "none.json")

    def test_rows_and_context(self):
        for rows in (0, -1):
            self.assert_error(self.estimate("--rows", rows), f"{rows} rows")
        for context in (0, -5):
            self.assert_error(self.estimate("--context", context), f"context of {context}")
        self.assert_error(self.estimate("--rows", 65, "--context", 64), "65 rows", "64")
        self.assert_error(run("estimate", PREFIXED, "--rows", 63, "--context", 64), "prefix of 2")
        self.assert_error(self.estimate("--rows", "many"), "many")

    def test_needs_something(self):
        self.assert_error(run("estimate"), "--model")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
