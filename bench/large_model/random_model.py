"""A checkpoint of random bf16 weights, in a given shape."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]

LLAMA_1B: Config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
KEPT = "random.json"  # what the folder was made from


def shapes_of(config: Config) -> Shapes:
    """By the names of Hugging Face."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes | {"model.norm.weight": (hidden,)}


def bf16(values: np.ndarray) -> bytes:
    """Of fp32, the upper half of the bits."""
    return (values.view(np.uint32) >> 16).astype("<u2").tobytes()


def random_tensors(shapes: Shapes, layers: int) -> Iterator[bytes]:
    """Norms are 1; what is added to the residual stream is small enough for `layers` of them."""
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        if len(shape) == 1:
            yield bf16(np.ones(shape, np.float32))
            continue
        writes = name.endswith(("o_proj.weight", "down_proj.weight"))
        size = 1 / math.sqrt(shape[1] * (2 * layers if writes else 1))
        yield bf16(rng.standard_normal(shape, dtype=np.float32) * np.float32(size))


def write_weights(path: Path, config: Config) -> None:
    """One tensor in memory at a time."""
    shapes, header, position = shapes_of(config), {}, 0
    for name, shape in shapes.items():
        end = position + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (position, end)}
        position = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for data in random_tensors(shapes, config["num_hidden_layers"]):
            file.write(data)


def make_random_model(folder: Path, config: Config, tokenizer: Path) -> None:
    """`tokenizer` is a checkpoint folder whose vocabulary is not larger. A folder that was made
    from the same shape is left as it is."""
    kept = folder / KEPT
    if kept.exists() and json.loads(kept.read_text()) == config:
        return
    folder.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    own = json.loads((tokenizer / "config.json").read_text())
    tokens = {x: own[x] for x in ("bos_token_id", "eos_token_id") if x in own}
    (folder / "config.json").write_text(json.dumps(config | tokens, indent=1))
    write_weights(folder / "model.safetensors", config)
    kept.write_text(json.dumps(config))
