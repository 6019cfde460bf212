"""GGUF metadata to `config.json` and `generation_config.json`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .source import ConvertError, Source, float_value

# GGUF architecture -> class name in config.json; the model_type is the same word.
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def check_supported(source: Source) -> None:
    if source.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConvertError(
            f"{source.path}: architecture {source.architecture} is not supported"
            f" (supported: {known})"
        )
    refused = {
        "expert_count": "mixture of experts",
        "attention.sliding_window": "sliding-window attention",
    }
    for key, what in refused.items():
        if source.arch_get(key):
            raise ConvertError(f"{source.path}: {what} is not supported")
    scaling = source.arch_get("rope.scaling.type", "none")
    if scaling != "none":
        raise ConvertError(f"{source.path}: rope scaling of type {scaling} is not supported")


def head_dim(source: Source) -> int:
    derived = source.arch_require("embedding_length") // source.arch_require("attention.head_count")
    size = source.arch_get("attention.key_length", source.arch_get("rope.dimension_count", derived))
    rotated = source.arch_get("rope.dimension_count", size)
    if source.arch_get("attention.value_length", size) != size or rotated != size:
        raise ConvertError(
            f"{source.path}: heads whose keys, values and rotary part differ in size"
            " are not supported"
        )
    return int(size)


def kv_heads(source: Source) -> int:
    count = source.arch_get("attention.head_count_kv", source.arch_require("attention.head_count"))
    if not isinstance(count, int):
        raise ConvertError(f"{source.path}: head counts that differ by layer are not supported")
    return count


def llama3_divisors(
    theta: float, size: int, factor: float, low: float, high: float, original: int
) -> np.ndarray:
    """By what each of the size / 2 rotary frequencies is divided."""
    wavelength = 2 * math.pi * theta ** (np.arange(0, size, 2) / size)
    smooth = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def llama3_scaling(source: Source, theta: float, size: int) -> dict[str, Any] | None:
    """Finds the llama3 parameters behind the table `rope_freqs.weight`."""
    if not source.has_tensor("rope_freqs.weight"):
        return None
    table = source.tensor("rope_freqs.weight").astype(np.float64)
    if table.shape != (size // 2,):
        raise ConvertError(f"{source.path}: rope_freqs.weight has shape {table.shape}")
    factor = float_value(table.max())
    if factor == 1.0:
        return None
    context = int(source.arch_require("context_length"))
    given = source.arch_get("rope.scaling.original_context_length")
    for original in [given] if given else [8192, *(2**n for n in range(20, 6, -1)), context]:
        divisors = llama3_divisors(theta, size, factor, 1.0, 4.0, original)
        if np.allclose(divisors, table, rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": int(original),
            }
    raise ConvertError(f"{source.path}: rope_freqs.weight is not a llama3 rope scaling")


def make_config(source: Source) -> dict[str, Any]:
    check_supported(source)
    theta = float_value(source.arch_get("rope.freq_base", 10000.0))
    size = head_dim(source)
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[source.architecture]],
        "attention_bias": attention_bias(source),
        "attention_dropout": 0.0,
        "bos_token_id": source.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.get("tokenizer.ggml.eos_token_id"),
        "head_dim": size,
        "hidden_act": "silu",
        "hidden_size": source.arch_require("embedding_length"),
        "initializer_range": 0.02,
        "intermediate_size": source.arch_require("feed_forward_length"),
        "max_position_embeddings": source.arch_require("context_length"),
        "model_type": source.architecture,
        "num_attention_heads": source.arch_require("attention.head_count"),
        "num_hidden_layers": source.arch_require("block_count"),
        "num_key_value_heads": kv_heads(source),
        "rms_norm_eps": float_value(source.arch_require("attention.layer_norm_rms_epsilon")),
        "rope_scaling": llama3_scaling(source, theta, size),
        "rope_theta": theta,
        "tie_word_embeddings": not source.has_tensor("output.weight"),
        "torch_dtype": "float16",
        "vocab_size": source.shape("token_embd.weight")[0],
    }
    if source.architecture == "llama":
        config["mlp_bias"] = False
    else:
        config["use_sliding_window"] = False
    return config


def attention_bias(source: Source) -> bool:
    """Qwen2 always has q, k, v biases and no key for it; Llama and Qwen3 have all four or none."""
    return source.architecture != "qwen2" and source.has_tensor("blk.0.attn_q.bias")


def make_generation_config(source: Source) -> dict[str, Any]:
    """End tokens: the end of the text, and those of a turn where the file names them."""
    ends: list[int] = []
    for name in ("eos", "eot", "eom"):
        token = source.get(f"tokenizer.ggml.{name}_token_id")
        if token is not None and int(token) not in ends:
            ends.append(int(token))
    config: dict[str, Any] = {"_from_model_config": True}
    if (bos := source.get("tokenizer.ggml.bos_token_id")) is not None:
        config["bos_token_id"] = bos
    if ends:
        config["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    if (pad := source.get("tokenizer.ggml.padding_token_id")) is not None:
        config["pad_token_id"] = pad
    return config
