#!/usr/bin/env python3
"""Times OpenVINO GenAI on a GGUF file, which it loads itself; prints what `qnpu bench --json` does.
Prompts are random tokens, new ones every time: it keeps the caches of prefixes it has seen."""

from __future__ import annotations

import json
import time

import numpy as np
import openvino_genai
from openvino import Tensor

from runner import Figures, arguments, measure, random_tokens


class OpenVino:
    def __init__(self, model: str, threads: int) -> None:
        start = time.perf_counter()
        self.pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
        self.load_seconds = time.perf_counter() - start

    def seconds(self, length: int, steps: int) -> Figures:
        tokens = np.array([random_tokens(length)], dtype=np.int64)
        prompt = openvino_genai.TokenizedInputs(Tensor(tokens), Tensor(np.ones_like(tokens)))
        config = openvino_genai.GenerationConfig(max_new_tokens=steps + 1, ignore_eos=True)
        raw = self.pipeline.generate(prompt, config).perf_metrics.raw_metrics
        if len(raw.m_durations) != steps:
            raise SystemExit(f"{len(raw.m_durations)} tokens came where {steps} were asked for")
        return Figures(1e-6 * raw.m_times_to_first_token[0], 1e-6 * sum(raw.m_durations))


args = arguments(__doc__)
print(json.dumps(measure(OpenVino(str(args.model), args.threads), args)))
