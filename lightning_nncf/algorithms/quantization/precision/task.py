"""What every search for bit widths works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from lightning_nncf.algorithms.quantization.initialization.initializer_config import PrecisionConfig
from lightning_nncf.algorithms.quantization.precision.space import SearchSpace
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import QuantizationPoint
from lightning_nncf.calibration import CalibrationData

__all__ = ["SearchTask"]


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """A search to be done; sequences have one entry per quantization point.

    Args:
        space: What may be chosen.
        points: The points.
        quantizers: Their quantizers, with ranges but idle; a search leaves them idle.
        weights: The weights, by position of their point.
        fit: Sets the range of a quantizer of a weight for the bits that it has.
        network: The network.
        data: The data, with what the search asks for.
        config: Settings.
        adaptation_samples: Samples for batch norm to adapt to before the network is judged.
    """

    space: SearchSpace
    points: Sequence[QuantizationPoint]
    quantizers: Sequence[Quantizer]
    weights: Mapping[int, nn.Parameter]
    fit: Callable[[Quantizer], None]
    network: nn.Module
    data: CalibrationData
    config: PrecisionConfig
    adaptation_samples: int

    @property
    def sizes(self) -> dict[int, int]:
        """Number of values of each weight, by position of its point."""
        return {index: weight.numel() for index, weight in self.weights.items()}
