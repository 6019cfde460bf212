"""Runs exported graphs on tokens, in the emulator of the NPU or on ONNX Runtime's CPU provider.

usage: emulate.py EXPORT --on htp-emulator|onnxruntime --soc SOC --tokens FILE --out FILE
                  [--prefill N] [--greedy N]

FILE of --tokens: safetensors with `tokens` int32 [T]. The first --prefill of them (default: all) are
read in pieces of the prefill graph's rows, the others one by one. --out gets what the graphs put
out for each token, in order: `logits` u16 [T, V], and in a graph that traces, `site.<name>`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from decoder import Decoder, Export, Runner
from tensors import read_safetensors, write_safetensors


def open_graph(path: Path, on: str, soc: str) -> Runner:
    if on == "onnxruntime":
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    from session import open_session, soc_named
    compiled = path.with_name(f"{path.stem}.{soc}.onnx")
    return open_session(compiled if compiled.exists() else path, soc_named(soc))


def main() -> None:
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
    graphs: dict[str, Runner] = {}
    if prefill:
        graphs["prefill"] = open_graph(export.path("prefill"), o.on, o.soc)
    if prefill < len(tokens):
        graphs["decode"] = open_graph(export.path("decode"), o.on, o.soc)
    decoder = Decoder(export, graphs)
    rows, start, logits = export.rows("prefill"), time.time(), []
    pieces = [("prefill", tokens[i:min(i + rows, prefill)]) for i in range(0, prefill, rows)]
    pieces += [("decode", [t]) for t in tokens[prefill:]]
    done = 0
    for graph, piece in pieces:
        outputs = decoder.step(graph, piece)
        logits.append(outputs["logits"][0][:len(piece)])
        done += len(piece)
        print(f"emulate {done} of {len(tokens)}", file=sys.stderr, flush=True)
    write_safetensors(o.out, {"logits": np.concatenate(logits)},
                      {"seconds": f"{time.time() - start:.3f}"})


if __name__ == "__main__":
    main()
