"""Recipes as dicts: read, checked and written by the program's own reader (docs/recipes.md)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from quantnpu._core import Error, check_recipe, load_recipe, save_recipe

__all__ = ["check", "load", "names", "save"]

_FOLDER = Path(__file__).parent / "data" / "recipes"

check = check_recipe
save = save_recipe


def names() -> list[str]:
    """Of the recipes that come with the program."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load(name: str | PathLike[str]) -> dict[str, Any]:
    """A recipe by its name, or from a file that ends in .json."""
    path = Path(name)
    if path.suffix != ".json":
        path = _FOLDER / f"{name}.json"
        if str(name) not in names():
            raise Error(f"there is no recipe '{name}'; known are {', '.join(names())}, or give a "
                        "file that ends in .json")
    return load_recipe(path)
