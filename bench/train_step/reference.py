#!/usr/bin/env python3
"""A learning step of quant/learn/ as one writes it in plain PyTorch 2.x, to be timed against it.

The step is stage one's: a model of the Llama architecture, norms folded; a scale per input of
linears (8 bits) and per weight channel (4 bits) by LSQ with its gradient scaling; R1 and R2 turn
all weights in every forward pass, in fp32; cross entropy of full logits; bf16 autocast; SGD for the
scales, Cayley SGD for the rotations. Fake quantization is the usual chain of tensor operations, and
gradients are PyTorch's. Where there was a choice the faster one was taken: PyTorch's fused
attention, and for embedding and head R1 turns the few rows in use, not the tables.

Prints one JSON object. Times do not depend on which tokens are read, so they are random.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

INPUT_MAX = 127
WEIGHT_MAX = 7


def fake_quant(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """LSQ: straight through the rounding; the scale's gradient is divided by sqrt(N high)."""
    factor = 1.0 / math.sqrt(x.numel() / scale.numel() * high)
    scale = (scale - scale * factor).detach() + scale * factor
    steps = torch.clamp(x / scale, low, high)
    return ((steps.round() - steps).detach() + steps) * scale


def rms_norm(x: Tensor, epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


def rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def random_rotation(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator)).Q.contiguous()


class InputQuant(nn.Module):
    """The first values that it sees set its scale."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.scale.item() == 0.0:
            self.scale.data.fill_(x.detach().abs().max() / INPUT_MAX)
        return fake_quant(x, self.scale, -INPUT_MAX - 1, INPUT_MAX)


class Layer(nn.Module):
    def __init__(self, config: dict, weights: dict[str, Tensor], prefix: str, r2: Tensor) -> None:
        super().__init__()
        self.heads = config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.size = config["head_dim"]
        self.epsilon = config["rms_norm_eps"]
        self.r2 = nn.Parameter(r2)
        self.inputs = nn.ModuleDict({x: InputQuant() for x in ("qkv", "o", "gate_up", "down")})
        self.scales = nn.ParameterDict()
        attention = weights[prefix + "input_layernorm.weight"]
        mlp = weights[prefix + "post_attention_layernorm.weight"]
        for name, gamma in (("q", attention), ("k", attention), ("v", attention), ("o", None),
                            ("gate", mlp), ("up", mlp), ("down", None)):
            part = "self_attn" if name in "qkvo" else "mlp"
            weight = weights[f"{prefix}{part}.{name}_proj.weight"].float()
            weight = weight if gamma is None else weight * gamma.float()
            self.register_buffer(name, weight)
            # A rotated row of K numbers has about this largest value.
            deviation = weight.pow(2).mean(1, keepdim=True).sqrt()
            self.scales[name] = nn.Parameter(4.0 * deviation / WEIGHT_MAX)

    def rotated(self, name: str, r1: Tensor) -> Tensor:
        w = getattr(self, name)
        w = r1.T @ w if name in ("o", "down") else w @ r1
        if name == "v":
            w = (self.r2.T @ w.view(-1, self.size, w.shape[1])).reshape(w.shape)
        if name == "o":
            w = (w.reshape(-1, self.size) @ self.r2).view(w.shape)
        return w

    def linear(self, name: str, x: Tensor, r1: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # 4 bits want a better rotation than bf16's
            weight = fake_quant(self.rotated(name, r1), self.scales[name], -WEIGHT_MAX, WEIGHT_MAX)
        return F.linear(x, weight)

    def split(self, x: Tensor) -> Tensor:  # [1, T, heads * size] -> [1, heads, T, size]
        return x.view(1, x.shape[1], -1, self.size).transpose(1, 2)

    def attention(self, hidden: Tensor, r1: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = self.inputs["qkv"](rms_norm(hidden, self.epsilon))
        q, k, v = (self.split(self.linear(name, x, r1)) for name in "qkv")
        q = (q * cos + rotate_half(q) * sin).to(v.dtype)
        k = (k * cos + rotate_half(k) * sin).to(v.dtype)
        groups = self.heads // self.kv_heads
        k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(1, hidden.shape[1], -1)
        return self.linear("o", self.inputs["o"](y), r1)

    def forward(self, hidden: Tensor, r1: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        hidden = hidden + self.attention(hidden, r1, cos, sin)
        x = self.inputs["gate_up"](rms_norm(hidden, self.epsilon))
        y = F.silu(self.linear("gate", x, r1)) * self.linear("up", x, r1)
        return hidden + self.linear("down", self.inputs["down"](y), r1)


class Model(nn.Module):
    def __init__(self, folder: Path, seed: int, checkpointing: bool) -> None:
        super().__init__()
        self.config = config = json.loads((folder / "config.json").read_text())
        config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
        self.checkpointing = checkpointing
        weights: dict[str, Tensor] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            weights.update(load_file(file))
        generator = torch.Generator().manual_seed(seed)
        self.r1 = nn.Parameter(random_rotation(config["hidden_size"], generator))
        self.layers = nn.ModuleList(
            Layer(config, weights, f"model.layers.{i}.", random_rotation(config["head_dim"], generator))
            for i in range(config["num_hidden_layers"]))
        embedding = weights["model.embed_tokens.weight"].float()
        head = weights.get("lm_head.weight", embedding).float()
        self.register_buffer("embedding", embedding)
        self.register_buffer("head", head * weights["model.norm.weight"].float())

    def rope(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Of plain RoPE: a scaled one takes the same time."""
        config, size = self.config, self.config["head_dim"]
        theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
        rates = theta ** (-torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(tokens), rates).repeat(1, 2)
        return angles.cos(), angles.sin()

    def forward(self, tokens: Tensor) -> Tensor:  # [1, T] -> [1, T, V]
        cos, sin = self.rope(tokens.shape[1])
        with torch.autocast("cpu", enabled=False):
            hidden = F.embedding(tokens, self.embedding) @ self.r1
        for layer in self.layers:
            if self.checkpointing:
                hidden = checkpoint(layer, hidden, self.r1, cos, sin, use_reentrant=False)
            else:
                hidden = layer(hidden, self.r1, cos, sin)
        x = rms_norm(hidden, self.config["rms_norm_eps"])
        with torch.autocast("cpu", enabled=False):
            x = x @ self.r1.T
        return F.linear(x, self.head)


@torch.no_grad()
def cayley_step(r: Tensor, rate: float) -> None:
    """Cayley SGD without momentum (Li, Fuxin, Todorovic 2020), two fixed-point iterations."""
    x, v = r.T.double(), -r.grad.T.double()
    h = v @ x.T - 0.5 * x @ (x.T @ v @ x.T)
    w = h - h.T
    a = min(rate, 1.0 / (w.abs().sum(0).max().item() + 1e-8))
    y = x + a * v
    for _ in range(2):
        y = x + 0.5 * a * w @ (x + y)
    r.copy_(y.T)


def take_step(model: Model, scales: torch.optim.Optimizer, rotations: list[Tensor],
              tokens: Tensor) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens)
    loss = F.cross_entropy(logits[0, :-1].float(), tokens[0, 1:])
    loss.backward()
    scales.step()
    for r in rotations:
        cayley_step(r, rate=0.1)
    model.zero_grad()
    return loss.item()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(args: argparse.Namespace) -> dict:
    start_bytes = peak_bytes()  # PyTorch alone, with the CUDA libraries that PyPI's loads
    model = Model(args.model, args.seed, args.checkpointing)
    rotations = [model.r1, *(layer.r2 for layer in model.layers)]
    known = {id(r) for r in rotations}
    scales = torch.optim.SGD([p for p in model.parameters() if id(p) not in known], lr=0.01)
    generator = torch.Generator().manual_seed(args.seed)
    seconds, losses = [], []
    for _ in range(args.steps):
        tokens = torch.randint(model.config["vocab_size"], (1, args.tokens), generator=generator)
        begin = time.perf_counter()
        losses.append(take_step(model, scales, rotations, tokens))
        seconds.append(time.perf_counter() - begin)
    return {"torch": torch.__version__, "threads": torch.get_num_threads(),
            "checkpointing": args.checkpointing, "tokens": args.tokens, "seconds": seconds,
            "losses": losses, "start_bytes": start_bytes, "peak_bytes": peak_bytes()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--tokens", type=int, default=2048, help="of a step")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--checkpointing", action="store_true", help="of activations, by layer")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
