"""Runs exported graphs on tokens, in the emulator of the NPU or on ONNX Runtime's CPU provider.

usage: emulate.py EXPORT --on htp-emulator|onnxruntime --tokens FILE --out FILE
                  [--soc SOC] [--prefill N]

FILE of --tokens: safetensors with `tokens` int32 [T]. The first --prefill of them (default: all) are
read in pieces of the prefill graph's rows, the others one by one by the decode graph. --out gets
`logits` u16 (u8 of an 8-bit head) [T, V], and what else the graphs put out for the last piece.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from decoder import Decoder, Export, Runner
from report import progress, run_tool
from tensors import read_safetensors, write_safetensors


def open_graph(path: Path, on: str, soc: str) -> Runner:
    if on == "onnxruntime":
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    from session import open_session, soc_named
    return open_session(path.with_name(f"{path.stem}.{soc}.onnx"), soc_named(soc))


def pieces_of(tokens: list[int], prefill: int, rows: int) -> list[tuple[str, list[int]]]:
    """(graph, tokens) in order."""
    whole = [("prefill", tokens[i:min(i + rows, prefill)]) for i in range(0, prefill, rows)]
    return whole + [("decode", [t]) for t in tokens[prefill:]]


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("export", type=Path)
    parser.add_argument("--on", choices=["htp-emulator", "onnxruntime"], default="htp-emulator")
    parser.add_argument("--soc", default="SM8750")
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--prefill", type=int)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    export = Export.load(o.export)
    tokens = [int(t) for t in read_safetensors(o.tokens)["tokens"]]
    prefill = len(tokens) if o.prefill is None else o.prefill
    pieces = pieces_of(tokens, prefill, export.rows("prefill"))
    decoder = Decoder(export, {name: [open_graph(export.folder / part["file"], o.on, o.soc)
                                      for part in export.parts(name)] for name in dict(pieces)})
    step = f"run {len(tokens)} tokens on {o.on}"
    start, done, logits, outputs = time.time(), 0, [], {}
    progress(step, 0, len(tokens))
    for graph, piece in pieces:
        outputs = decoder.step(graph, piece)
        logits.append(outputs.pop("logits")[0][:len(piece)])
        done += len(piece)
        progress(step, done, len(tokens))
    seconds = time.time() - start
    write_safetensors(o.out, {"logits": np.concatenate(logits), **outputs})
    return {"seconds": seconds, "tokens": len(tokens)}


if __name__ == "__main__":
    run_tool(main)
