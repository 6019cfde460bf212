"""What many requests say together."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from .clients import Load, Request


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def overtakings(requests: list[Request]) -> list[int]:
    """Of each request: how many that were sent later had their first token earlier."""
    ordered = sorted(requests, key=lambda r: r.sent)
    return [sum(later.first < one.first for later in ordered[i + 1:])
            for i, one in enumerate(ordered)]


def summary(requests: list[Request], load: Load, memory: list[float],
            metrics: dict[str, float]) -> dict[str, Any]:
    """`memory`: at the start, after the warm-up, and from then on to the end."""
    errors = [r.error for r in requests if r.error]
    counted = [r for r in requests if not r.error and r.sent >= load.warm_up]
    first = [r.first - r.sent for r in counted]
    whole = [r.done - r.sent for r in counted]
    by_client = Counter({i: 0 for i in range(load.clients)})
    by_client.update(r.client for r in counted)
    overtaken = overtakings(counted)
    tokens = sum(r.tokens for r in counted)
    return {
        "clients": load.clients, "seconds": load.seconds, "requests": len(counted),
        "errors": len(errors), "first_error": errors[0] if errors else None,
        "tokens_per_second": tokens / max(1e-9, max((r.done for r in counted), default=0)
                                          - load.warm_up),
        "first_token_seconds": {f"p{p}": percentile(first, p / 100) for p in (50, 90, 99)},
        "request_seconds": {f"p{p}": percentile(whole, p / 100) for p in (50, 90, 99)},
        "requests_by_client": {"least": min(by_client.values()), "most": max(by_client.values())},
        "overtaken_by": {"mean": sum(overtaken) / max(1, len(overtaken)),
                         "most": max(overtaken, default=0)},
        "memory_mb": {"start": memory[0], "after_warm_up": memory[1], "end": memory[-1],
                      "most": max(memory)},
        "tokens_by_step": metrics["qnpu_generated_tokens_total"] / max(1, metrics["qnpu_steps_total"])}


def table(result: dict[str, Any]) -> str:
    lines = []
    for key, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number:.2f}" for name, number in value.items())
        elif isinstance(value, float):
            value = f"{value:.2f}"
        lines.append(f"{key:<22}{value}")
    return "\n".join(lines)
