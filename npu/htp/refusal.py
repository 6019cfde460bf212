"""Why the compiler refuses a graph, and at which of its sites: from its own log."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import helper

from session import Soc, open_session, site_of


@contextmanager
def standard_error_in(file: int) -> Iterator[None]:
    """Libraries write there by themselves, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def verbose_log(source: Path, soc: Soc) -> str:
    """Of a second try."""
    with tempfile.TemporaryFile() as log:
        with standard_error_in(log.fileno()):
            try:
                open_session(source, soc, log_level=0)
            except Exception:  # as the first time
                pass
        log.seek(0)
        return log.read().decode("utf-8", errors="replace")


def names_in(text: str, known: set[str]) -> list[str]:
    """Nodes and tensors of the graph that a text mentions; the compiler may add a number to them."""
    words = re.findall(r"[A-Za-z0-9_./]+", text)
    found = [next((x for x in (word.rstrip("."), re.sub(r"_\d+$", "", word.rstrip(".")))
                   if x in known), None) for word in words]
    return [name for name in found if name]


def complaint_in(log: str, known: set[str]) -> tuple[str, str] | None:
    """(message, name): of an operation that no rule of the compiler takes, else of the first error
    that names one."""
    for block in re.findall(r"Validation FAILED.*?(?:\n\n|\Z)", log, re.S):
        reason = re.search(r"REASON : *(.*)", block)
        nodes = [name for name in names_in(block.split("REASON")[0], known)
                 if not name.endswith(("/dequantize", "/quantize"))]
        if reason and nodes:
            return reason[1].strip(), nodes[0]
    for line in log.splitlines():
        names = names_in(line, known) if re.search(r"\[E:|ERROR|[Ff]ailed", line) else []
        if names:
            return re.sub(r"^.*?\] ", "", line).removesuffix("\x1b[m").strip(), names[0]
    return None


def first_nodes(model: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """A graph of the first nodes; what they store and none of them reads is put out."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    del graph.node[count:]
    outputs = {x.name for x in graph.output}
    for i in reversed(range(count)):
        read = {x for node in graph.node for x in node.input} | outputs
        if graph.node[i].op_type == "DequantizeLinear" and graph.node[i].output[0] not in read:
            del graph.node[i]
    read = {x for node in graph.node for x in node.input}
    types = {x.name: x.data_type for x in graph.initializer}
    stored = {node.output[0]: types[node.input[2]] for node in graph.node
              if node.op_type == "QuantizeLinear"}
    kept = [x for x in graph.output if x.name in stored]
    kept += [helper.make_tensor_value_info(name, kind, None) for name, kind in stored.items()
             if name not in read | outputs]
    inputs = [x for x in graph.input if x.name in read]
    for values, wanted in ((graph.output, kept), (graph.input, inputs)):
        del values[:]
        values.extend(wanted)
    return part


def first_refused(model: onnx.ModelProto, compiles: Callable[[onnx.ModelProto], bool]) -> str:
    """The stored tensor up to which the graph must go for the compiler to refuse it."""
    ends = [i + 1 for i, node in enumerate(model.graph.node) if node.op_type == "QuantizeLinear"]
    good, bad = -1, len(ends) - 1  # the whole graph is refused
    while bad - good > 1:
        middle = (good + bad) // 2
        if compiles(first_nodes(model, ends[middle])):
            good = middle
        else:
            bad = middle
    return model.graph.node[ends[bad] - 1].output[0]


def compiles_beside(source: Path, soc: Soc) -> Callable[[onnx.ModelProto], bool]:
    """Weights lie beside the source."""
    path = source.with_name(f"{source.stem}.first.onnx")

    def compiles(model: onnx.ModelProto) -> bool:
        try:
            onnx.save(model, path)
            open_session(path, soc)
            return True
        except Exception:  # as the whole
            return False
        finally:
            path.unlink(missing_ok=True)

    return compiles


def why_refused(source: Path, soc: Soc, error: str) -> str:
    """The end of a sentence: the site, and the compiler's own words. Where its log names no site, it
    is searched for by compiling the graph's beginning."""
    model = onnx.load(source, load_external_data=False)
    nodes = model.graph.node
    known = {node.name for node in nodes} | {x for node in nodes for x in node.output}
    found = complaint_in(verbose_log(source, soc), known)
    if found is None:
        message = error.strip().splitlines()[-1]
        found = message, first_refused(model, compiles_beside(source, soc))
    return f" at '{site_of(found[1])}': {found[0]}"
