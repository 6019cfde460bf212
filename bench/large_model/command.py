"""Command line of `bench/large-model`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .random_model import LLAMA_1B, Config, make_random_model

ROOT = Path(__file__).resolve().parents[2]
BOUND = 8e9  # bytes
TEXT = """Makes a model of the Llama 3.2 1B shape with random weights (kept in --folder: 2.5 GB),
quantizes it by the recipe fast, and prints the largest resident memory and the seconds of each step.
Ends with 1 if it took more than 8 GB."""


class Failed(Exception):
    """One sentence."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/large-model", description=TEXT)
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models/smollm2-135m",
                        help="checkpoint folder whose tokenizer the model gets")
    parser.add_argument("--folder", type=Path, default=ROOT / "out/large-model")
    parser.add_argument("--layers", type=int, default=LLAMA_1B["num_hidden_layers"])
    parser.add_argument("--samples", type=int, default=8, help="windows of calibration text")
    parser.add_argument("--length", type=int, default=512, help="tokens of each")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the lines")
    return parser.parse_args()


def quantize(args: argparse.Namespace, model: Path) -> dict[str, Any]:
    """What `qnpu quantize` reports. The text is the project's own documentation: memory does not
    depend on it."""
    text = args.folder / "text.txt"
    text.write_text("\n".join(x.read_text() for x in sorted((ROOT / "docs").glob("*.md"))))
    command = [ROOT / "build/release/apps/qnpu/qnpu", "quantize", "--model", model,
               "--recipe", ROOT / "recipes/fast.json", "--calib", text,
               "--samples", args.samples, "--length", args.length,
               "--out", args.folder / "artifact", "--json"]
    words = [str(x) for x in command]
    print("$", *words, file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"qnpu ended with code {done.returncode}")
    return json.loads(done.stdout)


def lines(config: Config, result: dict[str, Any]) -> list[str]:
    peak = result["peak_bytes"]
    verdict = "within" if peak <= BOUND else "ABOVE"
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in result["step_seconds"].items()
                      if name != "total")
    return [f"{config['num_hidden_layers']} layers of {config['hidden_size']} x "
            f"{config['intermediate_size']}, {config['vocab_size']} tokens",
            f"peak memory {peak / 1e9:.2f} GB: {verdict} {BOUND / 1e9:.0f} GB",
            f"{result['seconds']:.0f} s: {steps}"]


def main() -> int:
    args = arguments()
    config = LLAMA_1B | {"num_hidden_layers": args.layers}
    try:
        model = args.folder / "model"
        make_random_model(model, config, args.tokenizer)
        result = quantize(args, model)
    except (Failed, OSError) as error:
        print(f"large-model: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if args.json else "\n".join(lines(config, result)))
    return 0 if result["peak_bytes"] <= BOUND else 1
