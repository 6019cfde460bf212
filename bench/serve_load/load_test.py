"""Figures of requests whose answers are known."""

from __future__ import annotations

import unittest

from .clients import Load, Request
from .figures import overtakings, percentile, summary, table

LOAD = Load("text", clients=2, warm_up=1, seconds=10, characters=9, tokens=4)


class Figures(unittest.TestCase):
    def test_percentiles(self) -> None:
        values = [float(x) for x in range(100, 0, -1)]
        self.assertEqual([percentile(values, p) for p in (0.5, 0.99, 1.0)], [50, 99, 100])
        self.assertEqual(percentile([3.0], 0.5), 3)

    def test_overtakings(self) -> None:
        requests = [Request(0, 1, 5), Request(1, 2, 3), Request(2, 3, 4), Request(3, 4, 6)]
        self.assertEqual(overtakings(requests), [2, 0, 0, 0])

    def test_summary(self) -> None:
        requests = [Request(0, 0.5, 1, 2, 4),  # of the warm-up
                    Request(0, 2, 3, 6, 4), Request(0, 6, 6.5, 11, 2),
                    Request(1, 7, 0, 8, 0, "Trouble: no")]
        metrics = {"qnpu_generated_tokens_total": 10.0, "qnpu_steps_total": 5.0}
        got = summary(requests, LOAD, [10, 20, 30, 25], metrics)
        self.assertEqual((got["requests"], got["errors"], got["first_error"]), (2, 1, "Trouble: no"))
        self.assertEqual(got["tokens_per_second"], 0.6)
        self.assertEqual(got["first_token_seconds"]["p99"], 1)
        self.assertEqual(got["request_seconds"]["p50"], 4)
        self.assertEqual(got["requests_by_client"], {"least": 0, "most": 2})
        self.assertEqual(got["memory_mb"],
                         {"start": 10, "after_warm_up": 20, "end": 25, "most": 30})
        self.assertEqual(got["tokens_by_step"], 2)
        self.assertIn("p99 1.00", table(got))


if __name__ == "__main__":
    unittest.main()
