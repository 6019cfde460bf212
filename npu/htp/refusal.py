"""Why the compiler refuses a graph, and at which of its sites: from its own log."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

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


def why_refused(source: Path, soc: Soc, error: str) -> str:
    """The end of a sentence: the site, if the log tells one, and the compiler's own words."""
    graph = onnx.load(source, load_external_data=False).graph
    known = {node.name for node in graph.node} | {x for node in graph.node for x in node.output}
    found = complaint_in(verbose_log(source, soc), known)
    last = error.strip().splitlines()[-1]
    if found is None:
        return f": {last}"
    return f" at '{site_of(found[1])}': {found[0]}"
