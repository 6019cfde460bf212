"""Sessions of ONNX Runtime with Qualcomm's HTP compiler and its emulator (package onnxruntime-qnn).

Everything here is the packages' documented use; what is known of the compiler stands in
docs/numerics.md and docs/export.md.
"""

from __future__ import annotations

import json
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime as ort
import onnxruntime_qnn as qnn

from report import Refused

QNN_VERSION = "2.7.0"  # what the arithmetic was measured with

# QNN's numbers of fp16 and fp32: a tensor of these means that integers were left.
FLOAT_TYPES = {534: "fp16", 562: "fp32"}


TARGETS = Path(__file__).resolve().parents[2] / "targets"


class Soc(NamedTuple):
    soc_model: int
    htp_arch: str  # "v79"


def _targets() -> list[dict[str, Any]]:
    return [json.loads(x.read_text(encoding="utf-8")) for x in sorted(TARGETS.glob("*.json"))]


def socs() -> dict[str, Soc]:
    """By name, from the files of targets/."""
    return {x["name"]: Soc(x["soc_model"], x["htp_arch"]) for x in _targets()}


def estimating_socs() -> list[str]:
    """Names of those that the compiler has an estimator for."""
    return [x["name"] for x in _targets() if x.get("estimates", False)]


def soc_named(name: str) -> Soc:
    known = socs()
    if name not in known:
        raise Refused(f"the SoC '{name}' is not known; known are {', '.join(known)}")
    return known[name]


def check_version() -> None:
    found = metadata.version("onnxruntime-qnn")
    if found != QNN_VERSION:
        raise Refused(f"onnxruntime-qnn {found} is installed, but {QNN_VERSION} is what was "
                      f"measured; install it with pip install onnxruntime-qnn=={QNN_VERSION}")


def _device() -> ort.OrtEpDevice:
    def devices() -> list[ort.OrtEpDevice]:
        return [d for d in ort.get_ep_devices() if "QNN" in d.ep_name]

    if not devices():
        ort.register_execution_provider_library("QNN", qnn.get_library_path())
    return devices()[0]


def site_of(name: str) -> str:
    """The exporter names tensors and nodes by sites, with a suffix behind a slash."""
    return name.split("/")[0]


def open_session(path: Path, soc: Soc, config: dict[str, str] | None = None,
                 options: dict[str, str] | None = None, log_level: int = 3) -> ort.InferenceSession:
    """Compiles a QDQ graph, or loads a compiled one. Nothing may fall back to the CPU."""
    session = ort.SessionOptions()
    session.log_severity_level = log_level
    session.intra_op_num_threads = 1
    for key, value in {"session.disable_cpu_ep_fallback": "1", **(config or {})}.items():
        session.add_session_config_entry(key, value)
    session.add_provider_for_devices([_device()], {
        "backend_path": qnn.get_qnn_htp_path(),
        "htp_graph_finalization_optimization_mode": "3",
        "soc_model": str(soc.soc_model),
        "htp_arch": soc.htp_arch.removeprefix("v"),
        **(options or {}),
    })
    return ort.InferenceSession(path, session)


class DumpedGraph(NamedTuple):
    """What the compiler was given, as it says itself."""
    operations: int
    tensors: int
    float_tensors: list[str]


def read_dump(folder: Path) -> DumpedGraph:
    """Of the option json_qnn_graph_dir."""
    operations, tensors, floats = 0, 0, []
    for path in sorted(folder.glob("*.json")):
        graph = json.loads(path.read_text(encoding="utf-8")).get("graph")
        if graph is None:
            continue
        operations += len(graph["nodes"])
        tensors += len(graph["tensors"])
        floats += [name for name, tensor in graph["tensors"].items()
                   if tensor["data_type"] in FLOAT_TYPES]
    if not operations:
        raise RuntimeError("the compiler wrote no graph to look for float tensors in")
    return DumpedGraph(operations, tensors, floats)


def open_integer_session(path: Path, soc: Soc) -> ort.InferenceSession:
    """Compiles; raises RuntimeError if a float tensor is left."""
    with tempfile.TemporaryDirectory() as folder:
        dump = {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": folder}
        session = open_session(path, soc, options=dump)
        floats = read_dump(Path(folder)).float_tensors
        if floats:
            raise RuntimeError(f"the compiler kept float tensors: {floats}")
        return session
