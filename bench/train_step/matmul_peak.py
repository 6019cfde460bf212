#!/usr/bin/env python3
"""Operations per second of PyTorch's bf16 matrix product, for shapes M x K x N given as arguments;
the best of many short runs. Prints one JSON object."""

import json
import sys
import time

import torch

SECONDS = 2.0  # for each shape


def best_rate(m: int, k: int, n: int) -> float:
    a = torch.randn(m, k, dtype=torch.bfloat16)
    b = torch.randn(n, k, dtype=torch.bfloat16).T  # as F.linear has it
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return 2.0 * m * k * n / best


print(json.dumps({shape: best_rate(*map(int, shape.split("x"))) for shape in sys.argv[1:]}))
