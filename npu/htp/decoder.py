"""An exported decoder (docs/export.md) and a loop over its two graphs, whoever runs them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from report import Refused
from tensors import read_safetensors

VISIBLE = 65535


class Runner(Protocol):
    """Of one graph: integers in, integers out."""

    def run(self, outputs: list[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]: ...


@dataclass
class Export:
    """A folder that `qnpu export` wrote."""

    folder: Path
    about: dict[str, Any]
    rope: dict[str, np.ndarray]  # "cos", "sin": all rows of the tables, as the graph stores them

    @classmethod
    def load(cls, folder: Path) -> Export:
        about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        tables = read_safetensors(folder / "rope.safetensors")
        stored = {k: (v.astype(np.int32) + 32768).astype(np.uint16) for k, v in tables.items()}
        return cls(folder, about, stored)

    def parts(self, graph: str) -> list[dict[str, Any]]:
        """In order; what one puts out the next ones may take."""
        return self.about["graphs"][graph]["parts"]

    def rows(self, graph: str) -> int:
        return self.about["graphs"][graph]["rows"]

    @property
    def visible(self) -> int:
        """Positions that a user's tokens can have."""
        return self.about["context"] - self.about["prefix"]


@dataclass
class Cache:
    """Keys and values of the tokens read, filled from the left."""

    export: Export
    length: int = 0
    keys: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        about, size = self.export.about, self.export.visible
        kv, hd = about["kv_heads"], about["head_dim"]
        for _ in range(about["layers"]):
            self.keys.append(np.full((kv, 1, hd, size), 128, np.uint8))
            self.values.append(np.full((kv, 1, size, hd), 128, np.uint8))

    def feeds(self, rows: int) -> dict[str, np.ndarray]:
        names, past = self.export.about["names"], self.export.visible - rows
        feeds = {}
        for layer, (keys, values) in enumerate(zip(self.keys, self.values)):
            feeds[names["past_key"].format(layer)] = np.ascontiguousarray(keys[..., :past])
            feeds[names["past_value"].format(layer)] = np.ascontiguousarray(values[:, :, :past])
        return feeds

    def append(self, outputs: dict[str, np.ndarray], count: int) -> None:
        """The first `count` new rows."""
        names, begin, end = self.export.about["names"], self.length, self.length + count
        for layer, (keys, values) in enumerate(zip(self.keys, self.values)):
            keys[..., begin:end] = outputs[names["new_key"].format(layer)][..., :count]
            values[:, :, begin:end] = outputs[names["new_value"].format(layer)][:, :, :count]
        self.length = end


class Decoder:
    """One sequence, read in pieces of the graphs' rows."""

    def __init__(self, export: Export, graphs: dict[str, list[Runner]]) -> None:
        self.export = export
        self.graphs = graphs  # by name, a runner for each part
        self.cache = Cache(export)

    def step(self, graph: str, tokens: list[int]) -> dict[str, np.ndarray]:
        """All outputs of a graph for at most as many tokens as it has rows."""
        rows, past, count = self.export.rows(graph), self.cache.length, len(tokens)
        if count > rows or past + rows > self.export.visible:
            raise Refused(f"{count} tokens at position {past} do not fit into a graph of {rows} rows "
                          f"and {self.export.visible} positions; take fewer tokens")
        known = {"input_ids": np.array([tokens + [0] * (rows - count)], np.int32),
                 "attention_mask": self._mask(rows, count), **self._positions(rows),
                 **self.cache.feeds(rows)}
        outputs: dict[str, np.ndarray] = {}
        for part, runner in zip(self.export.parts(graph), self.graphs[graph]):
            values = runner.run(None, {x["name"]: known[x["name"]] for x in part["inputs"]})
            outputs.update({x["name"]: value for x, value in zip(part["outputs"], values)})
            known.update(outputs)
        self.cache.append(outputs, count)
        return outputs

    def _mask(self, rows: int, count: int) -> np.ndarray:
        past, visible = self.cache.length, self.export.visible
        mask = np.zeros((1, rows, visible), np.uint16)
        for row in range(count):
            mask[0, row, :past] = VISIBLE
            mask[0, row, visible - rows:visible - rows + row + 1] = VISIBLE
        return mask

    def _positions(self, rows: int) -> dict[str, np.ndarray]:
        first, last = self.cache.length, len(self.export.rope["cos"]) - 1
        ids = np.minimum(np.arange(first, first + rows), self.export.visible - 1)
        at = np.minimum(ids + self.export.about["prefix"], last)
        return {"position_ids": ids[None].astype(np.int32),
                **{f"position_ids_{k}": t[at][None] for k, t in self.export.rope.items()}}
