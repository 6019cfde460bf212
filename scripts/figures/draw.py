"""The figures of docs/method.md: small SVG files, whose text and lines stand out on light and dark pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
import quantnpu
from matplotlib.axes import Axes

from figures.float_model import Array, FloatModel

GREY, BLUE, ORANGE, GREEN = "#808080", "#3d8bd4", "#d9772b", "#4ea35a"
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "quantnpu", "font.family": "sans-serif", "font.size": 9,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "xtick.color": GREY,
    "ytick.color": GREY, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 9, "lines.linewidth": 1.5,
}
PIECES, LENGTH = 6, 160  # paragraphs of the text, and tokens of each, where a figure looks at activations


def shorten(path: Path) -> None:
    """Coordinates, which have six digits, to a tenth of a point: half the size."""
    path.write_text(re.sub(r"-?\d+\.\d{4,}", lambda m: f"{float(m[0]):.1f}", path.read_text()))


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    shorten(path)
    print(f"{path}: {path.stat().st_size} bytes")


def report(artifact: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((artifact / "report.json").read_text())
    return values


def down_inputs(artifact: Path) -> list[dict[str, Any]]:
    """What calibration saw at the inputs of down_proj, by layer."""
    sites = [s for s in report(artifact)["sites"] if s["name"].endswith(".mlp.down_proj.in")]
    return sorted(sites, key=lambda s: int(s["name"].split(".")[1]))


def largest(inputs: list[Array]) -> Array:
    """Of each layer and token: [layers, T]."""
    return np.stack([np.abs(x).max(axis=1) for x in inputs])


def ranges(floats: FloatModel, windows: list[list[int]], work: Path, path: Path) -> int:
    """The largest input of down_proj by layer and by token; returns the layer that stands out most."""
    prefix = quantnpu.load(work / "prefix").prefix
    plain = np.stack([largest(floats.down_inputs(window)) for window in windows])
    behind = np.stack([largest(floats.down_inputs(prefix + window)) for window in windows])
    behind = behind[:, :, len(prefix) :]
    split = [max(-s["min"], s["max"]) for s in down_inputs(work / "split")]
    layer = int((plain.max(axis=(0, 2)) / np.median(plain, axis=(0, 2))).argmax())
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
    for values, label, colour in ((plain.max(axis=(0, 2)), "as it is", ORANGE),
                                  (behind.max(axis=(0, 2)), "behind a prefix", BLUE),
                                  (split, "channels split too", GREEN)):
        left.plot(values, color=colour, label=label)
        print("largest,", label, ":", " ".join(f"{v:.1f}" for v in values))
    left.set(yscale="log", title="by layer, any token", xlabel="layer", ylabel="largest input of down_proj")
    left.legend(loc="upper center", bbox_to_anchor=(0.66, 1.0))
    right.plot(plain[0, layer, :32], "o", color=ORANGE, markersize=4, label="as it is")
    right.plot(behind[0, layer, :32], "o", color=BLUE, markersize=4, label="behind a prefix")
    right.set(title=f"in layer {layer}, token by token", xlabel="position in the text")
    right.legend()
    save(figure, path)
    return layer


def integers(floats: FloatModel, windows: list[list[int]], layer: int, work: Path, path: Path) -> None:
    """How many of the 256 integers of one site are in use."""
    values = np.concatenate([floats.down_inputs(window, layer + 1)[layer].ravel() for window in windows])
    scale = np.abs(values).max() / 127
    plain = np.bincount(np.rint(values / scale).astype(int) + 128, minlength=256)
    name = f"layers.{layer}.mlp.down_proj.in"
    tokens = [token for window in windows for token in window]
    model = quantnpu.load(work / "split")
    found = quantnpu.statistics(model, tokens, name, length=len(windows[0]))[name]
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True)
    for axis, counts, label, colour in ((axes[0], plain, "range of all tokens", ORANGE),
                                        (axes[1], found.histogram, "behind a prefix, split", GREEN)):
        shares = counts / counts.sum()
        axis.fill_between(np.arange(-128, 128), shares, 1e-6, step="mid", color=colour, linewidth=0.6)
        axis.set(yscale="log", ylim=(1e-6, 2), title=f"{label}: {shares[128]:.1%} are 0", xlabel="integer")
        used = int((shares > 1e-4).sum())
        print(f"{name}, {label}: {shares[128]:.4f} are 0, {used} integers hold above 1e-4 each")
    axes[0].set_ylabel("share of values")
    save(figure, path)


def channels(work: Path, tokens: list[int], layer: int, path: Path) -> None:
    """The largest value of each channel of what q, k and v read, before and behind R1."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6))
    name = f"layers.{layer}.input_layernorm.out"
    for axis, step, label, colour in zip(axes, ("nearest", "rotation"), ("as it is", "rotated by R1"),
                                         (ORANGE, GREEN)):
        model = quantnpu.load(work / step)
        (site,) = model.sites(name)
        values = site.scale * quantnpu.trace(model, tokens, name)[name].astype(np.float64)
        by_channel = np.abs(values).max(axis=0)
        peak = by_channel.max() / np.sqrt((values**2).mean())
        axis.fill_between(np.arange(len(by_channel)), by_channel, step="mid", color=colour, linewidth=0)
        print(f"{name}, {label}: largest {by_channel.max():.2f}, {peak:.1f} times the rms")
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
        axis.text(value * 1.04, i, f"{value:,.0f}" if value > 1000 else f"{value:.1f}", va="center")
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
    names = [text["text"].removesuffix(".txt")
             for text in texts]
    y = np.arange(len(texts))
    axis.barh(y - 0.2, [t["before"] for t in texts], height=0.38, color=ORANGE, label="before")
    axis.barh(y + 0.2, [t["after"] for t in texts], height=0.38, color=GREEN, label="after")
    axis.set_yticks(y, names)
    axis.set(title="on text held back")
    axis.invert_yaxis()
    axis.legend()


def draw_all(model: Path, work: Path, rows: list[dict[str, Any]], text: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = quantnpu.Tokenizer.load(work / "fast")
    paragraphs = (tokenizer.encode(line) for line in text.splitlines())
    windows = [p[:LENGTH] for p in paragraphs if len(p) >= LENGTH][:PIECES]
    floats = FloatModel(model)
    with plt.rc_context(STYLE):
        layer = ranges(floats, windows, work, out / "ranges.svg")
        integers(floats, windows, layer, work, out / "integers.svg")
        channels(work, windows[0], layer, out / "channels.svg")
        steps(rows, out / "steps.svg")
        tuning(work, out / "tuning.svg")
