"""Exports tiny models, and has them compiled and run by the NPU's own tools: its compiler and emulator
(onnxruntime-qnn), Genie and onnxruntime-genai.

    npu_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import json
import os
import subprocess

from program_testing import SOURCE, TEXT, FolderCase, main, quantize, run

GRAPH = ("--rows", 16, "--context", 80)
PYTHON = os.environ.get("QNPU_PYTHON", SOURCE / ".venv/bin/python")
# Their laws are near the NPU's, not equal (docs/numerics.md).
NEAR = ("softmax.out", "layernorm.out", "norm.out", "lm_head.in")
# Of 16-bit linears too: norms and SiLU are 16-bit, and write their inputs themselves.
BIASED = ("q_proj.out", "k_proj.out", "v_proj.out")  # of Qwen2
NEAR_16 = NEAR + ("qkv_proj.in", "gate_up_proj.in", "silu.out")


class Case(FolderCase):
    @classmethod
    def quantized(cls, model, recipe="fast"):
        out = cls.folder / f"{model}.{recipe}"
        if not out.exists():
            result = quantize(out, model=SOURCE / "testdata/models" / model, recipe=recipe)
            assert result.returncode == 0, result.stderr
        return out

    def refuse(self, out, *arguments, words, **environment):
        result = run(*arguments, "--out", out, env={**os.environ, **environment})
        last = result.stderr.strip().splitlines()[-1]
        self.assertEqual(result.returncode, 1)
        self.assertTrue(last.startswith("qnpu: error: "), result.stderr)
        for word in words:
            self.assertIn(word, last)
        self.assertEqual([x.name for x in self.folder.iterdir() if out.name in x.name], [])

    def work(self, artifact, arguments):
        return self.folder / "work" / "_".join([artifact.name, *map(str, arguments)])

    def verify(self, artifact, *arguments):
        return self.json("verify", artifact, "--text", TEXT, "--tokens", 60, "--decode", 20, *GRAPH,
                         "--work", self.work(artifact, arguments), *arguments)


class Emulator(Case):
    def check_sites(self, result, near=NEAR, bias_sites=()):
        self.assertEqual(result["float_tensors"], 0)
        self.assertGreater(len(result["sites"]), 50)
        for name, site in result["sites"].items():
            if name.endswith(near):
                self.assertLessEqual(site["largest_difference"], 40, name)
            elif name.endswith(bias_sites):
                self.assertLessEqual(site["largest_difference"], 1, name)
            else:
                self.assertEqual(site["equal"], 1.0, name)
        self.assertLess(abs(result["perplexity_npu"] / result["perplexity"] - 1), 0.03)
        self.assertLess(result["kl_divergence"], 0.01)

    def check_equal_but_near(self, model):
        biases = BIASED if model == "tiny-qwen2" else ()
        self.check_sites(self.verify(self.quantized(model)), bias_sites=biases)

    def test_llama(self):
        self.check_equal_but_near("tiny-llama")

    def test_qwen2(self):
        self.check_equal_but_near("tiny-qwen2")

    def test_qwen3(self):
        self.check_equal_but_near("tiny-qwen3")

    def test_biases_of_16_bit_linears(self):
        for recipe in ("w4a16kv8", "executorch-w4a16-block"):
            result = self.verify(self.quantized("tiny-qwen2", recipe))
            self.check_sites(result, NEAR_16, ("_proj.out",))
            for name in BIASED:
                self.assertGreater(result["sites"][f"layers.0.self_attn.{name}"]["equal"], 0.99)

    def test_blocks_of_weights(self):
        artifact = self.quantized("tiny-llama", "executorch-w4a16-block")
        self.check_sites(self.verify(artifact), NEAR_16)
        out = self.folder / "blocks"
        self.json("export", artifact, *GRAPH, "--out", out)
        described = json.loads((artifact / "graph.json").read_text())["graph"]["sites"]
        blocks = sum(s["rows"] * s["cols"] for s in described if s.get("block_size"))
        self.assertGreater(blocks, 50000)
        self.assertEqual(self.nibbles(out / "prefill.onnx"), blocks)

    def nibbles(self, path):
        """How many 4-bit weights a graph has."""
        count = ("import onnx, sys; g = onnx.load(sys.argv[1], load_external_data=False).graph; "
                 "print(sum(t.dims[0] * t.dims[1] for t in g.initializer if t.data_type == 22 "
                 "and t.name.endswith('.weight')))")
        return int(subprocess.run([PYTHON, "-c", count, path], check=True, capture_output=True,
                                  text=True).stdout)

    def test_parts_give_the_same_integers(self):
        whole, parts = (self.verify(self.quantized("tiny-qwen3"), "--split", n) for n in (1, 2))
        self.assertEqual(list(parts["compiled"]["graphs"]),
                         ["decode.part01", "decode.part02", "prefill.part01", "prefill.part02"])
        for key in ("perplexity_npu", "kl_divergence", "logits", "sites"):
            self.assertEqual(parts[key], whole[key], key)

    def operations(self, artifact, arguments, folder, graph="prefill"):
        made = json.loads((self.work(artifact, arguments) / folder / "made_from.json").read_text())
        return made["compiled"]["graphs"][graph]["operations"]

    # The runtime, which computes attention in one piece, is what the sites are compared with.
    def test_attention_in_pieces_gives_the_same_integers(self):
        artifact = self.quantized("tiny-llama")
        whole = self.verify(artifact)
        for rows in (16, 8):  # a head at a time; half its rows. 33: positions of the graph of sites
            arguments = ("--most-scores", 2 * rows * 33)
            pieces = self.verify(artifact, *arguments)
            self.check_sites(pieces)
            for folder in ("graphs", "sites"):
                self.assertGreater(self.operations(artifact, arguments, folder),
                                   self.operations(artifact, (), folder))
            self.assertEqual(self.operations(artifact, arguments, "graphs", "decode"),
                             self.operations(artifact, (), "graphs", "decode"))
            for key in ("perplexity_npu", "kl_divergence", "logits", "sites"):
                self.assertEqual(pieces[key], whole[key], key)

    def test_parts_on_onnxruntime(self):
        whole, parts = (self.verify(self.quantized("tiny-qwen3"), "--on", "onnxruntime", "--split", n)
                        for n in (1, 2))
        self.assertEqual(parts["perplexity_npu"], whole["perplexity_npu"])

    def test_a_newer_program_makes_the_graphs_again(self):
        self.verify(self.quantized("tiny-llama"))
        stamp = self.work(self.quantized("tiny-llama"), ()) / "graphs/made_from.json"
        made = json.loads(stamp.read_text())
        made["made_from"]["program"] = "older"
        stamp.write_text(json.dumps(made))
        self.verify(self.quantized("tiny-llama"))
        self.assertNotEqual(json.loads(stamp.read_text())["made_from"]["program"], "older")

    def test_an_operation_that_the_compiler_has_not(self):
        out = self.folder / "unplaceable"
        self.json("export", self.quantized("tiny-llama"), *GRAPH, "--out", out)
        change = ("import onnx, sys; m = onnx.load(sys.argv[1], load_external_data=False)\n"
                  "for n in m.graph.node:\n"
                  "  if n.name == 'layers.1.mlp.silu.sigmoid/sigmoid': n.op_type = 'Erf'\n"
                  "onnx.save(m, sys.argv[1])")
        subprocess.run([PYTHON, "-c", change, out / "prefill.onnx"], check=True)
        result = subprocess.run([PYTHON, SOURCE / "npu/htp/compile.py", out, "--soc", "SM8750"],
                                capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, 1)
        error = json.loads(result.stdout.splitlines()[-1])["error"]
        self.assertIn("prefill for SM8750 at 'layers.1.mlp.silu.sigmoid': Operators of type `Erf`",
                      error)
        self.assertEqual(len(error.splitlines()), 1)

    # Where the compiler's log names nothing, as in finalization, beginnings of the graph are tried.
    def test_the_first_node_that_is_refused(self):
        out = self.folder / "beginnings"
        self.json("export", self.quantized("tiny-qwen3"), *GRAPH, "--out", out)
        search = ("import onnx, sys; sys.path.insert(0, sys.argv[2]); import refusal, session\n"
                  "soc, tries = session.soc_named('SM8750'), []\n"
                  "def compiles(model):\n"
                  "  onnx.save(model, sys.argv[1] + '.first.onnx')\n"
                  "  session.open_session(sys.argv[1] + '.first.onnx', soc)\n"
                  "  return 'layers.1.mlp.up_proj' not in {n.name for n in model.graph.node}\n"
                  "model = onnx.load(sys.argv[1], load_external_data=False)\n"
                  "print(refusal.first_refused(model, compiles))")
        found = subprocess.run([PYTHON, "-c", search, out / "prefill.onnx", SOURCE / "npu/htp"],
                               check=True, capture_output=True, text=True, timeout=300)
        self.assertEqual(found.stdout.splitlines()[-1], "layers.1.mlp.up_proj.out")

    def test_onnxruntime(self):
        result = self.verify(self.quantized("tiny-qwen3"), "--on", "onnxruntime")
        self.assertIsNone(result["float_tensors"])
        self.assertLess(result["kl_divergence"], 0.05)

    def test_logits_of_8_bits(self):
        recipe = json.loads((SOURCE / "recipes/fast.json").read_text())
        recipe["rules"].append({"match": "lm_head.in", "bitwidth": 8})
        path = self.folder / "narrow-head.json"
        path.write_text(json.dumps(recipe))
        artifact = self.folder / "narrow-head"
        self.json("quantize", "--model", SOURCE / "testdata/models/tiny-llama", "--recipe", path,
                 "--calib", TEXT, "--samples", 4, "--length", 64, "--out", artifact)
        result = self.verify(artifact, "--on", "onnxruntime")
        self.assertLess(result["kl_divergence"], 0.05)
        self.assertLess(result["logits"]["largest_difference"], 64)
        self.assertGreater(result["token_agreement"], 0.5)
        self.check_sites(self.verify(artifact))

    def test_both_phones_share_weights(self):
        artifact, out = self.quantized("tiny-llama"), self.folder / "shared"
        result = self.json("export", artifact, "--to", "qnn", "--soc", "SM8650,SM8750", *GRAPH, "--out",
                          out)
        for soc in ("SM8650", "SM8750"):
            self.assertEqual(list(result[soc]["binaries"]), [f"prefill.{soc}_qnn.bin"])
            self.assertEqual({x["float_tensors"] for x in result[soc]["graphs"].values()}, {0})
            for graph in ("prefill", "decode"):
                self.assertTrue((out / f"{graph}.{soc}.onnx").is_file())


class Bundles(Case):
    def greedy(self, model, on, *arguments):
        return self.json("verify", self.quantized(model), "--on", on, "--text", TEXT, "--tokens", 21,
                        *GRAPH, "--work", self.folder / f"{model}.work", *arguments)

    def check(self, model):
        genie, genai = self.greedy(model, "genie"), self.greedy(model, "ort-genai")
        self.assertEqual(genie["tokens_npu"], genai["tokens_npu"])
        self.assertEqual(len(genie["tokens_npu"]), 20)
        if genie["equal"] == 20:
            return
        # Two logits may be so near that softmax's law decides between them.
        self.assertGreater(genie["equal"], 0)
        self.assertLess(genie["lead"], 2 * self.verify(self.quantized(model))["logits"]["largest_difference"])

    def test_llama(self):
        self.check("tiny-llama")

    def test_qwen3(self):
        self.check("tiny-qwen3")

    def test_parts(self):
        whole = self.greedy("tiny-llama", "genie")["tokens_npu"]
        for on in ("genie", "ort-genai"):
            self.assertEqual(self.greedy("tiny-llama", on, "--split", 2)["tokens_npu"], whole, on)


class Estimates(Case):
    """The compiler's own, of npu/htp/estimate.py."""

    def estimate(self, recipe, *arguments):
        export = self.folder / f"estimate-{recipe}"
        if not export.exists():
            self.json("export", self.quantized("tiny-llama", recipe), "--out", export, *GRAPH)
        python = os.environ.get("QNPU_PYTHON", str(SOURCE / ".venv/bin/python"))
        command = [python, SOURCE / "npu/htp/estimate.py", export, *arguments]
        result = subprocess.run([str(x) for x in command], capture_output=True, text=True, timeout=300,
                                check=False)
        return result.returncode, [json.loads(x) for x in result.stdout.splitlines() if x[0] == "{"][-1]

    def graphs(self, recipe, *arguments):
        code, message = self.estimate(recipe, "--soc", "SA8797", *arguments)
        self.assertEqual(code, 0, message)
        return message["result"]["graphs"]

    def test_eight_bits_fetch_more_than_four(self):
        four, eight = (self.graphs(x)["decode"] for x in ("w4a8kv8", "w8a8kv8"))
        for graph in (four, eight):
            self.assertEqual((graph["operations_without_cost"], graph["float_tensors"]), (0, 0))
            self.assertLessEqual(graph["microseconds_lower"], graph["microseconds"])
            self.assertLessEqual(graph["microseconds"], graph["microseconds_upper"])
        # Two layers of 43008 weights, half a byte each.
        saved = eight["input_bytes"] - four["input_bytes"]
        self.assertGreater(saved, 30_000)
        self.assertLess(saved, 50_000)

    def test_blocks_stay_in_four_bits(self):
        eight = self.graphs("w8a8kv8")["decode"]
        blocks = self.graphs("executorch-w4a16-block")["decode"]
        self.assertEqual(blocks["float_tensors"], 0)
        self.assertLess(blocks["input_bytes"], eight["input_bytes"])

    def test_refusals(self):
        code, message = self.estimate("w8a8kv8", "--soc", "SM8750")
        self.assertEqual(code, 1)
        self.assertIn("SA8797", message["error"])


class BadInput(Case):
    def test_width_that_the_npu_has_not(self):
        self.refuse(self.folder / "a4", "export", SOURCE / "testdata/artifacts/v2-a4-llama", "--rows",
                    8, "--context", 32, words=["layers.0.self_attn.qkv_proj.in", "s4"])

    def test_law_that_does_not_follow_from_the_scales(self):
        self.refuse(self.folder / "law", "export", SOURCE / "testdata/artifacts/v2-prefix-qwen3",
                    "--rows", 8, "--context", 32, words=["layers.0.self_attn.scores.out", "scales"])

    def test_unknown_soc(self):
        self.refuse(self.folder / "soc", "export", self.quantized("tiny-llama"), "--to", "qnn",
                    "--soc", "SM1", *GRAPH, words=["SM1", "SM8750"])

    def test_context(self):
        self.refuse(self.folder / "long", "export", self.quantized("tiny-llama"), "--rows", 16,
                    "--context", 20, words=["context"])

    def test_two_socs_for_a_bundle(self):
        self.refuse(self.folder / "two", "export", self.quantized("tiny-llama"), "--to", "genie",
                    "--soc", "SM8650,SM8750", *GRAPH, words=["one SoC"])

    def test_no_python(self):
        self.refuse(self.folder / "none", "export", self.quantized("tiny-llama"), "--to", "qnn",
                    *GRAPH, words=["Python"], QNPU_PYTHON="/nowhere/python")

    def test_a_tool_that_dies(self):
        self.refuse(self.folder / "dies", "export", self.quantized("tiny-llama"), "--to", "qnn",
                    *GRAPH, words=["compile.py", "without a result"], QNPU_PYTHON="/bin/false")


if __name__ == "__main__":
    main()
