"""Runs qnpu for one recipe after another and keeps every result with what it was made from."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]
FLOAT = ("--dtype", "bf16")  # of the float model: what such a model is published in and runs in


class Failed(Exception):
    """qnpu's own sentence about an error."""


@dataclass(frozen=True)
class Setup:
    qnpu: Path
    recipes: Path  # folder
    model: Path
    calibration: list[Path]
    texts: dict[str, Path]  # by name: "wikitext", "c4"
    tasks: list[Path]
    windows: int
    limit: int  # items of a task; 0: all
    out: Path


def run_qnpu(program: Path, *arguments: str | Path) -> Result:
    """Its JSON object. What it says meanwhile is passed on."""
    command = [str(x) for x in (program, *arguments, "--json")]
    print("$", *command, file=sys.stderr, flush=True)
    sentence = ""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout and process.stderr
        for line in process.stderr:
            sys.stderr.write(line)
            sentence = line.strip()
        answer = process.stdout.read()
    if process.returncode in (130, 143):
        raise KeyboardInterrupt
    if process.returncode != 0:
        known = sentence.startswith("qnpu: error: ")
        code = f"qnpu ended with code {process.returncode}"
        raise Failed(sentence.removeprefix("qnpu: error: ") if known else code)
    return json.loads(answer)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: Path | str) -> str:
    """Of the contents of files, of a model folder's files, and of other values."""
    digests = []
    for part in parts:
        if not isinstance(part, Path):
            digests.append(str(part))
        elif part.is_dir():
            files = sorted(x for x in part.iterdir() if x.suffix in (".json", ".safetensors"))
            digests += [f"{x.name} {file_digest(x)}" for x in files]
        else:
            digests.append(file_digest(part))
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def read_steps(store: Path) -> dict[str, Any]:
    return json.loads(store.read_text()) if store.is_file() else {}


def write_steps(store: Path, steps: dict[str, Any]) -> None:
    partial = store.with_suffix(".partial")
    partial.write_text(json.dumps(steps, indent=1) + "\n")
    partial.replace(store)


def kept(store: Path, step: str, made_from: str, make: Callable[[], Result]) -> Result:
    """The result of `step` in the file `store` if it was made from the same, else a new one."""
    entry = read_steps(store).get(step)
    if entry and entry["made_from"] == made_from:
        return entry["result"]
    result = make()
    write_steps(store, {**read_steps(store), step: {"made_from": made_from, "result": result}})
    return result


def forget(store: Path, step: str) -> None:
    steps = read_steps(store)
    if steps.pop(step, None):
        write_steps(store, steps)


class Measurement:
    """Of the models of one setup. A model is a recipe's name, or "" for the float model."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        programs = (setup.qnpu, setup.qnpu.with_name("qnpu-learn"))
        self.float_made_from = fingerprint(*programs, setup.model)
        setup.out.mkdir(parents=True, exist_ok=True)

    def run(self, *arguments: str | Path) -> Result:
        return run_qnpu(self.setup.qnpu, *arguments)

    def store(self, recipe: str) -> Path:
        return self.setup.out / f"{recipe or 'float'}.json"

    def logits_file(self, text: str) -> Path:
        return self.setup.out / f"float.{text}.logits"

    def made_from(self, recipe: str) -> str:
        if not recipe:
            return self.float_made_from
        path = self.setup.recipes / f"{recipe}.json"
        return fingerprint(self.float_made_from, path, *self.setup.calibration)

    def quantize(self, recipe: str) -> Result:
        calibration = [x for path in self.setup.calibration for x in ("--calib", path)]
        return kept(self.store(recipe), "quantize", self.made_from(recipe), lambda: self.run(
            "quantize", "--model", self.setup.model, "--recipe", recipe,
            "--out", self.setup.out / recipe, *calibration))

    def folder(self, recipe: str) -> Path:
        """The model's; an artifact that was deleted since is made again."""
        if not recipe:
            return self.setup.model
        folder = self.setup.out / recipe
        if not folder.is_dir():
            forget(self.store(recipe), "quantize")
        self.quantize(recipe)
        return folder

    def float_logits(self, text: str) -> Path:
        """The float model runs once on each text; the others are compared with the file."""
        if not self.logits_file(text).is_file():
            forget(self.store(""), text)
        self.text("", text)
        return self.logits_file(text)

    def text(self, recipe: str, text: str) -> Result:
        path, windows = self.setup.texts[text], str(self.setup.windows)

        def make() -> Result:
            logits = [*FLOAT, "--save-logits", self.logits_file(text)]
            if recipe:
                logits = ["--against", self.float_logits(text)]
            options = ["--text", path, "--windows", windows, *logits]
            return self.run("eval", self.folder(recipe), *options)

        made_from = fingerprint(self.made_from(recipe), path, windows)
        return kept(self.store(recipe), text, made_from, make)

    def task(self, recipe: str, path: Path) -> Result:
        limit = ["--limit", str(self.setup.limit)] if self.setup.limit else []
        made_from = fingerprint(self.made_from(recipe), path, *limit)
        options = [*limit, *([] if recipe else FLOAT)]
        return kept(self.store(recipe), f"task {path.stem}", made_from, lambda: self.run(
            "eval", self.folder(recipe), "--tasks", path, *options)["tasks"][path.stem])

    def deployable(self, recipe: str) -> bool:
        """Recipe::deployable of model/recipe.h: else only the float simulator runs it."""
        content = json.loads((self.setup.recipes / f"{recipe}.json").read_text())
        online = {content.get("rotation", {}).get(x, "none") for x in ("r3", "r4")} - {"none"}
        return not online and not content.get("dynamic_activations", False)

    def everything(self, recipe: str) -> Result:
        """All of one model; "error" instead of what could not be had."""
        result: Result = {"recipe": recipe, "texts": {}, "tasks": {}, "error": None}
        try:
            if recipe:
                result["deployable"] = self.deployable(recipe)
                result["quantize"] = self.quantize(recipe)
            for text in self.setup.texts:
                result["texts"][text] = self.text(recipe, text)
            for path in self.setup.tasks:
                result["tasks"][path.stem] = self.task(recipe, path)
        except Failed as failure:
            result["error"] = str(failure)
        return result
