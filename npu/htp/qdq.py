"""Small static QDQ graphs, and a run of them in the emulator of Qualcomm's HTP (onnxruntime-qnn).

A graph's inputs and outputs are integers: every float edge lies between exactly one
DequantizeLinear and one QuantizeLinear, so the compiler has no float tensor to keep.
"""

import dataclasses
import pathlib
import tempfile

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from session import open_integer_session, soc_named

DTYPES = {
    "u8": (TensorProto.UINT8, np.uint8),
    "u16": (TensorProto.UINT16, np.uint16),
    "i8": (TensorProto.INT8, np.int8),
    "i4": (TensorProto.INT4, ml_dtypes.int4),
    "i32": (TensorProto.INT32, np.int32),
}

@dataclasses.dataclass
class Quant:
    """One tensor's storage: real = scale * (q - zero_point)."""

    dtype: str
    scale: float
    zero_point: int


def symmetric(bits, scale):
    return Quant(f"u{bits}", float(np.float32(scale)), 1 << (bits - 1))


class Graph:
    """Builds one graph; the names returned are float edges."""

    def __init__(self):
        self.nodes, self.initializers, self.inputs, self.outputs = [], [], [], []
        self.feeds = {}

    def _name(self, prefix):
        return f"{prefix}_{len(self.nodes)}_{len(self.initializers)}"

    def constant(self, array):
        name = self._name("c")
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind, inputs, **attributes):
        out = self._name(kind)
        self.nodes.append(helper.make_node(kind, inputs, [out], name=f"node_{out}", **attributes))
        return out

    def _scale_and_zero(self, quant):
        return (self.constant(np.float32(quant.scale)),
                self.constant(np.array(quant.zero_point, DTYPES[quant.dtype][1])))

    def input(self, name, stored, quant):
        stored = stored.astype(DTYPES[quant.dtype][1])
        self.feeds[name] = stored
        self.inputs.append(
            helper.make_tensor_value_info(name, DTYPES[quant.dtype][0], stored.shape))
        return self.op("DequantizeLinear", [name, *self._scale_and_zero(quant)])

    def tensor(self, stored, quant):
        """A constant activation."""
        name = self.constant(stored.astype(DTYPES[quant.dtype][1]))
        return self.op("DequantizeLinear", [name, *self._scale_and_zero(quant)])

    def weight(self, integers, dtype, scales, axis):
        """Integers with one scale per index of `axis`, zero points 0."""
        scales = np.asarray(scales, np.float32)
        zero = np.zeros(scales.shape, DTYPES[dtype][1])
        return self.op("DequantizeLinear",
                       [self.constant(integers.astype(DTYPES[dtype][1])),
                        self.constant(scales), self.constant(zero)], axis=axis)

    def requantize(self, edge, quant):
        """Q and DQ: the tensor that the NPU stores."""
        scale, zero = self._scale_and_zero(quant)
        stored = self.op("QuantizeLinear", [edge, scale, zero])
        return self.op("DequantizeLinear", [stored, scale, zero])

    def output(self, edge, quant, shape, name="y"):
        self.nodes.append(helper.make_node("QuantizeLinear", [edge, *self._scale_and_zero(quant)],
                                           [name], name=f"node_{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, DTYPES[quant.dtype][0], shape))

    def model(self):
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(graph):
    """The stored integers of the outputs, as the emulator of an HTP v79 computes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "graph.onnx"
        onnx.save(graph.model(), path)
        return open_integer_session(path, soc_named("SM8750")).run(None, graph.feeds)
