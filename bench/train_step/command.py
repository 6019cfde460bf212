"""Command line of `bench/train-step`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .arithmetic import rows

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
OURS = "qnpu"
TEXT = """Times one learning step of stage one, by qnpu and as plain PyTorch does it, one after the
other, and prints a Markdown table. PyTorch lives in an environment of its own:
python3 -m venv .venv-bench && .venv-bench/bin/pip install -r scripts/requirements-bench.txt"""


class Failed(Exception):
    """One sentence."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/train-step", description=TEXT)
    parser.add_argument("--model", type=Path, required=True, help="Llama checkpoint folder")
    parser.add_argument("--tokens", type=int, default=2048, help="of a step: one sequence")
    parser.add_argument("--steps", type=int, default=4, help="of each; the first does not count")
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-bench/bin/python",
                        help="one that has torch")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


def run(*command: str | Path) -> dict[str, Any]:
    """The JSON object that it prints. What it says meanwhile is passed on."""
    words = [str(x) for x in command]
    print("$", *words, file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{Path(words[0]).name} ended with code {done.returncode}")
    return json.loads(done.stdout)


def recipe(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "name": "train-step",
        "rotation": {"r1": "hadamard", "r2": "hadamard"},
        "rules": [{"match": "layers.*_proj.weight", "bitwidth": 4}],
        "learn": {"steps": args.steps, "sequences": 1, "length": args.tokens, "rotations": True,
                  "input_scales": True, "weight_scales": True, "loss": "cross_entropy",
                  "optimizer": "sgd"},
    }


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """The text is the project's own documentation: times do not depend on it. Memory is the whole
    command's."""
    threads = ["--threads", str(args.threads)] if args.threads else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.json").write_text(json.dumps(recipe(args)))
        text = "\n".join(x.read_text() for x in sorted((ROOT / "docs").glob("*.md")))
        (folder / "text.txt").write_text(text)
        done = run(ROOT / "build/release/apps/qnpu/qnpu", "quantize", "--model", args.model,
                   "--recipe", folder / "recipe.json", "--calib", folder / "text.txt",
                   "--samples", "1", "--length", str(args.tokens), "--out", folder / "out",
                   "--json", *threads)
        learned = json.loads((folder / "out/report.json").read_text())["learn"]
    return {"seconds": done["learn_seconds"]["learn"], "losses": learned["losses"], "start_bytes": 0,
            "peak_bytes": done["peak_bytes"]}


def reference(args: argparse.Namespace, *options: str) -> dict[str, Any]:
    threads = ["--threads", str(args.threads)] if args.threads else []
    return run(args.python, HERE / "reference.py", "--model", args.model, "--tokens",
               str(args.tokens), "--steps", str(args.steps), *threads, *options)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    config = json.loads((args.model / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = [f"{args.tokens}x{hidden}x{inner}", f"{args.tokens}x{inner}x{hidden}"]
    threads = ["env", f"OMP_NUM_THREADS={args.threads}"] if args.threads else []
    peaks = run(*threads, args.python, HERE / "matmul_peak.py", *shapes)
    runs = {OURS: ours(args),
            "PyTorch": reference(args),
            "PyTorch, checkpointing": reference(args, "--checkpointing")}
    table = rows(config, args.tokens, args.tokens, max(peaks.values()), runs, OURS)
    return {"matmul_peak": peaks, "runs": runs, "rows": table}


def markdown(result: dict[str, Any], tokens: int) -> str:
    lines = [f"| {tokens} tokens a step | s | tokens/s | share of the bf16 peak | with recomputed "
             "layers | peak memory | our speed | our memory |", "|---|---|---|---|---|---|---|---|"]
    for row in result["rows"]:
        lines.append("| {name} | {seconds:.2f} | {tokens_per_second:.0f} | {share_of_peak:.1%} | "
                     "{share_with_recomputed:.1%} | {gigabytes:.2f} GB | x {speed_ratio:.2f} | "
                     "x {memory_ratio:.2f} |".format(gigabytes=row["peak_bytes"] / 1e9, **row))
    peaks = ", ".join(f"{x / 1e9:.0f} GFLOP/s ({shape})"
                      for shape, x in result["matmul_peak"].items())
    return "\n".join([*lines, "", f"bf16 matrix products of PyTorch: {peaks}."])


def main() -> int:
    args = arguments()
    try:
        if not args.python.exists():
            raise Failed(f"there is no {args.python}; `bench/train-step --help` says how to make it")
        result = measure(args)
    except (Failed, OSError) as error:
        print(f"train-step: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if args.json else markdown(result, args.tokens))
    return 0
