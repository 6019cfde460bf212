"""Medians of the rounds, ratios, and what was to be reached."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from .engines import LLAMA4, LLAMA8, OPENVINO, OURS

Summary = dict[str, dict[str, Any]]  # engine -> threads -> figures


class Run(NamedTuple):
    """One process; `result` is what it printed, with its peak_bytes."""

    engine: str
    threads: int
    result: dict[str, Any]


def median_rates(results: list[dict[str, Any]], kind: str, key: str) -> dict[str, float]:
    """Tokens per second by length."""
    lengths = [row[key] for row in results[0][kind]]
    return {str(x): statistics.median(row["tokens_per_second"] for result in results
                                      for row in result[kind] if row[key] == x) for x in lengths}


def median_figures(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "prefill": median_rates(results, "prefill", "prompt"),
        "decode": median_rates(results, "decode", "context"),
        "load_seconds": statistics.median(x["load_seconds"] for x in results),
        "peak_bytes": max(x["peak_bytes"] for x in results),
        "isa": results[0].get("isa"),
        "plain": any(x["plain"] for x in results),
    }


def summary(runs: list[Run]) -> Summary:
    """With "ratio" beside each peer's rates: ours / theirs."""
    result: Summary = {}
    for engine, threads in dict.fromkeys((x.engine, x.threads) for x in runs):
        same = [x.result for x in runs if (x.engine, x.threads) == (engine, threads)]
        result.setdefault(engine, {})[str(threads)] = median_figures(same)
    for engine, by_threads in result.items():
        for threads, figures in by_threads.items():
            ours = result[OURS][threads]
            figures["ratio"] = {kind: {x: ours[kind][x] / rate for x, rate in figures[kind].items()}
                                for kind in ("prefill", "decode")}
    return result


class Goal(NamedTuple):
    name: str
    model: str
    kind: str
    length: str
    peers: tuple[str, ...]  # the fastest of them counts
    at_least: float
    amx: bool | None = None  # with AMX, without it, or both


LLAMAS = (LLAMA4, LLAMA8)
GOALS = (
    Goal("prefill 512 / OpenVINO GenAI", "smollm2", "prefill", "512", (OPENVINO,), 3.0, True),
    Goal("prefill 512 / llama.cpp", "smollm2", "prefill", "512", LLAMAS, 8.0, True),
    Goal("prefill 512 / llama.cpp, no AMX", "smollm2", "prefill", "512", LLAMAS, 1.5, False),
    Goal("decode at 128 / best", "smollm2", "decode", "128", (OPENVINO, *LLAMAS), 1.8),
    Goal("prefill 512 / best", "llama-1b", "prefill", "512", (OPENVINO, *LLAMAS), 2.0, True),
    Goal("prefill 512 / llama.cpp, no AMX", "llama-1b", "prefill", "512", LLAMAS, 1.5, False),
    Goal("decode at 128 / best", "llama-1b", "decode", "128", (OPENVINO, *LLAMAS), 1.2),
)
GOAL_THREADS = "2"
LOAD_SECONDS = 0.1


def ratio_rows(model: str, result: Summary) -> list[dict[str, Any]]:
    amx = result[OURS][GOAL_THREADS]["isa"] == "amxint8"
    rows = []
    for goal in GOALS:
        ratios = [result[peer][GOAL_THREADS]["ratio"][goal.kind].get(goal.length)
                  for peer in goal.peers if peer in result]
        if model != goal.model or goal.amx not in (None, amx) or not ratios or None in ratios:
            continue
        rows.append({"name": goal.name, "measured": min(ratios), "wanted": goal.at_least,
                     "reached": min(ratios) >= goal.at_least})
    return rows


def targets(model: str, result: Summary, allowed_bytes: int) -> list[dict[str, Any]]:
    """Those that these runs can tell about. `allowed_bytes`: artifact, KV cache and 64 MB."""
    ours = result[OURS].get(GOAL_THREADS)
    if ours is None:
        return []
    return [*ratio_rows(model, result),
            {"name": "peak memory, MB", "measured": ours["peak_bytes"] / 1e6,
             "wanted": allowed_bytes / 1e6, "reached": ours["peak_bytes"] <= allowed_bytes},
            {"name": "load, s", "measured": ours["load_seconds"], "wanted": LOAD_SECONDS,
             "reached": ours["load_seconds"] <= LOAD_SECONDS}]
