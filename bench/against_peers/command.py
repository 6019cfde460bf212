"""Command line of `bench/against-peers`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .engines import ENGINES, OURS, Work, run_engine
from .figures import Run, summary, targets
from .models import MODELS, Failed, Files, cache_bytes, make_files, positions, prefix_length
from .table import markdown

ROOT = Path(__file__).resolve().parents[2]
TEXT = """Times the integer runtime, OpenVINO GenAI and llama.cpp (Q4_0 and Q8_0) on the same weights,
each in a process of its own, in turns, and prints tables of medians with ours / theirs. The peers live
in an environment of their own: python3 -m venv .venv-bench && .venv-bench/bin/pip install -r
scripts/requirements-bench.txt. Model files are made once and kept in --folder. Nothing else should
run meanwhile."""


def numbers(text: str) -> list[int]:
    return [int(x) for x in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/against-peers", description=TEXT)
    parser.add_argument("--model", choices=MODELS, default="smollm2",
                        help="llama-1b: random weights in the shape of Llama 3.2 1B")
    parser.add_argument("--artifact", type=Path, help="of that model; default: made by w4a8kv8")
    parser.add_argument("--prompts", type=numbers, default=[128, 512, 2048])
    parser.add_argument("--contexts", type=numbers, default=[128, 1024, 4096],
                        help="tokens seen before decoding")
    parser.add_argument("--decode", type=int, default=32, help="tokens to decode")
    parser.add_argument("--threads", type=numbers, default=[2, 1])
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are taken")
    parser.add_argument("--engines", default=",".join(ENGINES), help="of: %(default)s")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models/smollm2-135m")
    parser.add_argument("--folder", type=Path, default=ROOT / "out/against-peers")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-bench/bin/python",
                        help="one that has the peers")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser.parse_args()


def chosen_engines(args: argparse.Namespace) -> list[str]:
    names = [OURS, *(x for x in args.engines.split(",") if x != OURS)]
    if unknown := set(names) - set(ENGINES):
        raise Failed(f"no such engine: {', '.join(sorted(unknown))} (known: {', '.join(ENGINES)})")
    return names


def work_of(args: argparse.Namespace, files: Files) -> Work:
    """Lengths, cut to what the artifact has positions for."""
    most = positions(files.artifact) - prefix_length(files.artifact) - args.decode
    return Work([min(x, most) for x in args.prompts], [min(x, most) for x in args.contexts],
                args.decode)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    engines = chosen_engines(args)
    files = make_files(args.model, ROOT, args.folder, args.checkpoint, args.python, args.artifact)
    work = work_of(args, files)
    runs: list[Run] = []
    for i in range(args.rounds):
        for threads in args.threads:
            for name in engines:
                print(f"== round {i + 1} of {args.rounds}: {name}, {threads} threads",
                      file=sys.stderr, flush=True)
                runs.append(Run(name, threads,
                                run_engine(name, files, work, threads, ROOT, args.python)))
    result = summary(runs)
    longest = max(work.prompts + work.contexts) + work.decode
    allowed = files.artifact_bytes() + cache_bytes(files.artifact, longest) + (64 << 20)
    return {"model": args.model, "rounds": args.rounds, "engines": result,
            "targets": targets(args.model, result, allowed)}


def main() -> int:
    args = arguments()
    try:
        if not args.python.exists():
            raise Failed(f"there is no {args.python}; `bench/against-peers --help` says how to "
                         "make it")
        result = measure(args)
    except (Failed, OSError) as error:
        print(f"against-peers: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(result) if args.json else markdown(result))
    return 0
