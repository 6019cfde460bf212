"""Prints the table of scripts/demo: demo_table.py OUT MODEL RECIPE...

Reads OUT/float.eval.json and, of each recipe, OUT/<recipe>.eval.json and .generate.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEADINGS = [
    "model",
    "perplexity",
    "KL div.",
    "top-1",
    "MB on disk",
    "prefill tok/s",
    "decode tok/s",
]


def megabytes(folder: Path) -> float:
    """Of the weights and what describes them, not of calibration text and reports."""
    kept = (".safetensors", "graph.json", "config.json")
    return sum(p.stat().st_size for p in folder.iterdir() if p.name.endswith(kept)) / 1e6


def number(values: dict[str, Any], key: str, digits: int) -> str:
    value = values.get(key)
    return "-" if value is None else f"{value:.{digits}f}"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def row(title: str, name: str, folder: Path, out: Path) -> list[str]:
    evaluation = read(out / f"{name}.eval.json")
    return [
        title,
        number(evaluation, "perplexity", 3),
        number(evaluation, "kl_divergence", 4),
        number(evaluation, "top1_agreement", 3),
        f"{megabytes(folder):.0f}",
        number(evaluation, "prefill_tokens_per_second", 0),
        number(read(out / f"{name}.generate.json"), "decode_tokens_per_second", 1),
    ]


def main() -> None:
    out, model, *recipes = sys.argv[1:]
    rows = [HEADINGS, row("float", "float", Path(model), Path(out))]
    rows += [row(recipe.upper() if "kv8" in recipe else recipe, recipe, Path(out) / recipe, Path(out)) for recipe in recipes]
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    print()
    for cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        print("  ".join([cells[0].ljust(widths[0]), *numbers]))
        if cells is HEADINGS:
            print("  ".join("-" * width for width in widths))


if __name__ == "__main__":
    main()
