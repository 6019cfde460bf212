"""`qnpu report` as a reader meets it: in headless Chromium, on tiny models.

    report_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]    PROGRAM: qnpu, with qnpu-learn beside it
"""

import json
import pathlib
import resource
import shutil

from program_testing import MODEL, SOURCE, TEXT, FolderCase, main, quantize, run
from report_testing import SECTIONS, BrowserCase

OLD = SOURCE / "testdata/artifacts/v1-tiny-qwen3"
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>{{data}}"


class Case(FolderCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        recipe = json.loads((SOURCE / "recipes/default.json").read_text())
        recipe["tune"].update({"steps": 4, "sequences": 1, "length": 16, "warmup": 1})
        recipe["description"] = HOSTILE
        (cls.folder / "tuned.json").write_text(json.dumps(recipe))
        cls.tuned, cls.plain = cls.folder / "tuned", cls.folder / "plain"
        for out, recipe in ((cls.tuned, cls.folder / "tuned.json"), (cls.plain, "w8a8kv8")):
            result = quantize(out, recipe=recipe)
            assert result.returncode == 0, result.stderr

    def report(self, *arguments):
        out = self.folder / "report.html"
        result = run("report", *arguments, "--out", out)
        self.assertEqual(result.returncode, 0, result.stderr)
        return out


class Pages(BrowserCase, Case):
    def test_every_chart_is_drawn(self):
        page = self.open(self.report(self.tuned))
        ids = page.evaluate('[...document.querySelectorAll("section")].map((s) => s.id)')
        self.assertEqual(tuple(ids), SECTIONS)
        self.assert_drawn(page, {"depth": 6, "map": 1, "inputs": 1 + 8, "sensitivity": 1,
                                 "learning": 3, "operations": 1, "memory": 1})
        sites = self.json("inspect", self.tuned)["sites"]
        page.select_option("#sites select", label="all sites")
        rows = self.texts(page, "#site-table tbody tr td:first-child")
        self.assertEqual(sorted(rows), sorted(site["name"] for site in sites))

    def test_a_histogram_is_chosen_in_the_map(self):
        page = self.open(self.report(self.plain))
        name = "layers.1.mlp.gate_up_proj.in"
        before = page.inner_html("#histogram")
        page.locator(f'#map [data-site="{name}"]').click()
        self.assertEqual(page.input_value("#inputs select"), name)
        self.assertNotEqual(page.inner_html("#histogram"), before)
        site = next(s for s in self.json("inspect", self.plain)["sites"] if s["name"] == name)
        text = page.inner_text("#histogram-text").replace("\u2212", "-")
        self.assertIn(f"scale {site['scale']:.4g}", text)
        self.assertEqual(page.locator("#histogram .limit").count(), 2)
        self.assertEqual(page.locator("#histogram .stroke-before").count(), 1)

    def test_tables_sort_and_filter(self):
        page = self.open(self.report(self.plain))
        page.fill("#sites input", "layers.0.mlp")
        names = self.texts(page, "#site-table tbody tr td:first-child")
        self.assertTrue(names and all("layers.0.mlp" in name for name in names), names)
        page.click("#site-table th:has-text('SQNR of rounding')")
        page.click("#site-table th:has-text('SQNR of rounding')")
        values = [float(v) for v in self.texts(page, "#site-table tbody tr td:nth-child(8)")]
        self.assertEqual(values, sorted(values))

    def test_hostile_names_stay_text(self):
        page = self.open(self.report(self.tuned))
        self.assertIn(HOSTILE, page.inner_text("#top"))
        self.assertNotEqual(page.title(), "taken")
        self.assertEqual(page.locator("img").count(), 0)
        self.assertEqual(page.locator("script").count(), 3)

    def test_dark_and_light(self):
        path = self.report(self.plain)
        colours = []
        for scheme in ("light", "dark"):
            page = self.open(path, scheme)
            colours.append(page.evaluate("""() => {
              const of = (node, key) => getComputedStyle(node)[key];
              const light = (rgb) => rgb.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 3;
              return [light(of(document.body, "backgroundColor")), light(of(document.body, "color")),
                      light(of(document.querySelector("#depth svg text"), "fill"))];
            }"""))
        (paper, ink, text), (dark_paper, dark_ink, dark_text) = colours
        self.assertGreater(paper - text, 80)
        self.assertGreater(paper - ink, 150)
        self.assertGreater(dark_text - dark_paper, 80)
        self.assertGreater(dark_ink - dark_paper, 150)

    def test_print_shows_everything(self):
        page = self.open(self.report(self.tuned), "dark")
        page.emulate_media(media="print")
        self.assert_drawn(page, {"depth": 6, "map": 1, "inputs": 9, "sensitivity": 1, "learning": 3})
        hidden = page.evaluate("""() => [...document.querySelectorAll("section, svg, table, .tile")]
            .filter((node) => node.getClientRects().length === 0).length""")
        self.assertEqual(hidden, 0)
        cut = page.evaluate("""() => [...document.querySelectorAll(".scroll")]
            .filter((node) => node.scrollHeight > node.clientHeight + 1).length""")
        self.assertEqual(cut, 0)
        self.assertEqual(page.evaluate("getComputedStyle(document.body).backgroundColor"),
                         "rgb(255, 255, 255)")
        self.assertGreater(len(page.pdf()), 20000)

    def test_two_side_by_side(self):
        page = self.open(self.report(self.plain, self.tuned))
        self.assert_drawn(page, {"depth": 6, "map": 1, "inputs": 9, "sensitivity": 2, "memory": 2})
        lines = page.locator("#depth svg:first-of-type .series.b").count()
        self.assertGreater(lines, 0)
        a, b = ({s["name"]: s for s in self.json("inspect", x)["sites"]} for x in (self.plain, self.tuned))
        page.select_option("#sites select", label="that differ in width")
        shown = set(self.texts(page, "#site-table tbody tr td:first-child"))
        self.assertEqual(shown, {n for n in a if n in b and a[n]["role"] == "weight" and
                                 a[n]["bits"] != b[n]["bits"]})
        self.assertTrue(shown)

    def test_evaluations_are_shown(self):
        evaluation = self.folder / "prose.json"
        evaluation.write_text(json.dumps(self.json("eval", self.plain, "--text", TEXT, "--against",
                                                   MODEL, "--length", 64, "--windows", 2)))
        bench = self.folder / "bench.json"
        bench.write_text(json.dumps(self.json("bench", self.plain, "--prompts", 32, "--contexts", 16,
                                              "--decode", 4, "--repeat", 1)))
        page = self.open(self.report(self.plain, "--eval", evaluation, "--bench", bench))
        tiles = " ".join(self.texts(page, ".tile")).replace("\n", " ")
        values = json.loads(evaluation.read_text())
        self.assertIn(f"Perplexity, prose {values['perplexity']:.0f}", tiles)
        self.assertIn(f"{100 * values['top1_agreement']:.1f} %", tiles)
        self.assertIn("tok/s", tiles)
        self.assertEqual(page.locator("#summary .missing").count(), 0)

    def test_an_old_artifact_says_what_is_missing(self):
        page = self.open(self.report(OLD))
        for section in ("depth", "inputs", "sensitivity"):
            self.assertEqual(len(self.texts(page, f"#{section} .missing")), 1, section)
        self.assert_drawn(page, {"operations": 1, "memory": 1})
        bare = self.folder / "bare"
        shutil.copytree(OLD, bare)
        (bare / "report.json").unlink(missing_ok=True)
        page = self.open(self.report(bare))
        self.assertIn("report.json", page.inner_text("#map"))


class Files(Case):
    def test_quantize_leaves_a_report(self):
        html = self.plain / "report.html"
        written = html.read_bytes()
        self.assertEqual(self.json("report", self.plain), {"out": str(html), "bytes": len(written)})
        self.assertEqual(html.read_bytes(), written)

    def assert_error(self, result, *words):
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in ("qnpu: error: ",) + words:
            self.assertIn(str(word), result.stderr)

    def test_bad_input(self):
        nowhere = self.folder / "nowhere"
        self.assert_error(run("report", nowhere), nowhere)
        self.assert_error(run("report", self.plain, "--out", nowhere / "x.html"), nowhere)
        self.assert_error(run("report", self.plain, "--out", self.folder), self.folder, "--out")
        self.assert_error(run("report", self.plain, OLD), self.plain, OLD, "shape")
        self.assertFalse(pathlib.Path("comparison.html").exists())
        other = self.folder / "other.json"
        other.write_text("[1]")
        self.assert_error(run("report", self.plain, "--eval", other), other, "qnpu eval --json")
        self.assert_error(run("report", self.plain, "--bench", other), other, "qnpu bench --json")
        other.write_text("{")
        self.assert_error(run("report", self.plain, "--eval", other), other)

    def test_a_full_disk_leaves_the_old_report(self):
        out = self.folder / "kept.html"
        out.write_text("old")
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
        result = run("report", self.plain, "--out", out, preexec_fn=limit)
        self.assertNotEqual(result.returncode, 0)
        self.assertEqual(out.read_text(), "old")
        self.assertEqual([p for p in self.folder.iterdir() if "partial" in p.name], [])


if __name__ == "__main__":
    main()
