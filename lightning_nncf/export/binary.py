"""Binary weights and activations as numpy arrays, read from the modules that make them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_nncf.algorithms.binarization.binarizers import ActivationBinarizer, WeightBinarizer
from lightning_nncf.export.grid import Grid

__all__ = ["Step", "binary_weight"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A function that is 0 up to a threshold and a constant above it.

    Args:
        height: The constant, float32, shape [1].
        threshold: One per channel, float32, of a shape that broadcasts against the activations.
    """

    height: NDArray[np.float32]
    threshold: NDArray[np.float32]

    @classmethod
    def of(cls, binarizer: ActivationBinarizer) -> Step:
        """Read the step of a binarizer."""
        with torch.no_grad():
            height, share = binarizer.height().float(), binarizer.threshold_logit.float().sigmoid()
            return cls(height=height.numpy(), threshold=(share * height).numpy())


def binary_weight(binarizer: WeightBinarizer, weight: NDArray[np.float32]) -> tuple[Grid, NDArray[np.int64]]:
    """Return a grid of two integers, -1 and 1, and the signs of a weight on it.

    >>> binarizer = WeightBinarizer("xnor")
    >>> binarizer.enabled = True
    >>> grid, signs = binary_weight(binarizer, np.array([[1.0, -3.0], [0.0, 4.0]], np.float32))
    >>> grid.levels, grid.scale.tolist(), signs.tolist()
    (2, [2.0, 2.0], [[1, -1], [-1, 1]])
    """
    with torch.no_grad():
        # The instance's forward is the export marker by now.
        values = WeightBinarizer.forward(binarizer, torch.tensor(weight)).numpy()
    filters = np.abs(values).reshape(len(values), -1).max(axis=1)
    scale = filters if binarizer.mode == "xnor" else filters.max(keepdims=True)
    grid = Grid(
        scale=scale,
        zero_point=np.zeros(scale.shape, np.int64),
        quant_min=-1,
        quant_max=1,
        axis=0 if scale.size > 1 else -1,
        bits=1,
        step=2,
    )
    return grid, np.where(weight > 0, 1, -1).astype(np.int64)
