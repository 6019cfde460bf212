"""Compiles exported graphs into context binaries for one SoC, and says what the compiler made.

usage: compile.py EXPORT --soc SOC [--share] [--graphs NAME...]

Writes GRAPH.SOC.onnx (EPContext) and the binaries into EXPORT. With --share all graphs lie in one
binary and share their weights; the emulator cannot load such a binary, phones can.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from report import Refused, progress, run_tool
from session import check_version, open_session, read_dump, soc_named


def site_of(tensor: str) -> str:
    """The exporter names tensors and nodes by sites, with a suffix behind a slash."""
    return tensor.split("/")[0]


def compile_graph(source: Path, target: Path, soc: str, config: dict[str, str]) -> dict[str, Any]:
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        options = {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": folder}
        config = {"ep.context_enable": "1", "ep.context_embed_mode": "0",
                  "ep.context_file_path": str(target), **config}
        try:
            open_session(source, soc_named(soc), config, options)
        except Exception as error:  # ONNX Runtime's own types of exceptions have no common base
            lines = str(error).strip().splitlines()
            raise Refused(f"the compiler refuses {source.name} for {soc}: {lines[-1]}") from error
        graph = read_dump(Path(folder))
    if graph.float_tensors:
        sites = sorted({site_of(x) for x in graph.float_tensors})
        raise Refused(f"the compiler keeps float tensors of {source.name} for {soc}, at "
                      f"{', '.join(sites[:5])}{' ...' if len(sites) > 5 else ''}")
    return {"operations": graph.operations, "tensors": graph.tensors, "float_tensors": 0,
            "seconds": round(time.time() - start, 1),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("export", type=Path)
    parser.add_argument("--soc", required=True)
    parser.add_argument("--share", action="store_true")
    parser.add_argument("--graphs", nargs="+", default=["prefill", "decode"])
    o = parser.parse_args()
    check_version()
    about = json.loads((o.export / "export.json").read_text(encoding="utf-8"))
    for stale in o.export.glob(f"*.{o.soc}*"):
        stale.unlink()
    result: dict[str, Any] = {"soc": o.soc, **soc_named(o.soc)._asdict(), "graphs": {}}
    for i, name in enumerate(o.graphs):
        progress(f"compile {name} for {o.soc}", i, len(o.graphs))
        last = i + 1 == len(o.graphs)
        config = {"ep.share_ep_contexts": "1"} if o.share else {}
        if o.share and last:
            config["ep.stop_share_ep_contexts"] = "1"
        source = o.export / about["graphs"][name]["file"]
        target = o.export / f"{source.stem}.{o.soc}.onnx"
        result["graphs"][name] = {"file": target.name,
                                  **compile_graph(source, target, o.soc, config)}
        progress(f"compile {name} for {o.soc}", i + 1, len(o.graphs))
    result["binaries"] = {x.name: x.stat().st_size for x in o.export.glob(f"*.{o.soc}*.bin")}
    return result


if __name__ == "__main__":
    run_tool(main)
