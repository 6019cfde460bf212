"""GGUF tensors to `model.safetensors` in fp16, one tensor in memory at a time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from .source import ConvertError, Source

_GLOBAL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_IGNORED = {"rope_freqs.weight"}  # becomes rope_scaling in config.json


def hf_name(name: str) -> str | None:
    """The Hugging Face name of a GGUF tensor; None if it has none."""
    if name in _GLOBAL:
        return _GLOBAL[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in _LAYER:
        return None
    return f"model.layers.{match[1]}.{_LAYER[match[2]]}.{match[3]}"


def to_half_split(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's order of q and k rows for Llama.

    GGUF keeps the pair of a rotation side by side (rows 2i, 2i + 1 of a head); Hugging Face keeps
    it half a head apart (rows i, i + D/2). rows: [heads * D, ...].
    """
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def converted(source: Source, name: str, config: dict[str, Any]) -> np.ndarray:
    values = source.tensor(name)
    if source.architecture == "llama":
        if re.search(r"\.attn_q\.(weight|bias)$", name):
            values = to_half_split(values, config["num_attention_heads"])
        elif re.search(r"\.attn_k\.(weight|bias)$", name):
            values = to_half_split(values, config["num_key_value_heads"])
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.isfinite(half).all():
        raise ConvertError(f"{source.path}: tensor {name} has values that fp16 cannot hold")
    return half


def tensor_names(source: Source, config: dict[str, Any]) -> dict[str, str]:
    """Hugging Face name -> GGUF name, sorted; complete, or an error."""
    names: dict[str, str] = {}
    for name in source.tensor_names():
        if name in _IGNORED:
            continue
        renamed = hf_name(name)
        if renamed is None:
            raise ConvertError(f"{source.path}: tensor {name} is of an unknown kind")
        names[renamed] = name
    for name, shape in expected_shapes(source.architecture, config).items():
        if source.shape(name) != shape:
            raise ConvertError(
                f"{source.path}: tensor {name} has shape {source.shape(name)}, expected {shape}"
            )
    return dict(sorted(names.items()))


def expected_shapes(architecture: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    q_size = config["num_attention_heads"] * config["head_dim"]
    kv_size = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config["vocab_size"], hidden),
        "output_norm.weight": (hidden,),
    }
    for layer in range(config["num_hidden_layers"]):
        block = {
            "attn_norm.weight": (hidden,),
            "attn_q.weight": (q_size, hidden),
            "attn_k.weight": (kv_size, hidden),
            "attn_v.weight": (kv_size, hidden),
            "attn_output.weight": (hidden, q_size),
            "ffn_norm.weight": (hidden,),
            "ffn_gate.weight": (ffn, hidden),
            "ffn_up.weight": (ffn, hidden),
            "ffn_down.weight": (hidden, ffn),
        }
        if architecture == "qwen2" or config["attention_bias"]:
            block |= {"attn_q.bias": (q_size,)}
            block |= {"attn_k.bias": (kv_size,), "attn_v.bias": (kv_size,)}
        if architecture == "qwen3":
            block |= {
                "attn_q_norm.weight": (config["head_dim"],),
                "attn_k_norm.weight": (config["head_dim"],),
            }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def write_tensors(source: Source, config: dict[str, Any], path: Path) -> None:
    names = tensor_names(source, config)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for renamed, name in names.items():
        shape = source.shape(name)
        end = offset + 2 * int(np.prod(shape))
        header[renamed] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-(8 + len(encoded)) % 64)  # the data starts at a multiple of 64
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names.values():
            file.write(converted(source, name, config).tobytes())
