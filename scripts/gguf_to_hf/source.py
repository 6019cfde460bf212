"""Reads a GGUF file: typed access to its metadata, and errors of one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np


class ConvertError(Exception):
    """What the user is told; one sentence."""


class Source:
    """Metadata and tensors of one GGUF file. Tensors stay on disk until they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ConvertError(f"{path}: no such file")
        try:
            reader = gguf.GGUFReader(path)
            self._metadata: dict[str, Any] = {k: f.contents() for k, f in reader.fields.items()}
            self._tensors = {t.name: t for t in reader.tensors}
        except OSError:
            raise
        except Exception as error:  # the reader fails in many ways on damaged bytes
            raise ConvertError(f"{path}: truncated or not a GGUF file ({error})") from error
        self.architecture = str(self.require("general.architecture"))

    def get(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(key, default)

    def require(self, key: str) -> Any:
        if key not in self._metadata:
            raise ConvertError(f"{self.path}: metadata key {key} is missing")
        return self._metadata[key]

    def arch_get(self, key: str, default: Any = None) -> Any:
        return self.get(f"{self.architecture}.{key}", default)

    def arch_require(self, key: str) -> Any:
        return self.require(f"{self.architecture}.{key}")

    def tensor_names(self) -> list[str]:
        return list(self._tensors)

    def has_tensor(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """In row-major order: [outputs, inputs] for a weight."""
        if name not in self._tensors:
            raise ConvertError(f"{self.path}: tensor {name} is missing")
        return tuple(int(n) for n in reversed(self._tensors[name].shape))

    def tensor(self, name: str) -> np.ndarray:
        """The dequantized values, fp32."""
        shape = self.shape(name)
        tensor = self._tensors[name]
        try:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise ConvertError(f"{self.path}: tensor {name}: {error}") from error
        return values.reshape(shape)


def float_value(value: float) -> float:
    """GGUF keeps fp32: 9.99999974e-06 there is 1e-05."""
    return float(str(np.float32(value)))
