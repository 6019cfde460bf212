"""The result as Markdown."""

from __future__ import annotations

from typing import Any

from .engines import LLAMA4, LLAMA8, OPENVINO, OURS

TITLES = {OURS: "qnpu", OPENVINO: "OpenVINO GenAI", LLAMA4: "llama.cpp Q4_0",
          LLAMA8: "llama.cpp Q8_0"}


def rate(figures: dict[str, Any], kind: str, length: str, engine: str) -> str:
    text = f"{figures[kind][length]:.1f}"
    return text if engine == OURS else f"{text} (x {figures['ratio'][kind][length]:.2f})"


def thread_table(engines: dict[str, Any], threads: str) -> list[str]:
    columns = {name: by_threads[threads] for name, by_threads in engines.items()}
    titles = [TITLES[name] + (", not repacked" if figures["plain"] else "")
              for name, figures in columns.items()]
    lines = [f"| {threads} threads, tokens/s (ours / theirs) | {' | '.join(titles)} |",
             "|" + "---|" * (1 + len(columns))]
    for kind, label in (("prefill", "prefill {}"), ("decode", "decode at {}")):
        for length in columns[OURS][kind]:
            cells = [rate(figures, kind, length, name) for name, figures in columns.items()]
            lines.append(f"| {label.format(length)} | {' | '.join(cells)} |")
    loads = [f"{x['load_seconds']:.2f}" for x in columns.values()]
    peaks = [f"{x['peak_bytes'] / 1e6:.0f}" for x in columns.values()]
    return [*lines, f"| load, s | {' | '.join(loads)} |", f"| peak memory, MB | {' | '.join(peaks)} |"]


def markdown(result: dict[str, Any]) -> str:
    engines = result["engines"]
    isa = next(iter(engines[OURS].values()))["isa"]
    lines = [f"{result['model']}, medians of {result['rounds']} rounds; ours by {isa}", ""]
    for threads in engines[OURS]:
        lines += [*thread_table(engines, threads), ""]
    for row in result["targets"]:
        verdict = "reached" if row["reached"] else "MISSED"
        lines.append(f"- {row['name']}: {row['measured']:.2f} ({row['wanted']:.2f}): {verdict}")
    return "\n".join(lines)
