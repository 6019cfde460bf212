"""SmolLM2, or another model, quantized with one step of the method more each time, and evaluated."""

from __future__ import annotations

import copy
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quantnpu

MINMAX = [{"match": "*_proj.weight", "bitwidth": 4, "observer": "minmax"}]


@dataclass
class Step:
    name: str  # of its folder
    label: str  # in figures
    recipe: dict[str, Any]


def chain() -> list[Step]:
    """From rounding to nearest to the recipes `fast` and `default`; each adds to the one before."""
    fast = quantnpu.recipes.load("fast")
    recipe = copy.deepcopy(fast)
    for section in ("prefix", "split", "flatten", "gptq"):
        del recipe[section]
    recipe["rotation"].update(r1="none", r2="none")
    recipe["rules"] = MINMAX
    steps: list[Step] = []

    def add(name: str, label: str, **changes: Any) -> None:
        recipe.update(changes, name=name, description=label)
        steps.append(Step(name, label, copy.deepcopy(recipe)))

    add("nearest", "rounded to nearest")
    add("rotation", "+ rotation R1, R2", rotation=fast["rotation"])
    add("prefix", "+ prefix", prefix=fast["prefix"])
    add("split", "+ channels split", split=fast["split"])
    add("mse", "+ ranges by squared error", rules=fast["rules"])
    add("flatten", "+ rotations flattened", flatten=fast["flatten"])
    steps.append(Step("fast", "+ GPTQ with feedback (fast)", fast))
    default = quantnpu.recipes.load("default")
    steps.append(Step("default", "+ scales and norms tuned (default)", default))
    return steps


@dataclass
class Bench:
    """The program, what it is given, and the folder in which its results lie."""

    program: Path
    model: Path
    calib: list[Path]
    text: Path
    work: Path
    windows: int = 8
    processes: int = 1

    def run(self, *arguments: object) -> dict[str, Any]:
        command = [str(x) for x in (self.program, *arguments, "--json")]
        print("+", *command, flush=True)
        result = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        values: dict[str, Any] = json.loads(result.stdout)
        return values

    def artifact(self, step: Step) -> Path:
        """Quantized, unless it is there from this very recipe."""
        folder = self.work / step.name
        graph = folder / "graph.json"
        if not graph.exists() or json.loads(graph.read_text())["recipe"] != step.recipe:
            path = self.work / f"{step.name}.recipe.json"
            quantnpu.recipes.save(step.recipe, path)
            self.run("quantize", "--model", self.model, "--recipe", path, "--calib", *self.calib,
                     "--processes", self.processes, "--out", folder)
            (self.work / f"{step.name}.eval.json").unlink(missing_ok=True)
        return folder

    def evaluation(self, name: str, model: Path) -> dict[str, Any]:
        path = self.work / f"{name}.eval.json"
        if not path.exists():
            values = self.run("eval", model, "--text", self.text, "--windows", self.windows, "--dtype",
                              "bf16")  # of a checkpoint; an artifact has its own
            path.write_text(json.dumps(values))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def check_work(self) -> None:
        """What lies in the folder must be of the same model and texts: names tell steps apart, no more."""
        given = {"model": str(self.model.resolve()), "calib": [str(x.resolve()) for x in self.calib],
                 "text": str(self.text.resolve()), "windows": self.windows}
        path = self.work / "made_from.json"
        if path.exists() and json.loads(path.read_text()) != given:
            raise SystemExit(f"{self.work} holds results of another model, text or number of windows; "
                             "give another folder as --work, or remove it")
        self.work.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(given))

    def everything(self) -> list[dict[str, Any]]:
        """`label` and `perplexity` of the float model and of each step."""
        self.check_work()
        rows = [("float", "float", self.model)]
        rows += [(step.name, step.label, self.artifact(step)) for step in chain()]
        return [{"label": label, **self.evaluation(name, folder)} for name, label, folder in rows]
