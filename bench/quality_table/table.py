"""The results as Markdown."""

from __future__ import annotations

from typing import Any

from .rows import FLOAT, REPORTED_MODELS, Row

Result = dict[str, Any]
NONE = "–"


def perplexity(value: float | None, of_float: float | None) -> str:
    """With its ratio to the float model's: 18.61 (1.37)."""
    if value is None:
        return NONE
    digits = f"{value:.2f}" if value < 1e4 else f"{value:.3g}"
    return f"{digits} ({value / of_float:.3g})" if of_float and value != of_float else digits


def percent(share: float | None, error: float | None = None) -> str:
    if share is None:
        return NONE
    return f"{100 * share:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def headings(texts: list[str], tasks: list[str]) -> list[str]:
    cells = ["W-A-KV", "method", "recipe", "MB"]
    for text in texts:
        cells += [f"{text}: perplexity (ratio)", "KL", "top-1 %"]
    for task in tasks:
        cells += [f"{task}: acc %", "acc_norm %"]
    cells += [f"reported, C4, {model} (ratio)" for model in REPORTED_MODELS]
    return [*cells, f"reported, PIQA, {REPORTED_MODELS[0]}", f"ARC-E, {REPORTED_MODELS[0]}"]


def cells_of(row: Row, results: dict[str, Result], texts: list[str], tasks: list[str]) -> list[str]:
    result, of_float = results[row.recipe], results[FLOAT.recipe]
    name = f"`{row.recipe}`" if row.recipe else NONE
    if not result.get("deployable", True):
        name += " (simulator only)"
    if result["error"]:
        name += f": {result['error']}".replace("|", "\\|")
    size = result.get("quantize", {}).get("size_bytes")
    cells = [row.widths, row.method, name, f"{size / 1e6:.0f}" if size else NONE]
    for text in texts:
        values, base = result["texts"].get(text, {}), of_float["texts"].get(text, {})
        kl = values.get("kl_divergence")
        cells.append(perplexity(values.get("perplexity"), base.get("perplexity")))
        cells += [NONE if kl is None else f"{kl:.3f}", percent(values.get("top1_agreement"))]
    for task in tasks:
        values = result["tasks"].get(task, {})
        cells += [percent(values.get(x), values.get(f"{x}_stderr")) for x in ("acc", "acc_norm")]
    cells += [perplexity(*pair) for pair in zip(row.reported, FLOAT.reported)]
    return cells + [percent(x) for x in row.accuracies]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(tables: dict[str, list[Row]], results: dict[str, Result], texts: list[str],
             tasks: list[str]) -> str:
    """`results` by recipe; "" is the float model."""
    parts = []
    for title, rows in tables.items():
        head = headings(texts, tasks)
        lines = [title, "", line(head), "|" + "---|" * len(head)]
        lines += [line(cells_of(row, results, texts, tasks)) for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
