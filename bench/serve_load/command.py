"""Command line of `bench/serve-load`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from .clients import Load, run_clients
from .figures import summary, table
from .server import Failed, Server

ROOT = Path(__file__).resolve().parents[2]
TEXT = """Starts `qnpu serve` and lets many clients (the openai package, streaming) ask it without a pause:
each sends its next prompt, a piece of --text of random length, as soon as its answer is there. Reports
requests, errors, tokens per second, time to the first token, how the clients were treated, and the
server's memory. Nothing else should run meanwhile. Run it by a Python that has scripts/requirements-test.txt:
.venv/bin/python bench/serve-load ..."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/serve-load", description=TEXT)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--text", type=Path, default=ROOT / "testdata/goldens/prose.txt")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--warm-up", type=float, default=20,
                        help="seconds of the longest prompts, which are not counted")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--characters", type=int, default=600, help="of a prompt, at most")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer, at most")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--threads", type=int, help="of the server; default: all cores")
    parser.add_argument("--qnpu", type=Path, default=ROOT / "build/release/apps/qnpu/qnpu")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    options = ["--slots", args.slots, "--context", args.context]
    if args.threads:
        options += ["--threads", args.threads]
    load = Load(args.text.read_text(), args.clients, args.warm_up, args.seconds, args.characters,
                args.tokens)
    try:
        with Server(args.qnpu, args.artifact, options) as server:
            memory = [server.memory()]
            requests = asyncio.run(run_clients(load, server, memory))
            result = summary(requests, load, memory, server.metrics())
    except Failed as error:
        print(f"serve-load: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if args.json else table(result))
    return 1 if result["errors"] else 0
