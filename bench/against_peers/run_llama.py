#!/usr/bin/env python3
"""Times llama.cpp on a GGUF file; prints what `qnpu bench --json` does. Tokens are random and
nothing is sampled, as in its own llama-bench, whose sizes of batches these are."""

from __future__ import annotations

import ctypes
import json
import time

import llama_cpp

from runner import Figures, arguments, measure, random_tokens

BATCH = 2048


@llama_cpp.llama_log_callback
def quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    pass


class Llama:
    def __init__(self, path: str, context: int, threads: int, plain: bool) -> None:
        start = time.perf_counter()
        model_options = llama_cpp.llama_model_default_params()
        model_options.use_extra_bufts = not plain
        model = llama_cpp.llama_model_load_from_file(path.encode(), model_options)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch = context, BATCH
        options.n_threads = options.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, options) if model else None
        if not self.context:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.load_seconds = time.perf_counter() - start

    def decode(self, tokens: list[int]) -> None:
        data = (llama_cpp.llama_token * len(tokens))(*tokens)
        status = llama_cpp.llama_decode(self.context,
                                        llama_cpp.llama_batch_get_one(data, len(tokens)))
        if status != 0:
            raise SystemExit(f"llama_decode returned {status}")
        llama_cpp.llama_get_logits_ith(self.context, -1)  # waits for them

    def seconds(self, length: int, steps: int) -> Figures:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        tokens, more = random_tokens(length), random_tokens(steps)
        start = time.perf_counter()
        for i in range(0, length, BATCH):
            self.decode(tokens[i:i + BATCH])
        middle = time.perf_counter()
        for token in more:
            self.decode([token])
        return Figures(middle - start, time.perf_counter() - middle)


args = arguments(__doc__)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
llama_cpp.llama_backend_init()
longest = max([*args.prompts, *args.contexts]) + args.decode
print(json.dumps(measure(Llama(str(args.model), longest, args.threads, args.plain), args)))
