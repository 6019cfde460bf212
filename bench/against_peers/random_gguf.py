#!/usr/bin/env python3
"""Writes a GGUF file of random fp16 weights in the shape of Llama 3.2 1B: TOKENIZER.gguf TO. The
tokenizer is that of another file, with unused tokens up to the vocabulary. Speed does not depend on
values, so the order of rotary pairs and the scaling of their frequencies are left out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from large_model.random_model import LLAMA_1B, Config, shapes_of  # noqa: E402

UNUSED = 5  # of tokenizer.ggml.token_type


def add_shape(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_context_length(8192)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def copy_tokenizer(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, vocabulary: int) -> None:
    for key, field in reader.fields.items():
        if not key.startswith("tokenizer."):
            continue
        value = field.contents()
        missing = range(len(value), vocabulary) if isinstance(value, list) else ()
        if key == "tokenizer.ggml.tokens":
            value += [f"<unused{i}>" for i in missing]
        if key == "tokenizer.ggml.token_type":
            value += [UNUSED for _ in missing]
        writer.add_key_value(key, value, field.types[0],
                             field.types[-1] if len(field.types) > 1 else None)


def tensors(config: Config) -> dict[str, tuple[int, ...]]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    return {names.get_name(name, (".weight",)): shape for name, shape in shapes_of(config).items()}


def random_weight(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return (0.02 * rng.standard_normal(shape, dtype=np.float32)).astype(np.float16)


def write(tokenizer: str, destination: str, config: Config) -> None:
    temporary = destination + ".part"
    writer = gguf.GGUFWriter(temporary, "llama")
    add_shape(writer, config)
    copy_tokenizer(gguf.GGUFReader(tokenizer), writer, config["vocab_size"])
    for name, shape in tensors(config).items():
        dtype = np.dtype(np.float32 if len(shape) == 1 else np.float16)
        writer.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(0)
    for shape in tensors(config).values():
        writer.write_tensor_data(random_weight(rng, shape))
    writer.close()
    os.replace(temporary, destination)


if __name__ == "__main__":
    write(*sys.argv[1:], config=LLAMA_1B)
