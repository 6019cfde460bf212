"""Makes the figures of docs/method.md from what the program measures."""

from __future__ import annotations

import argparse
from pathlib import Path

from figures.chain import Bench
from figures.draw import draw_all

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/make-figures", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--calib", type=Path, nargs="+", required=True, help="texts to calibrate with")
    parser.add_argument("--text", type=Path, required=True, help="text to evaluate on")
    parser.add_argument("--windows", type=int, default=8, help="of 2048 tokens (default: 8)")
    parser.add_argument("--processes", type=int, default=1, help="of quantize (default: 1)")
    parser.add_argument("--work", type=Path, default=ROOT / "out/figures",
                        help="artifacts and results; what is there is not made again")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/figures")
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/apps/qnpu/qnpu")
    options = parser.parse_args()
    bench = Bench(options.program, options.model, options.calib, options.text, options.work,
                  options.windows, options.processes)
    rows = bench.everything()
    for row in rows:
        print(f"{row['label']:<36} {row['perplexity']:.4f}")
    draw_all(options.model, options.work, rows, options.text.read_text(), options.out)


if __name__ == "__main__":
    main()
