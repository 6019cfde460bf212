"""Compiles exported graphs into a context binary for one SoC, and says what the compiler made.

usage: compile.py EXPORT --soc SOC [--share] [--json FILE]

Writes GRAPH.SOC.onnx (EPContext) and the binaries into EXPORT. With --share both graphs lie in one
binary and share their weights. Exit code 1 and one sentence if a graph does not go to the NPU whole.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from session import Refused, check_version, open_session, read_dump, soc_named


def compile_graph(source: Path, target: Path, soc: str, config: dict[str, str]) -> dict[str, Any]:
    target.unlink(missing_ok=True)
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        options = {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": folder,
                   "enable_framework_op_trace": "1", "framework_op_trace_dir": folder}
        open_session(source, soc_named(soc), {
            "ep.context_enable": "1", "ep.context_embed_mode": "0",
            "ep.context_file_path": str(target), **config}, options)
        graph = read_dump(Path(folder))
    return {"operations": graph.operations, "tensors": graph.tensors,
            "float_tensors": graph.float_tensors, "seconds": round(time.time() - start, 1),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("export", type=Path)
    parser.add_argument("--soc", required=True)
    parser.add_argument("--share", action="store_true")
    parser.add_argument("--graphs", nargs="+", default=["prefill", "decode"])
    o = parser.parse_args()
    check_version()
    about = json.loads((o.export / "export.json").read_text(encoding="utf-8"))
    result = {}
    for i, name in enumerate(o.graphs):
        config = {"ep.share_ep_contexts": "1"} if o.share else {}
        if o.share and i + 1 == len(o.graphs):
            config["ep.stop_share_ep_contexts"] = "1"
        source = o.export / about["graphs"][name]["file"]
        target = o.export / f"{source.stem}.{o.soc}.onnx"
        result[name] = compile_graph(source, target, o.soc, config)
        print(name, {k: v for k, v in result[name].items() if k != "float_tensors"},
              len(result[name]["float_tensors"]), file=sys.stderr)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(f"error: {refused}")
