"""Files from which the compiler reads the parts of a graph.

Genie takes the parts in the order of the graphs' names in the binaries, and ONNX Runtime makes such
a name from the path of the model, whatever is in it. So the parts lie under paths whose names come
out in order.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from report import Refused
from session import Soc, open_session

TRIES = 24


def write_trifle(path: Path) -> None:
    """A graph that compiles at once."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")], "trifle",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [4, 1])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [4, 1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10),
              path)


def compiled_name(path: Path, soc: Soc) -> str:
    """Of any graph that is read from `path`."""
    write_trifle(path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "context.onnx"
        open_session(path, soc, {"ep.context_enable": "1", "ep.context_file_path": str(target)})
        node = onnx.load(target, load_external_data=False).graph.node[0]
    path.unlink()
    return next(a.s.decode() for a in node.attribute if a.name == "partition_name")


def sources_in_order(folder: Path, parts: list[dict[str, Any]], soc: Soc) -> list[Path]:
    """Copies of the parts' graphs; the files themselves if there is only one."""
    if len(parts) == 1:
        return [folder / parts[0]["file"]]
    sources, last = [], ""
    for part in parts:
        paths = [folder / f"{part['name']}.{i}.onnx" for i in range(TRIES)]
        names = {compiled_name(path, soc): path for path in paths}
        later = [name for name in names if name > last]
        if not later:
            raise Refused(f"no name was found that comes behind the {len(sources)} parts before "
                          f"{part['name']}; export with fewer parts")
        last = min(later)
        sources.append(shutil.copy(folder / part["file"], names[last]))
    return sources
