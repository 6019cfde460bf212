"""How each engine is run: a process that prints JSON, whose largest resident memory the system
tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .models import Failed, Files

HERE = Path(__file__).parent
OURS, OPENVINO, LLAMA4, LLAMA8 = "qnpu", "openvino", "llama.cpp-q4_0", "llama.cpp-q8_0"
ENGINES = (OURS, OPENVINO, LLAMA4, LLAMA8)

# Engines whose repacked weights crashed here: they go on without.
plain: set[str] = set()


class Work(NamedTuple):
    prompts: list[int]
    contexts: list[int]
    decode: int


class Done(NamedTuple):
    code: int
    output: str
    peak_bytes: int


def run_process(command: list[str]) -> Done:
    """Linux counts the memory of the process that started it in, so that must stay small: nothing
    large is imported or read there."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with process.stdout as pipe:
            output = pipe.read()
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return Done(process.returncode, output, usage.ru_maxrss * 1024)


def command_of(name: str, files: Files, work: Work, threads: int, root: Path,
               python: Path) -> list[str]:
    lengths = ["--prompts", ",".join(map(str, work.prompts)), "--contexts",
               ",".join(map(str, work.contexts)), "--decode", str(work.decode), "--threads",
               str(threads)]
    if name == OURS:
        return [str(root / "build/release/apps/qnpu/qnpu"), "bench", str(files.artifact), "--json",
                "--repeat", "1", *lengths]
    if name == OPENVINO:
        return [str(python), str(HERE / "run_openvino.py"), str(files.q4_0), *lengths]
    model = files.q4_0 if name == LLAMA4 else files.q8_0
    options = ["--plain"] if name in plain else []
    return [str(python), str(HERE / "run_llama.py"), str(model), *lengths, *options]


def run_engine(name: str, files: Files, work: Work, threads: int, root: Path,
               python: Path) -> dict[str, Any]:
    """What it printed, with "peak_bytes". llama.cpp's repacked weights crash on some CPUs."""
    done = run_process(command_of(name, files, work, threads, root, python))
    if done.code < 0 and name in (LLAMA4, LLAMA8) and name not in plain:
        print(f"{name} was ended by signal {-done.code}: again without repacked weights",
              file=sys.stderr)
        plain.add(name)
        done = run_process(command_of(name, files, work, threads, root, python))
    if done.code != 0:
        raise Failed(f"{name} ended with code {done.code}")
    return json.loads(done.output) | {"peak_bytes": done.peak_bytes, "plain": name in plain}
