"""What stands in the table: the recipes in the paper's order, and the paper's own figures.

Figures are those of arXiv 2605.20295, instruct models: Tables 1, 7 and 8; Quant.npu at 0 and 10 %
from Figure 4. Its Table 2 is labelled Llama-3.2-3B, but the float row there is Qwen3-1.7B's of
Table 8; the widths are not stated. Its "dynamic" SpinQuant, we take it, learned with dynamic ranges
and was then made static, as all of that paper's rows are: the 15.61 % of accuracy that this is said
to cost are Quant.npu's less SpinQuant's in Table 7.
"""

from __future__ import annotations

from typing import NamedTuple

REPORTED_MODELS = ("SmolLM2-1.7B", "Llama-3.2-3B", "Qwen2.5-3B", "Qwen3-1.7B")
Figures = tuple[float | None, ...]
NOT_REPORTED: Figures = (None,) * 4


class Row(NamedTuple):
    widths: str  # W-A-KV; without "%" in `method`, every input of down_proj has 16 bits
    method: str
    recipe: str  # name in recipes/; empty: the float model
    reported: Figures = NOT_REPORTED  # perplexity on C4 of REPORTED_MODELS
    accuracies: Figures = (None, None)  # PIQA and ARC-easy of the first of them


FLOAT = Row("float", "float", "", (13.55, 16.85, 13.84, 22.64), (0.7622, 0.5417))
METHODS = [
    Row("4-16-8", "ExecuTorch (LPBQ)", "executorch-w4a16-block",
        (15.35, 18.19, 15.48, 31.52), (0.7595, 0.5362)),
    Row("4-16-8", "Hadamard", "w4a16kv8"),
    Row("8-8-8", "ExecuTorch", "rtn-w8a8", (25.75, 17.76, 14.68, 29.99), (0.7062, 0.5194)),
    Row("8-8-8", "SmoothQuant", "smoothquant-w8a8"),
    Row("8-8-8", "MobileQuant", "mobilequant-w8a8"),
    Row("8-8-8", "QuaRot", "quarot-w8a8", (13.93, 17.06, 14.08, 28.91), (0.7633, 0.5471)),
    Row("8-8-8", "Hadamard, 0 %", "w8a8kv8"),
    Row("8-8-8", "SpinQuant", "spinquant-w8a8", (13.96, 17.18, 14.07, 28.64), (0.7628, 0.5551)),
    Row("8-8-8", "Quant.npu", "quantnpu-w8a8", (13.94, 16.42, 13.82, 22.74), (0.7601, 0.5396)),
    Row("8-8-8", "ours, 0 %", "fast-w8a8"),
    Row("8-8-8", "ours, learned, 0 %", "default-w8a8"),
    Row("4-8-8", "ExecuTorch", "rtn-w4a8", (1.31e7, 26.39, 28901.54, 72.61), (0.6202, 0.4171)),
    Row("4-8-8", "nearest, 0 %", "w4a8kv8-norot"),
    Row("4-8-8", "SmoothQuant", "smoothquant-w4a8"),
    Row("4-8-8", "MobileQuant", "mobilequant-w4a8"),
    Row("4-8-8", "QuaRot", "quarot-w4a8", (120.06, 30.06, 19.96, 429.09), (0.5794, 0.3283)),
    Row("4-8-8", "QuaRot, online R3 R4", "quarot-online-w4a8"),
    Row("4-8-8", "Hadamard, 0 %", "w4a8kv8"),
    Row("4-8-8", "SpinQuant", "spinquant-w4a8", (67.05, 28.78, 20.61, 548.10), (0.6317, 0.3662)),
    Row("4-8-8", "Quant.npu, 0 %", "quantnpu-w4a8-down0", (None, 27.54, None, None)),
    Row("4-8-8", "Quant.npu, 10 %", "quantnpu-w4a8-down10", (None, 19.79, None, None)),
    Row("4-8-8", "Quant.npu", "quantnpu-w4a8", (18.61, 19.16, 16.02, 31.68), (0.7312, 0.4865)),
    Row("4-8-8", "ours, 0 %", "fast"),
    Row("4-8-8", "ours, 0 %, head of 4 bits", "fast-head4"),
    Row("4-8-8", "ours, learned, 0 %", "default"),
    Row("4-8-8", "ours, learned, 10 %", "default-down10"),
    Row("4-8-8", "ours, learned", "default-down100"),
    Row("4-4-8", "ExecuTorch", "rtn-w4a4", (5.33e7, 6950.81, 415330, 491615), (0.5016, 0.25)),
    Row("4-4-8", "QuaRot", "quarot-w4a4", (8553.56, 481.82, 97.01, 6898.98), (0.5163, 0.2563)),
    Row("4-4-8", "SpinQuant", "spinquant-w4a4",
        (4283.87, 528.97, 101.85, 5018.61), (0.4989, 0.2529)),
    Row("4-4-8", "Quant.npu", "quantnpu-w4a4", (23.56, 21.76, 17.96, 36.25), (0.6948, 0.4541)),
    Row("4-4-8", "ours", "fast-w4a4"),
    Row("4-4-8", "ours, learned", "default-w4a4"),
]
ABLATION = [
    Row("4-8-8", method, recipe, (None, None, None, perplexity))
    for method, recipe, perplexity in (
        ("SpinQuant, dynamic", "spinquant-dynamic-w4a8", None),
        ("SpinQuant, learned dynamic, static", "spinquant-w4a8-down0", 1187.69),
        ("static, rotations learned", "ablation-r", 150.58),
        ("scales learned as well", "ablation-r-scales", 69.65),
        ("+ initialisation", "ablation-init", 36.42),
        ("+ selective optimisation", "quantnpu-w4a8-down0", 30.89),
        ("+ 10 % at 16 bits", "quantnpu-w4a8-down10", 22.09),
        ("+ 100 % at 16 bits", "quantnpu-w4a8", 21.56),
        ("100 % at 16 bits alone", "ablation-high-precision", 31.16),
    )
]
LISTED = {row.recipe for row in METHODS + ABLATION}


def chosen_tables(names: set[str]) -> dict[str, list[Row]]:
    """The rows of these recipes by table, without empty tables."""
    tables = {
        "Methods (Table 1 of the paper)": [row for row in METHODS if row.recipe in names],
        "Ablation (Table 2 of the paper)": [row for row in ABLATION if row.recipe in names],
        "Other recipes": [Row("", name, name) for name in sorted(names - LISTED)],
    }
    return {title: [FLOAT, *rows] for title, rows in tables.items() if rows}
