"""Makes the cases of tests/htp_emulator_test.cc: single operators as QDQ graphs, run in the emulator.

usage: make_cases.py FOLDER

Each case is one safetensors file: inputs and outputs as int32, in the signed form that our kernels
take (128 or 32768 subtracted), scales as float32, and the operator's name in the metadata.
"""

import pathlib
import shutil
import sys

import numpy as np

from qdq import Graph, Quant, run, symmetric
from tensors import write_safetensors

HALF = {"u8": 128, "u16": 32768}  # what the signed form has subtracted


def snap(multiplier):
    """The nearest multiplier with 12 significant bits."""
    e = np.floor(np.log2(multiplier))
    return np.floor(multiplier / 2.0**e * 2048 + 0.5) / 2048 * 2.0**e


def activations(rng, shape, bits, spread=0.3):
    """Signed integers, normal, with the first rows at the extremes."""
    top = (1 << (bits - 1)) - 1
    x = np.clip(np.rint(rng.normal(size=shape) * spread * top), -top - 1, top).astype(np.int64)
    flat = x.reshape(-1, shape[-1])
    if len(flat) >= 8:
        flat[0], flat[1], flat[2] = -top - 1, top, 0
        flat[3] = rng.choice([-top - 1, top], shape[-1])
        flat[4] = rng.integers(-top - 1, top + 1, shape[-1])
    return x


def stored(x, quant):
    return x + HALF[quant.dtype]


class Cases:
    """Writes the files and counts them."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.count = 0

    def save(self, op, tensors, metadata=None):
        self.count += 1
        name = f"{self.count:03d}_{op}.safetensors"
        tensors = {k: v if v.dtype == np.float32 else v.astype(np.int32)
                   for k, v in tensors.items()}
        write_safetensors(self.folder / name, tensors, {"op": op, **(metadata or {})})

    def run(self, op, graph, quant, tensors, metadata=None):
        """Runs `graph` and saves its output `y` beside `tensors`."""
        half = HALF[quant.dtype]
        self.save(op, {**tensors, "y": run(graph)[0].astype(np.int64) - half, **scales(y=quant.scale),
                       "y_zero": np.int32([quant.zero_point - half])},
                  {"bits": quant.dtype[1:], **(metadata or {})})


def scales(**values):
    return {f"{k}_scale": np.float32(np.atleast_1d(v)) for k, v in values.items()}


def linear(cases, rng, bits, weight_bits, k, n, gain, bias=False, m=24):
    """y = W x (+ bias) with snapped weight scales; `gain`: 1 fills the output's range normally."""
    low, top = (-127, 127) if weight_bits == 8 else (-8, 7)
    xq = symmetric(bits, 0.02 if bits == 8 else 0.02 / 256)
    real = rng.normal(size=(k, n)) * 0.05 * rng.uniform(0.2, 1, n)
    ws = np.abs(real).max(0) / top
    x = activations(rng, (m, k), bits)
    wide = (x[5:] * xq.scale) @ real
    yq = symmetric(bits, np.abs(wide).max() / ((1 << (bits - 1)) - 1) / gain)
    ws = np.float32(snap(xq.scale * ws / yq.scale) * yq.scale / xq.scale)
    w = np.clip(np.rint(real / ws), low, top).astype(np.int64)
    w[:, 0], w[:, 1] = top, low
    g = Graph()
    edge = g.op("MatMul", [g.input("x", stored(x, xq), xq),
                           g.weight(w, f"i{weight_bits}", ws, axis=1)])
    tensors = {"x": x, "w": w.T, **scales(x=xq.scale, w=ws)}
    if bias:
        bs = np.float32(np.float32(xq.scale) * ws)
        b = np.rint(rng.normal(size=n) * 0.3 * np.abs(wide).max() / bs)
        edge = g.op("Add", [edge, g.weight(b, "i32", bs, axis=0)])
        tensors["bias"] = b
    g.output(edge, yq, [m, n])
    cases.run("linear", g, yq, tensors, {"weight_bits": str(weight_bits)})


def product(cases, rng, bits, k, n, gain, unsigned=False, m=40):
    """Products of activations: 8 x 8 -> 8 or 16 x 8 -> 16; `unsigned`: probabilities."""
    if unsigned:
        aq = Quant("u16", float(np.float32(1 / 65535)), 0)
        a = rng.integers(0, 65536, (m, k)) // (1 + rng.integers(0, 300, (m, k)))
        a[0], a[1] = 0, 65535
        a_stored = a
    else:
        aq = symmetric(bits, 0.03)
        a = activations(rng, (m, k), bits)
        a_stored = stored(a, aq)
    bq = symmetric(8, 0.011)
    b = activations(rng, (n, k), 8).T
    acc = np.abs((a @ b)[5:]).max()
    wish = ((1 << (bits - 1)) - 1) / acc * gain
    yq = symmetric(bits, aq.scale * bq.scale / snap(wish))
    g = Graph()
    edge = g.op("MatMul", [g.input("a", a_stored, aq), g.input("b", stored(b, bq), bq)])
    g.output(edge, yq, [m, n])
    cases.run("product", g, yq, {"a": a, "b": b.T,
                                 **scales(a=aq.scale, b=bq.scale)})


def add(cases, rng, a_scale, b_scale, y_scale):
    aq, bq, yq = (symmetric(16, s) for s in (a_scale, b_scale, y_scale))
    a, b = (rng.integers(-32768, 32768, (64, 256)) for _ in range(2))
    a[0], b[0], b[1] = 32767, 32767, -32768
    g = Graph()
    edge = g.op("Add", [g.input("a", stored(a, aq), aq), g.input("b", stored(b, bq), bq)])
    g.output(edge, yq, list(a.shape))
    cases.run("add", g, yq, {"a": a, "b": b,
                             **scales(a=aq.scale, b=bq.scale)})


def mask(cases, rng, score_scale, low, high):
    """Scores plus a mask of 0 and -100 into [low, high]: an asymmetric sum."""
    aq = symmetric(16, score_scale)
    mq = Quant("u16", float(np.float32(100 / 65535)), 65535)
    scale = (high - low) / 65535
    yq = Quant("u16", float(np.float32(scale)), int(round(-low / scale)))
    a = rng.integers(-32768, 32768, (64, 256))
    visible = rng.integers(0, 2, a.shape)
    g = Graph()
    edge = g.op("Add", [g.input("a", stored(a, aq), aq), g.input("m", visible * 65535, mq)])
    g.output(edge, yq, list(a.shape))
    cases.run("mask", g, yq, {"a": a, "visible": visible,
                              **scales(a=aq.scale, mask=mq.scale)})


def multiply(cases, rng, bits, a_scale, b_scale, y_scale, a_zero=0):
    """a_zero: a's zero point in signed form."""
    half = 1 << (bits - 1)
    aq = Quant(f"u{bits}", float(np.float32(a_scale)), half + a_zero)
    bq, yq = symmetric(bits, b_scale), symmetric(bits, y_scale)
    a, b = (rng.integers(-half, half, (64, 256)) for _ in range(2))
    a[0], b[0], b[1] = half - 1, half - 1, -half
    g = Graph()
    edge = g.op("Mul", [g.input("a", stored(a, aq), aq), g.input("b", stored(b, bq), bq)])
    g.output(edge, yq, list(a.shape))
    cases.run("mul", g, yq, {"a": a, "b": b,
                             "a_zero": np.int32([a_zero]), **scales(a=aq.scale, b=bq.scale)})


def convert(cases, from_bits, scale16):
    """Between widths with scale8 = 256 * scale16, on every number."""
    narrow, wide = symmetric(8, np.float32(scale16) * 256), symmetric(16, scale16)
    xq, yq = (wide, narrow) if from_bits == 16 else (narrow, wide)
    half = 1 << (from_bits - 1)
    x = np.arange(-half, half).reshape(-1, 256)
    g = Graph()
    g.output(g.input("x", stored(x, xq), xq), yq, list(x.shape))
    cases.run("convert", g, yq, {"x": x, **scales(x=xq.scale)})


def silu(cases, bits, x_scale, y_scale, y_zero=0):
    """Every number through Sigmoid and Mul, which the compiler fuses; y_zero in signed form."""
    half = 1 << (bits - 1)
    xq = symmetric(bits, x_scale)
    yq = Quant(f"u{bits}", float(np.float32(y_scale)), half + y_zero)
    x = np.arange(-half, half).reshape(-1, 256)
    g = Graph()
    edge = g.input("x", stored(x, xq), xq)
    gate = g.requantize(g.op("Sigmoid", [edge]), Quant(f"u{bits}", 1 / (2 * half), 0))
    g.output(g.op("Mul", [edge, gate]), yq, list(x.shape))
    cases.run("silu", g, yq, {"x": x, **scales(x=xq.scale)})


def rmsnorm(cases, rng, d, x_scale, gamma_scale, eps, m=64):
    xq, gq = symmetric(16, x_scale), symmetric(16, gamma_scale)
    spread = 2.0 ** rng.integers(4, 14, (m, 1))
    x = np.clip(np.rint(rng.normal(size=(m, d)) * spread), -32768, 32767).astype(np.int64)
    x[0], x[1, ::7] = 1, 32767
    gamma = np.clip(np.rint((1 + rng.normal(size=d) * 0.2) / gq.scale), 0, 32767).astype(np.int64)
    real = x * xq.scale
    y = real / np.sqrt((real**2).mean(-1, keepdims=True) + eps) * gamma * gq.scale
    yq = symmetric(16, np.abs(y).max() / 32767 * 0.8)
    g = Graph()
    edge = g.op("SimplifiedLayerNormalization",
                [g.input("x", stored(x, xq), xq), g.tensor(stored(gamma, gq), gq)],
                epsilon=eps, axis=-1)
    g.output(edge, yq, [m, d])
    cases.run("rmsnorm", g, yq, {"x": x, "gamma": gamma,
                                 **scales(x=xq.scale, gamma=gq.scale)}, {"epsilon": repr(eps)})


def softmax(cases, rng, low, high, n, m=64):
    scale = (high - low) / 65535
    xq = Quant("u16", float(np.float32(scale)), int(round(-low / scale)))
    x = rng.integers(0, 65536, (m, n))
    x[0], x[1] = 65535, 0
    x[2], x[2, 3] = 0, 65535
    x[3:16] = np.clip(rng.normal(size=(13, n)) * 6000 + 30000, 0, 65535)
    yq = Quant("u16", float(np.float32(1 / 65535)), 0)
    g = Graph()
    g.output(g.op("Softmax", [g.input("x", x, xq)], axis=-1), yq, [m, n])
    y = run(g)[0]
    cases.save("softmax", {"x": x - 32768, "y": y, **scales(x=xq.scale)})


def rope(cases, rng, x_scale, part_scale, y_scale, m=16, heads=3, d=64):
    """x * cos + [-x2, x1] * sin, tables of scale 1/32767."""
    xq, pq, yq = (symmetric(16, s) for s in (x_scale, part_scale, y_scale))
    tq = symmetric(16, 1 / 32767)
    x = rng.integers(-32768, 32768, (1, m, heads, d))
    angle = rng.uniform(0, 2 * np.pi, (m, d // 2))
    cos, sin = (np.rint(f(angle) * 32767).astype(np.int64) for f in (np.cos, np.sin))
    both = lambda t: stored(np.concatenate([t, t], -1), tq).reshape(1, m, 1, d)
    g = Graph()
    edge = g.input("x", stored(x, xq), xq)
    ends = [g.constant(np.int64([v])) for v in (0, d // 2, d, 3)]
    first, second = (g.requantize(g.op("Slice", [edge, ends[i], ends[i + 1], ends[3]]), xq)
                     for i in (0, 1))
    rotated = g.requantize(
        g.op("Concat", [g.requantize(g.op("Neg", [second]), xq), first], axis=-1), xq)
    parts = [g.requantize(g.op("Mul", [e, g.input(name, both(t), tq)]), pq)
             for e, name, t in ((edge, "cos", cos), (rotated, "sin", sin))]
    g.output(g.op("Add", parts), yq, [1, m, heads, d])
    cases.run("rope", g, yq, {"x": x, "cos": cos, "sin": sin,
                              **scales(x=xq.scale, table=tq.scale, part=pq.scale)})


def make_linears(cases, rng):
    for bits in (8, 16):
        for weight_bits in (8, 4):
            for k, n, gain in ((64, 48, 0.3), (576, 96, 1.0), (576, 64, 4.0), (1536, 64, 0.02)):
                linear(cases, rng, bits, weight_bits, k, n, gain)
            linear(cases, rng, bits, weight_bits, 192, 96, 0.7, bias=True)
            linear(cases, rng, bits, weight_bits, 896, 128, 0.9, bias=True)


def make_products(cases, rng):
    for gain in (0.2, 0.9, 3.0):
        product(cases, rng, 8, 64, 128, gain)
        product(cases, rng, 16, 64, 256, gain)
        product(cases, rng, 16, 320, 64, gain, unsigned=True)


def make_elementwise(cases, rng):
    for ratios in ((1, 1, 1.9), (1, 0.25, 1), (0.37, 1.13, 1.41), (3.1, 0.004, 3.3), (1, 1, 0.03),
                   (0.99998, 0.01, 1), (0.99996, 0.01, 1), (0.06, 0.001, 1), (0.2, 0.1, 1),
                   (16552.5 / 16384, 0.25, 1), (16553.49992 / 16384, 0.1703, 1)):
        add(cases, rng, *(4e-4 * r for r in ratios))
    for score_scale, low, high in ((1e-3, -33, 20), (4e-4, -22, 6.3), (2e-3, -50, 61),
                                   (0.0009476683 * 12801 / 16384, -44.265, 17.841)):
        mask(cases, rng, score_scale, low, high)
    for ratio in (2e-6, 3.3e-5, 4.1e-4, 2.9e-3, 381830.5 / 2**34, 1070632.5 / 2**34):
        multiply(cases, rng, 16, 2**-13, 2**-12, 2**-25 / ratio)
    for ratio, zero in ((0.008, 0), (0.031, 0), (0.4, 0), (0.008, -105), (0.031, 17), (0.4, -128)):
        multiply(cases, rng, 8, 0.02, 0.03, 0.0006 / ratio, zero)
    for scale16 in (1e-4, 3.7e-3):
        convert(cases, 16, scale16)
        convert(cases, 8, scale16)
    rope(cases, rng, 4e-4, 4e-4, 5.3e-4)
    rope(cases, rng, 1e-3, 9.1e-4, 1.3e-3)


def make_functions(cases, rng):
    for x_scale, y_scale, y_zero in ((0.06, 0.06, 0), (0.11, 0.04, 0), (0.02, 0.013, 0),
                                     (0.06, 0.031, -118), (0.11, 0.055, -123), (0.02, 0.011, -103)):
        silu(cases, 8, x_scale, y_scale, y_zero)
    for x_scale in (2e-4, 5e-4):
        silu(cases, 16, x_scale, x_scale)
    for d, x_scale, eps in ((576, 1e-3, 1e-5), (64, 2e-4, 1e-6), (896, 3e-3, 1e-6)):
        rmsnorm(cases, rng, d, x_scale, 2 / 32767, eps)
    for low, high, n in ((-20, 4, 128), (-33, 20, 512), (-9, 9, 1024)):
        softmax(cases, rng, low, high, n)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    final = pathlib.Path(sys.argv[1])
    partial = final.with_name(final.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    cases, rng = Cases(partial), np.random.default_rng(7)
    for make in (make_linears, make_products, make_elementwise, make_functions):
        make(cases, rng)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    print(f"{cases.count} cases in {final}")


if __name__ == "__main__":
    main()
