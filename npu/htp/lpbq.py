"""Weights in blocks as the compiler computes them in integers: LPBQ.

    weight = scale[channel] * multiplier[block, channel] * q4

The exporter writes a linear with such weights as 8-bit ones, which have the products q4 * multiplier;
this puts the factors in their place: 4-bit constants, 8-bit multipliers, and a MatMul, the one form
that the compiler takes (docs/cost.md).
"""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from report import Refused

WEIGHT = "_proj.weight"
Q_MAX = 7
M_MAX = 16


def in_blocks(products: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """[K, N] as q4 [K, N] in -7 .. 7 and multipliers [K / size, N] in 1 .. 16, exactly."""
    k, n = products.shape
    blocks = products.reshape(k // size, size, n).astype(np.int32)
    multipliers = np.zeros((k // size, n), np.int32)
    for m in range(M_MAX, 0, -1):
        fits = (np.abs(blocks).max(axis=1) <= Q_MAX * m) & (blocks % m == 0).all(axis=1)
        multipliers[fits] = m
    if (multipliers == 0).any():
        raise Refused(f"these weights are not 4-bit numbers in blocks of {size}")
    q4 = blocks // multipliers[:, None]
    return q4.reshape(k, n).astype(np.int8), multipliers.astype(np.uint8)


def _int4(array: np.ndarray, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array).astype(ml_dtypes.int4), name)


def rewrite(source: Path, target: Path, size: int) -> int:
    """Writes `source` with every *_proj.weight in blocks; how many there were."""
    model = onnx.load(source, load_external_data=True)
    graph = model.graph
    constants = {x.name: x for x in graph.initializer}
    dequantizers = {x.output[0]: x for x in graph.node if x.op_type == "DequantizeLinear"}
    count = 0
    for node in list(graph.node):
        weight = dequantizers.get(node.input[1]) if node.op_type == "Gemm" else None
        if weight is None or not weight.input[0].endswith(WEIGHT):
            continue
        if len(node.input) > 2:
            raise Refused(f"{node.name} has a bias, which a MatMul has not")
        name = weight.input[0]
        products = numpy_helper.to_array(constants[name]).T  # [N, K] -> [K, N]
        q4, multipliers = in_blocks(products, size)
        channels = products.shape[1]
        graph.initializer.extend([
            _int4(q4, name + ".q4"),
            _int4(np.zeros_like(multipliers, np.int8), name + ".q4.zero"),
            numpy_helper.from_array(multipliers, name + ".blocks"),
            numpy_helper.from_array(np.zeros(channels, np.uint8), name + ".blocks.zero")])
        real = name + "/real"
        scale = helper.make_node(
            "DequantizeLinear", [name + ".blocks", weight.input[1], name + ".blocks.zero"],
            [name + ".blocks/real"], name=name + ".blocks/dequantize", axis=1)
        value = helper.make_node(
            "DequantizeLinear", [name + ".q4", scale.output[0], name + ".q4.zero"], [real],
            name=name + ".q4/dequantize", axis=0, block_size=size)
        product = helper.make_node("MatMul", [node.input[0], real], list(node.output),
                                   name=node.name)
        at = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, new in enumerate((scale, value, product)):
            graph.node.insert(at + offset, new)
        graph.node.remove(weight)
        graph.initializer.remove(constants[name])
        count += 1
    onnx.save(model, target, save_as_external_data=True, location=target.name + ".bin")
    return count
