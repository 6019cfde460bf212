"""Compiles exported graphs into context binaries for one SoC, and says what the compiler made.

usage: compile.py EXPORT --soc SOC [--share] [--in-order] [--graphs NAME...]

Writes NAME.SOC.onnx (EPContext) for each part of each graph, and the binaries, into EXPORT. With
--share all graphs of a part lie in one binary and share their weights; the emulator cannot load such
a binary, phones can. With --in-order the names of a graph's parts in the binaries come in order.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from part_order import sources_in_order
from refusal import why_refused
from report import Refused, progress, run_tool
from session import check_version, open_session, read_dump, site_of, soc_named


def compile_graph(name: str, source: Path, target: Path, soc: str,
                  config: dict[str, str]) -> dict[str, Any]:
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        options = {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": folder}
        config = {"ep.context_enable": "1", "ep.context_embed_mode": "0",
                  "ep.context_file_path": str(target), **config}
        try:
            open_session(source, soc_named(soc), config, options)
        except Exception as error:  # ONNX Runtime's own types of exceptions have no common base
            reason = why_refused(source, soc_named(soc), str(error))
            raise Refused(f"the compiler refuses {name} for {soc}{reason}") from error
        graph = read_dump(Path(folder))
    if graph.float_tensors:
        sites = sorted({site_of(x) for x in graph.float_tensors})
        raise Refused(f"the compiler keeps float tensors of {name} for {soc}, at "
                      f"{', '.join(sites[:5])}{' ...' if len(sites) > 5 else ''}")
    return {"operations": graph.operations, "tensors": graph.tensors, "float_tensors": 0,
            "seconds": round(time.time() - start, 1),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def compile_part(folder: Path, sources: dict[str, Path], soc: str, share: bool) -> dict[str, Any]:
    """The same part of several graphs, by name."""
    made = {}
    for i, (name, source) in enumerate(sources.items()):
        config = {"ep.share_ep_contexts": "1"} if share else {}
        if share and i + 1 == len(sources):
            config["ep.stop_share_ep_contexts"] = "1"
        target = folder / f"{name}.{soc}.onnx"
        made[name] = {"file": target.name, **compile_graph(name, source, target, soc, config)}
    return made


def sources_by_part(folder: Path, graphs: list[dict[str, Any]], soc: str,
                    in_order: bool) -> list[dict[str, Path]]:
    """For each part the file of each graph, by name."""
    named = []
    for parts in (graph["parts"] for graph in graphs):
        files = (sources_in_order(folder, parts, soc_named(soc)) if in_order else
                 [folder / part["file"] for part in parts])
        named.append([(part["name"], file) for part, file in zip(parts, files)])
    return [dict(part) for part in zip(*named)]


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("export", type=Path)
    parser.add_argument("--soc", required=True)
    parser.add_argument("--share", action="store_true")
    parser.add_argument("--in-order", action="store_true")
    parser.add_argument("--graphs", nargs="+", default=["prefill", "decode"])
    o = parser.parse_args()
    check_version()
    about = json.loads((o.export / "export.json").read_text(encoding="utf-8"))
    for kind in ("onnx", "bin"):
        for stale in o.export.glob(f"*.{o.soc}*.{kind}"):
            stale.unlink()
    result: dict[str, Any] = {"soc": o.soc, **soc_named(o.soc)._asdict(), "graphs": {}}
    graphs = [about["graphs"][name] for name in o.graphs]
    parts = sources_by_part(o.export, graphs, o.soc, o.in_order)
    for i, sources in enumerate(parts):
        step = f"compile {' and '.join(sources)} for {o.soc}"
        progress(step, i, len(parts))
        try:
            result["graphs"].update(compile_part(o.export, sources, o.soc, o.share))
        finally:
            if o.in_order and len(parts) > 1:
                for copy in sources.values():
                    copy.unlink()
        progress(step, i + 1, len(parts))
    result["binaries"] = {x.name: x.stat().st_size for x in o.export.glob(f"*.{o.soc}*.bin")}
    return result


if __name__ == "__main__":
    run_tool(main)
