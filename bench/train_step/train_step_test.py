"""Operations against a count of every product; the ratios and the table of made-up runs."""

from __future__ import annotations

import unittest

from .arithmetic import operations, rows, step_seconds
from .command import markdown

CONFIG = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "vocab_size": 20,
          "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}


def product(m: int, k: int, n: int) -> int:
    return 2 * m * k * n


def forward(tokens: int, length: int) -> int:
    """Of the layers, as PyTorch would be called; attention is causal: half of it."""
    linears = sum(product(tokens, k, n) for k, n in
                  ((8, 8), (8, 4), (8, 4), (8, 8), (8, 12), (8, 12), (12, 8)))
    sequences = tokens // length
    heads = sum(product(length, 4, length) + product(length, length, 4) for _ in range(2))
    return 2 * (linears + sequences * heads // 2)


class Operations(unittest.TestCase):
    def test_every_product_is_counted(self) -> None:
        for tokens, length in ((16, 16), (32, 16)):
            count = operations(CONFIG, tokens, length)
            self.assertEqual(count.recomputed, forward(tokens, length))
            head = product(tokens, 8, 20)
            self.assertEqual(count.needed, 3 * forward(tokens, length) + 2 * head)

    def test_head_dim_may_be_absent(self) -> None:
        config = {x: y for x, y in CONFIG.items() if x != "head_dim"}
        self.assertEqual(operations(config, 16, 16), operations(CONFIG, 16, 16))


class Rows(unittest.TestCase):
    def test_the_first_step_does_not_count(self) -> None:
        self.assertEqual(step_seconds([9.0, 1.0, 3.0, 2.0]), 2.0)
        self.assertEqual(step_seconds([9.0]), 9.0)

    def test_ratios(self) -> None:
        runs = {"qnpu": {"seconds": [5.0, 2.0], "peak_bytes": 10, "start_bytes": 0},
                "other": {"seconds": [5.0, 8.0], "peak_bytes": 50, "start_bytes": 10}}
        count = operations(CONFIG, 16, 16)
        ours, other = rows(CONFIG, 16, 16, count.needed, runs, "qnpu")
        self.assertEqual((ours["speed_ratio"], other["speed_ratio"]), (1.0, 4.0))
        self.assertEqual((ours["tokens_per_second"], other["tokens_per_second"]), (8.0, 2.0))
        self.assertEqual((ours["share_of_peak"], other["share_of_peak"]), (0.5, 0.125))
        self.assertEqual(other["memory_ratio"], 0.25)
        table = markdown({"rows": [ours, other], "matmul_peak": {"16x8x12": 3e9}}, 16).splitlines()
        self.assertIn("| other | 8.00 | 2 | 12.5% |", table[3])
        self.assertTrue(table[3].endswith("| x 4.00 | x 0.25 |"))
        self.assertIn("3 GFLOP/s (16x8x12)", table[-1])


if __name__ == "__main__":
    unittest.main()
