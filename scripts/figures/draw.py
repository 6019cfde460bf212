"""The figures of docs/method.md: small SVG files, whose text and lines stand out on light and dark pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
import quantnpu
from matplotlib.axes import Axes

GREY, BLUE, ORANGE, GREEN = "#808080", "#3d8bd4", "#d9772b", "#4ea35a"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "quantnpu", "font.family": "sans-serif", "font.size": 9,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "xtick.color": GREY,
    "ytick.color": GREY, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 9, "lines.linewidth": 1.5,
}
TOKENS = 2048  # of the text, where a figure counts integers
LAYER = 11  # whose input of down_proj is shown; in SmolLM2-135M the first with a massive activation


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    print(f"{path}: {path.stat().st_size} bytes")


def report(artifact: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((artifact / "report.json").read_text())
    return values


def down_inputs(artifact: Path) -> list[dict[str, Any]]:
    """What calibration saw at the inputs of down_proj, by layer."""
    sites = [s for s in report(artifact)["sites"] if s["name"].endswith(".mlp.down_proj.in")]
    return sorted(sites, key=lambda s: int(s["name"].split(".")[1]))


def ranges(work: Path, path: Path) -> None:
    """The largest activation and the SQNR of 8 bits, layer by layer."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
    for step, label, colour in (("rotation", "as it is", ORANGE), ("prefix", "behind a prefix", BLUE),
                                ("split", "channels split too", GREEN)):
        sites = down_inputs(work / step)
        left.plot([max(-s["min"], s["max"]) for s in sites], color=colour, label=label)
        right.plot([s["sqnr"] for s in sites], color=colour)
    left.set(yscale="log", title="largest input of down_proj", xlabel="layer")
    right.set(title="its SQNR at 8 bits, dB", xlabel="layer")
    left.legend()
    save(figure, path)


def integers(work: Path, tokens: list[int], path: Path) -> None:
    """How many of the 256 integers of one site are in use."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True)
    name = f"layers.{LAYER}.mlp.down_proj.in"
    for axis, step, label, colour in zip(axes, ("rotation", "split"), ("as it is", "behind a prefix, split"),
                                         (ORANGE, GREEN)):
        found = quantnpu.statistics(quantnpu.load(work / step), tokens, name)[name]
        axis.bar(np.arange(-128, 128), found.histogram / found.values, width=1.0, color=colour)
        zero = found.histogram[128] / found.values
        axis.set(yscale="log", title=f"{label}: {zero:.0%} are 0", xlabel="integer")
        print(f"{name}, {step}: {zero:.4f} are 0, rms {found.rms:.4f}, step {found.histogram_edges[1] - found.histogram_edges[0]:.4f}")
    axes[0].set_ylabel("share of values")
    save(figure, path)


def channels(work: Path, tokens: list[int], path: Path) -> None:
    """The largest value of each channel of what q, k and v read, before and behind R1."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6))
    name = f"layers.{LAYER}.input_layernorm.out"
    for axis, step, label, colour in zip(axes, ("nearest", "rotation"), ("as it is", "rotated by R1"),
                                         (ORANGE, GREEN)):
        model = quantnpu.load(work / step)
        (site,) = model.sites(name)
        values = site.scale * quantnpu.trace(model, tokens[:512], name)[name].astype(np.float64)
        largest = np.abs(values).max(axis=0)
        peak = largest.max() / np.sqrt((values**2).mean())
        axis.bar(np.arange(len(largest)), largest, width=1.0, color=colour)
        axis.set(title=f"{label}: largest is {peak:.0f} times the rms", xlabel="channel")
    axes[0].set_ylabel("largest value")
    save(figure, path)


def steps(rows: list[dict[str, Any]], path: Path) -> None:
    """Perplexity as each step is added."""
    figure, axis = plt.subplots(figsize=(8, 2.6))
    colours = [GREY, *[ORANGE] * (len(rows) - 3), BLUE, GREEN]
    values = [row["perplexity"] for row in rows]
    axis.barh([row["label"] for row in rows], values, color=colours, height=0.7)
    for i, value in enumerate(values):
        axis.text(value * 1.04, i, f"{value:.4g}", va="center")
    axis.set(xscale="log", xlabel="perplexity, WikiText-2", xlim=(10, max(values) * 2))
    axis.invert_yaxis()
    save(figure, path)


def tuning(work: Path, path: Path) -> None:
    """The loss of each tuning step, and what was gained on texts that were held back."""
    tune = report(work / "default")["tune"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6))
    losses = np.array(tune["losses"])
    left.plot(losses, color=GREY, alpha=0.6)
    left.plot(np.arange(9, len(losses)), np.convolve(losses, np.ones(10) / 10, "valid"), color=GREEN)
    left.set(title="KL divergence while tuning; mean of 10 steps", xlabel="step")
    held(right, tune["held_out"])
    save(figure, path)


def held(axis: Axes, texts: list[dict[str, Any]]) -> None:
    names = [text["text"].removesuffix(".txt").split(".")[-2 if text["text"].count(".") > 2 else 0]
             for text in texts]
    y = np.arange(len(texts))
    axis.barh(y - 0.2, [t["before"] for t in texts], height=0.38, color=ORANGE, label="before")
    axis.barh(y + 0.2, [t["after"] for t in texts], height=0.38, color=GREEN, label="after")
    axis.set_yticks(y, names)
    axis.set(title="on text held back")
    axis.invert_yaxis()
    axis.legend()


def draw_all(work: Path, rows: list[dict[str, Any]], text: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        tokens = quantnpu.Tokenizer.load(work / "fast").encode(text)[:TOKENS]
        ranges(work, out / "ranges.svg")
        integers(work, tokens, out / "integers.svg")
        channels(work, tokens, out / "channels.svg")
        steps(rows, out / "steps.svg")
        tuning(work, out / "tuning.svg")
