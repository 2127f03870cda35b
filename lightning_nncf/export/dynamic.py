"""Which sizes of inputs and outputs a file leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_nncf.errors import ExportError, near

__all__ = ["BATCH", "open_axes", "open_outputs"]

BATCH = "batch"
"""Name of the batch size in a file."""


def open_axes(
    tensors: Sequence[Tensor], names: Sequence[str], shapes: Mapping[str, Mapping[int, str]], *, batch: bool
) -> list[dict[int, str]]:
    """Name the open axes of every input.

    Args:
        tensors: The inputs.
        names: Their names.
        shapes: By name of an input a name per open axis.
        batch: Whether the first size of the first tensor is open, in all tensors that have the same first size.

    Raises:
        ExportError: There is no such input or axis, a name is no identifier, or an open size is 1 in the example, which
            exporters take for a constant.

    >>> import torch
    >>> open_axes([torch.zeros(2, 5)], ["ids"], {"ids": {1: "length"}}, batch=True)
    [{0: 'batch', 1: 'length'}]
    """
    first = tensors[0].shape[0] if tensors[0].ndim else None
    axes: list[dict[int, str]] = [
        {0: BATCH} if batch and tensor.ndim > 0 and tensor.shape[0] == first else {} for tensor in tensors
    ]
    sizes: dict[str, int] = {}
    for name, opened in shapes.items():
        if name not in names:
            raise ExportError(f"`dynamic_shapes` names the input {name!r}, which there is none of; {near(name, names)}")
        index = list(names).index(name)
        tensor = tensors[index]
        for axis, size in opened.items():
            at = int(axis)
            if not -tensor.ndim <= at < tensor.ndim:
                raise ExportError(
                    f"`dynamic_shapes` opens axis {at} of {name!r}, which has the sizes {list(tensor.shape)}"
                )
            at %= tensor.ndim
            if not str(size).isidentifier():
                raise ExportError(f"`dynamic_shapes` names axis {at} of {name!r} {size!r}; use letters, digits and _")
            present = tensor.shape[at]
            if present < 2:
                raise ExportError(
                    f"`dynamic_shapes` opens axis {at} of {name!r}, which is {present} long in the example inputs, and "
                    "exporters take that for a constant; give inputs with a size of at least 2 there"
                )
            if sizes.setdefault(size, present) != present:
                raise ExportError(
                    f"`dynamic_shapes` calls different sizes {size!r}: {sizes[size]} and {present} in the example "
                    "inputs"
                )
            axes[index][at] = size
    return axes


def open_outputs(
    outputs: Sequence[Tensor], tensors: Sequence[Tensor], axes: Sequence[Mapping[int, str]]
) -> list[dict[int, str]]:
    """Guess the open axes of every output: those as long as an open axis of an input.

    Args:
        outputs: The outputs for the inputs.
        tensors: The inputs.
        axes: Open axes of every input.
    """
    batch = next(
        (tensor.shape[0] for tensor, opened in zip(tensors, axes, strict=True) if opened.get(0) == BATCH), None
    )
    lengths = {
        tensor.shape[axis]: name
        for tensor, opened in zip(tensors, axes, strict=True)
        for axis, name in opened.items()
        if name != BATCH
    }
    return [
        {
            axis: BATCH if axis == 0 and size == batch else lengths[size]
            for axis, size in enumerate(output.shape)
            if (axis == 0 and size == batch) or size in lengths
        }
        for output in outputs
    ]
