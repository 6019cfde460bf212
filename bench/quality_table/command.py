"""Command line of `bench/quality`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .measure import Failed, Measurement, Result, Setup
from .rows import LISTED, Row, chosen_tables
from .table import markdown

ROOT = Path(__file__).resolve().parents[2]
TEXT = """Quantizes a model by each recipe and prints a Markdown table: perplexity, KL divergence
and top-1 agreement with the float model on two texts, accuracies on tasks, and the paper's own
figures. What is made is kept in --out, and made again only if the programs, the recipe, the model
or a file given here have changed."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/quality", description=TEXT)
    files = {"type": Path, "nargs": "+", "action": "extend", "metavar": "FILE"}
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--calib", **files, required=True, help="texts to calibrate with")
    parser.add_argument("--wikitext", type=Path, required=True, help="WikiText-2, validation")
    parser.add_argument("--c4", type=Path, required=True, help="text of C4")
    parser.add_argument("--tasks", **files, default=[], help="JSON lines of questions")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--recipes", help="names, with commas; default: the list in rows.py")
    which.add_argument("--all", action="store_true", help="every recipe of recipes/")
    parser.add_argument("--out", type=Path, default=Path("out/quality"))
    parser.add_argument("--windows", type=int, default=8, help="of each text, at most")
    parser.add_argument("--limit", type=int, default=0, help="questions of each task; 0: all")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


def make_setup(args: argparse.Namespace) -> Setup:
    texts = {"wikitext": args.wikitext, "c4": args.c4}
    return Setup(ROOT / "build/release/apps/qnpu/qnpu", ROOT / "recipes", args.model, args.calib,
                 texts, args.tasks, args.windows, args.limit, args.out)


def chosen_recipes(args: argparse.Namespace, known: set[str]) -> set[str]:
    if args.recipes:
        names = set(args.recipes.split(","))
        if names - known:
            raise Failed(f"no such recipe: {', '.join(sorted(names - known))}")
        return names
    return known if args.all else LISTED


def measure(tables: dict[str, list[Row]], measurement: Measurement) -> dict[str, Result]:
    names = list(dict.fromkeys(row.recipe for rows in tables.values() for row in rows))
    results = {}
    for i, name in enumerate(names):
        print(f"== {name or 'float'}, {i + 1} of {len(names)}", file=sys.stderr)
        results[name] = measurement.everything(name)
        if not name and results[name]["error"]:
            raise Failed(results[name]["error"])  # nothing to compare with
    return results


def report(args: argparse.Namespace) -> None:
    setup = make_setup(args)
    tables = chosen_tables(chosen_recipes(args, {x.stem for x in setup.recipes.glob("*.json")}))
    results = measure(tables, Measurement(setup))
    if args.json:
        rows = [{"table": title, **row._asdict(), **results[row.recipe]}
                for title, rows in tables.items() for row in rows]
        print(json.dumps({"windows": setup.windows, "limit": setup.limit, "rows": rows}))
    else:
        print(markdown(tables, results, list(setup.texts), [x.stem for x in setup.tasks]))


def main() -> int:
    try:
        report(arguments())
    except (Failed, OSError) as error:
        print(f"quality: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("quality: stopped; what is finished is kept", file=sys.stderr)
        return 130
    return 0
