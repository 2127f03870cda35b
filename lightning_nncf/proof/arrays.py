"""Tensors as the arrays that runtimes take, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_nncf.errors import ExportError
from lightning_nncf.export.preparation import float_inputs

__all__ = ["element_name", "graph_inputs", "to_arrays", "to_tensors"]

_BITS = {
    "bfloat16": torch.bfloat16,
    "float8e4m3fn": torch.float8_e4m3fn,
    "float8e4m3fnuz": torch.float8_e4m3fnuz,
    "float8e5m2": torch.float8_e5m2,
    "float8e5m2fnuz": torch.float8_e5m2fnuz,
}
"""Types that numpy lacks, by their lower-case name in ONNX: they travel as their bits."""


def element_name(item: onnx.ValueInfoProto) -> str:
    """Return the name of an input's type in lower case, as in ``float16``.

    Raises:
        ExportError: The input is no tensor.
    """
    if item.type.WhichOneof("value") != "tensor_type":
        raise ExportError(
            f"input {item.name!r} is no tensor but a {item.type.WhichOneof('value')}, which this proof cannot make"
        )
    return str(onnx.TensorProto.DataType.Name(item.type.tensor_type.elem_type)).lower()


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of a file that are no weights."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in initializers]


def to_arrays(tensors: Sequence[Tensor | NDArray[Any]], inputs: Sequence[onnx.ValueInfoProto]) -> list[NDArray[Any]]:
    """Return tensors as arrays of the types that the inputs of a file have.

    Args:
        tensors: One per input; texts are arrays of texts.
        inputs: The inputs of the file.
    """
    return [_to_array(tensor, element_name(item), item) for tensor, item in zip(tensors, inputs, strict=True)]


def _to_array(tensor: Tensor | NDArray[Any], element: str, item: onnx.ValueInfoProto) -> NDArray[Any]:
    if isinstance(tensor, np.ndarray):
        return tensor
    if element in _BITS:
        bits = torch.int16 if element == "bfloat16" else torch.uint8
        narrow = tensor.detach().cpu().to(_BITS[element]).contiguous().view(bits).numpy()
        return narrow.view(np.uint16) if element == "bfloat16" else narrow
    dtype = onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
    return np.asarray(float_inputs(tensor).numpy(), dtype=dtype)


def to_tensors(outputs: Sequence[tuple[NDArray[Any], str]]) -> list[Tensor]:
    """Return outputs of a session as tensors; a text becomes a number that is the same for the same text.

    >>> to_tensors([(np.array([1, 2]), ""), (np.full(1, 0x3F80, np.uint16), "bfloat16")])
    [tensor([1, 2]), tensor([1.], dtype=torch.bfloat16)]
    """
    return [_to_tensor(np.array(array), kind) for array, kind in outputs]


def _to_tensor(array: NDArray[Any], kind: str) -> Tensor:
    if kind in _BITS:
        bits = array.view(np.int16) if kind == "bfloat16" else array
        return torch.from_numpy(bits).view(_BITS[kind])
    if array.dtype.kind in "UO":
        numbers = [
            int.from_bytes(hashlib.blake2b(str(text).encode(), digest_size=7).digest(), "big") for text in array.flat
        ]
        return torch.tensor(numbers, dtype=torch.int64).reshape(array.shape)
    return torch.from_numpy(array)
