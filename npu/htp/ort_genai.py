"""Runs an onnxruntime-genai bundle on tokens, on the emulator of the NPU.

usage: ort_genai.py BUNDLE --tokens 1,2,3 --count N

Says the tokens that it generates, greedily. The bundle is one of `qnpu export --to ort-genai
--separate`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai
import onnxruntime_qnn as qnn

from report import run_generator


def with_backend(bundle: Path, folder: Path) -> Path:
    """A copy that names this machine's backend."""
    shutil.copytree(bundle, folder, dirs_exist_ok=True)
    path = folder / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for stage in config["model"]["decoder"]["pipeline"]:
        for options in stage.values():
            for provider in options.get("session_options", {}).get("provider_options", []):
                provider["QNN"]["backend_path"] = qnn.get_qnn_htp_path()
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def generate(bundle: Path, prompt: list[int], count: int) -> list[int]:
    genai.register_execution_provider_library("QNNExecutionProvider", qnn.get_library_path())
    with tempfile.TemporaryDirectory() as folder:
        model = genai.Model(str(with_backend(bundle, Path(folder))))
        generator = genai.Generator(model, genai.GeneratorParams(model))
        generator.append_tokens(np.array(prompt, np.int32))
        found: list[int] = []
        while len(found) < count and not generator.is_done():
            generator.generate_next_token()
            found.append(int(generator.get_next_tokens()[0]))
        return found


if __name__ == "__main__":
    run_generator(generate)
