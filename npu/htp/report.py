"""How these tools speak to qnpu: lines of JSON on standard output (apps/qnpu/tool_process.h)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Refused(Exception):
    """One sentence for the user."""


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def progress(step: str, done: int, total: int) -> None:
    _say(progress=[step, done, total])


def run_tool(main: Callable[[], Any]) -> None:
    """Says what `main` returns, or why it could not."""
    try:
        _say(result=main())
    except Refused as refused:
        _say(error=str(refused))
        sys.exit(1)
    except ImportError as missing:
        _say(error=f"the Python package '{missing.name}' is not installed; scripts/setup "
                   "--test-python installs all, or name another Python in QNPU_PYTHON")
        sys.exit(1)


def run_generator(generate: Callable[[Path, list[int], int], list[int]]) -> None:
    """Of a bundle: `BUNDLE --tokens 1,2,3 --count N` on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--count", type=int, default=20)

    def main() -> list[int]:
        o = parser.parse_args()
        return generate(o.bundle, [int(t) for t in o.tokens.split(",")], o.count)

    run_tool(main)
