"""The report of a real model: the artifact of SmolLM2-135M that scripts/test makes.

    report_model_test.py PROGRAM SOURCE_FOLDER [Class[.test] ...]
"""

import time

from program_testing import SOURCE, main, run
from report_testing import SECTIONS, BrowserCase

ARTIFACT = SOURCE / "out/test/w4a8kv8"
MOST_BYTES = 3_000_000
# It takes some tenths of a second; this is no measurement.
MOST_SECONDS = 5


class SmolLm2(BrowserCase):
    def test_size_and_time(self):
        self.assertTrue((ARTIFACT / "graph.json").exists(), f"{ARTIFACT}: `scripts/test` makes it")
        out = self.folder / "report.html"
        result = run("report", ARTIFACT, "--out", out)
        self.assertEqual(result.returncode, 0, result.stderr)
        size = out.stat().st_size
        self.open(out)  # the browser itself has its files in memory then
        start = time.monotonic()
        page = self.open(out)
        seconds = time.monotonic() - start
        print(f"report of {ARTIFACT.name}: {size / 1e6:.2f} MB, drawn in {seconds:.2f} s", flush=True)
        self.assertLess(size, MOST_BYTES)
        self.assertLess(seconds, MOST_SECONDS)
        ids = page.evaluate('[...document.querySelectorAll("section")].map((s) => s.id)')
        self.assertEqual(set(ids) - set(SECTIONS), set())
        for section in ("depth", "map", "inputs", "operations", "memory"):
            marks = self.marks(page, section)
            self.assertTrue(marks and all(marks), (section, marks))
        self.assertGreater(page.locator('#map [data-site^="layers.29."]').count(), 0)  # the last one


if __name__ == "__main__":
    main()
