"""What the NPU's compiler itself expects of exported graphs, for a SoC that it has an estimator for.

usage: estimate.py EXPORT --soc SOC [--graphs NAME...]

The estimates are the compiler's own, made while it compiles (QNN's "Performance Estimates", with
profiling_level=detailed); nothing runs, and no device has confirmed them. The figures of a graph in
parts are the sums of its parts'.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from refusal import why_refused
from report import Refused, progress, run_tool
from session import check_version, estimating_socs, open_session, read_dump, soc_named

# The events of the profile, by what they are called here.
EVENTS = {
    "Simulated (Accelerator exec time us)": "microseconds",
    "Simulated (Accelerator exec time us (lower estimate))": "microseconds_lower",
    "Simulated (Accelerator exec time us (upper estimate))": "microseconds_upper",
    "Simulated (Accelerator exec cycles)": "cycles",
    "Input Fill": "input_bytes",
    "Intermediate Fill": "fill_bytes",
    "Intermediate Spill": "spill_bytes",
    "Output Spill": "output_bytes",
    "Missing Ops (Number of Ops with no Costs associated)": "operations_without_cost",
}


def read_profile(path: Path) -> dict[str, int]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {EVENTS[x["Event Identifier"]]: int(x["Time"]) for x in rows
             if x["Event Identifier"] in EVENTS}
    missing = sorted(set(EVENTS.values()) - set(found))
    if missing:
        raise RuntimeError(f"the compiler's profile lacks {', '.join(missing)}")
    return found


def estimate_graph(source: Path, soc: str) -> dict[str, Any]:
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile.csv"
        options = {"profiling_level": "detailed", "profiling_file_path": str(profile),
                   "dump_json_qnn_graph": "1", "json_qnn_graph_dir": folder}
        try:
            open_session(source, soc_named(soc), options=options)
        except Exception as error:  # ONNX Runtime's own types of exceptions have no common base
            reason = why_refused(source, soc_named(soc), str(error))
            raise Refused(f"the compiler refuses {source.stem} for {soc}{reason}") from error
        graph = read_dump(Path(folder))
        return {**read_profile(profile), "operations": graph.operations,
                "float_tensors": len(graph.float_tensors),
                "seconds": round(time.time() - start, 1)}


def sums(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: sum(part[key] for part in parts) for key in parts[0]}


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("export", type=Path)
    parser.add_argument("--soc", required=True)
    parser.add_argument("--graphs", nargs="+", default=["prefill", "decode"])
    o = parser.parse_args()
    check_version()
    if o.soc not in estimating_socs():
        raise Refused(f"the compiler has no estimates for '{o.soc}'; it has for "
                      f"{', '.join(estimating_socs())}")
    about = json.loads((o.export / "export.json").read_text(encoding="utf-8"))
    result: dict[str, Any] = {"soc": o.soc, **soc_named(o.soc)._asdict(),
                              "context": about["context"], "graphs": {}}
    for i, name in enumerate(o.graphs):
        progress(f"estimate {name} for {o.soc}", i, len(o.graphs))
        graph = about["graphs"][name]
        parts = [estimate_graph(o.export / part["file"], o.soc) for part in graph["parts"]]
        result["graphs"][name] = {"rows": graph["rows"], **sums(parts)}
        progress(f"estimate {name} for {o.soc}", i + 1, len(o.graphs))
    return result


if __name__ == "__main__":
    run_tool(main)
