"""What a learning step has to compute, and what its measurements say."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

Config = dict[str, Any]


class Operations(NamedTuple):
    """Of one step: multiplications and additions of matrix products. Rotations are not counted."""

    needed: float
    recomputed: float  # layers a second time, for their gradients


def head_size(config: Config) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def layer_weights(config: Config) -> int:
    """Elements of one layer's seven matrices."""
    hidden, size = config["hidden_size"], head_size(config)
    heads = 2 * config["num_attention_heads"] + 2 * config["num_key_value_heads"]
    return hidden * size * heads + 3 * hidden * config["intermediate_size"]


def operations(config: Config, tokens: int, length: int) -> Operations:
    """`tokens` in sequences of `length`. Each weight of a layer takes part in three products
    (output, gradients of input and of weight), one of the head in two (it is not learned). Causal
    attention: half of the two products of forward, and four of backward."""
    layers = config["num_hidden_layers"]
    linears = 2.0 * tokens * layers * layer_weights(config)
    width = config["num_attention_heads"] * head_size(config)
    attention = 2.0 * tokens * length * width * layers  # 2 products x 2 operations / 2
    head = 2.0 * tokens * config["hidden_size"] * config["vocab_size"]
    return Operations(3 * linears + 3 * attention + 2 * head, linears + attention)


def step_seconds(seconds: list[float]) -> float:
    """The median, without the first of several: it has the first touch of all memory."""
    return statistics.median(seconds[1:] or seconds)


def rows(config: Config, tokens: int, length: int, peak: float, runs: dict[str, Any],
         ours: str) -> list[dict[str, Any]]:
    """One per run of {"seconds", "peak_bytes", "start_bytes"}: ratios are ours to that run's (of
    memory: to what it took beyond its libraries)."""
    count = operations(config, tokens, length)
    reference = {name: tokens / step_seconds(run["seconds"]) for name, run in runs.items()}
    result = []
    for name, run in runs.items():
        seconds = step_seconds(run["seconds"])
        result.append({
            "name": name,
            "seconds": seconds,
            "tokens_per_second": reference[name],
            "share_of_peak": count.needed / seconds / peak,
            "share_with_recomputed": (count.needed + count.recomputed) / seconds / peak,
            "peak_bytes": run["peak_bytes"],
            "speed_ratio": reference[ours] / reference[name],
            "memory_ratio": runs[ours]["peak_bytes"] / (run["peak_bytes"] - run["start_bytes"]),
        })
    return result
