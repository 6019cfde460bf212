"""A Llama in NumPy, as far as the inputs of down_proj: what a static range would have to cover. (The program's
own statistics leave attention sinks out.)"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
DTYPES = {"F16": np.float16, "F32": np.float32}


def load_weights(folder: Path) -> dict[str, Array]:
    """Of all files; bf16 too."""
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + x for x in entry["data_offsets"])
            if entry["dtype"] == "BF16":
                bits = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
                values = bits.view(np.float32)
            else:
                values = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).astype(np.float32)
            weights[name.removeprefix("model.")] = values.reshape(entry["shape"])
    return weights


def rms_norm(x: Array, gamma: Array, epsilon: float) -> Array:
    normed: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * gamma
    return normed


def rope(x: Array, theta: float) -> Array:
    """x [heads, T, head size]; halves are turned together."""
    half = x.shape[-1] // 2
    angle = np.outer(np.arange(x.shape[1]), theta ** (-np.arange(half) / half))
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(np.float32)


class FloatModel:
    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = load_weights(folder)

    def linear(self, x: Array, name: str) -> Array:
        product: Array = x @ self.weights[name + ".weight"].T
        return product

    def attention(self, x: Array, layer: str) -> Array:
        heads, shared = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        theta = self.config.get("rope_theta") or self.config["rope_parameters"]["rope_theta"]

        def by_head(name: str, count: int) -> Array:
            rows = self.linear(x, f"{layer}.self_attn.{name}_proj")
            return rows.reshape(len(x), count, -1).transpose(1, 0, 2)

        q, k, v = by_head("q", heads), by_head("k", shared), by_head("v", shared)
        q, k = rope(q, theta), np.repeat(rope(k, theta), heads // shared, 0)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = weights @ np.repeat(v, heads // shared, 0)
        return self.linear(mixed.transpose(1, 0, 2).reshape(len(x), -1), f"{layer}.self_attn.o_proj")

    def down_inputs(self, tokens: list[int], layers: int = 0) -> list[Array]:
        """The input [T, F] of down_proj in each layer, or in so many."""
        epsilon = self.config["rms_norm_eps"]
        x = self.weights["embed_tokens.weight"][tokens]
        found = []
        for i in range(layers or self.config["num_hidden_layers"]):
            layer = f"layers.{i}"
            x = x + self.attention(
                rms_norm(x, self.weights[f"{layer}.input_layernorm.weight"], epsilon), layer)
            y = rms_norm(x, self.weights[f"{layer}.post_attention_layernorm.weight"], epsilon)
            gate = self.linear(y, f"{layer}.mlp.gate_proj")
            found.append(gate / (1 + np.exp(-gate)) * self.linear(y, f"{layer}.mlp.up_proj"))
            x = x + self.linear(found[-1], f"{layer}.mlp.down_proj")
        return found
