"""Inputs for a file without its network: such as its metadata describes, else random ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_nncf.core.values import make_values
from lightning_nncf.errors import ExportError
from lightning_nncf.proof.arrays import element_name

__all__ = ["VALUES", "make_inputs"]

VALUES = "values"
"""Key of a file's metadata under which it says what its inputs held in calibration, one description per input."""

_IMAGE, _LENGTH = 64, 8
_SHARE = 8
"""Inputs may take this part of the machine's memory: outputs and what lies between are larger."""
_FLOATS = ("float", "double", "float16", "bfloat16", "float8e4m3fn", "float8e5m2")
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def make_inputs(
    inputs: Sequence[onnx.ValueInfoProto], metadata: Mapping[str, str], *, batch_size: int, seed: int
) -> list[Tensor | NDArray[Any]]:
    """Make inputs of the sizes and types that a file declares.

    Args:
        inputs: Inputs of the file.
        metadata: What the file says about itself.
        batch_size: Size of open first dimensions; others have the size of the example at export, or a small one.
        seed: Seed of the random numbers.

    Raises:
        ExportError: The inputs would take more memory than the machine can spare, or have a type that cannot be made.
    """
    generator = torch.Generator().manual_seed(seed)
    described = json.loads(metadata[VALUES]) if VALUES in metadata else []
    described = described if len(described) == len(inputs) else [{}] * len(inputs)
    sizes: dict[str, int] = {}
    shapes = [_shape(item, known, sizes, batch_size) for item, known in zip(inputs, described, strict=True)]
    _require_memory(inputs, shapes)
    return [_make(item, shape, known, generator) for item, shape, known in zip(inputs, shapes, described, strict=True)]


def _shape(item: onnx.ValueInfoProto, known: Mapping[str, Any], sizes: dict[str, int], batch_size: int) -> list[int]:
    element_name(item)  # a tensor, or an error that says so
    dims = item.type.tensor_type.shape.dim
    seen = known.get("shape", [])
    shape = []
    for axis, dim in enumerate(dims):
        size = dim.dim_value
        if size <= 0:
            size = batch_size if axis == 0 else _IMAGE if axis > 1 and len(dims) > 3 else _LENGTH
            size = seen[axis] if axis > 0 and len(seen) == len(dims) else size
            size = sizes.setdefault(dim.dim_param, size) if dim.dim_param else size
        shape.append(size)
    return shape


def _require_memory(inputs: Sequence[onnx.ValueInfoProto], shapes: Sequence[Sequence[int]]) -> None:
    largest = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _SHARE
    # Random numbers are made in 32 bits or more, whatever the type of the input.
    sizes = [4 * int(np.prod(shape, dtype=object)) for shape in shapes]
    if sum(sizes) > largest:
        worst = max(range(len(sizes)), key=sizes.__getitem__)
        raise ExportError(
            f"input {inputs[worst].name!r} is declared with the sizes {list(shapes[worst])} and would take "
            f"{sizes[worst] / 2**30:.3g} GiB; this proof spends at most {largest / 2**30:.3g} GiB of this "
            "machine's memory on inputs. Prove the file on a larger machine, or one exported with smaller or open sizes"
        )


def _make(
    item: onnx.ValueInfoProto, shape: Sequence[int], known: Mapping[str, Any], generator: torch.Generator
) -> Tensor | NDArray[Any]:
    element = element_name(item)
    if element == "string":
        words = np.array(["a", "bc", "def"])
        texts: NDArray[Any] = words[torch.randint(0, len(words), tuple(shape), generator=generator).numpy()]
        return texts
    if element not in _FLOATS + _INTEGERS:
        raise ExportError(f"input {item.name!r} has the type {element}, of which this proof cannot make values")
    values = {key: value for key, value in known.items() if key not in ("shape", "dtype")}
    # 0 and 1 are valid indices, masks and token types; the type of the input is given to them when they are fed.
    dtype = "float32" if element in _FLOATS else "int64"
    return make_values({"high": 1, **values, "shape": list(shape), "dtype": dtype}, generator)
