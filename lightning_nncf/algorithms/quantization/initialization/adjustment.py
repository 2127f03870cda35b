"""What changes the weights themselves while quantization is initialized: SmoothQuant and bias correction."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_nncf.algorithms.quantization.initialization.bias_correction import bias_targets, correct_biases
from lightning_nncf.algorithms.quantization.initialization.initializer_config import QuantizationInitializerConfig
from lightning_nncf.algorithms.quantization.initialization.smooth_quant import smooth, smooth_groups
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.graph.graph import NetworkGraph

__all__ = ["WeightAdjustment"]


class WeightAdjustment:
    """SmoothQuant and bias correction of one network, as far as its configuration asks for them.

    Both end in ordinary weights, so that a checkpoint needs nothing to restore them.

    Args:
        config: Settings of the initialization.
        network: The network.
        graph: Its captured graph.
        setup: The quantization points.
    """

    def __init__(
        self, config: QuantizationInitializerConfig, network: nn.Module, graph: NetworkGraph, setup: QuantizationSetup
    ) -> None:
        self._config = config
        self._network = network
        self._groups = [] if config.smooth_quant is None else smooth_groups(network, graph, setup)
        self._corrected = False
        self._targets = [] if config.bias_correction is None else bias_targets(network, graph, setup)

    def smooth(self, quantizers: Sequence[Quantizer], data: CalibrationData) -> None:
        """Run SmoothQuant, before ranges are set."""
        config = self._config.smooth_quant
        if config is not None:
            smooth(self._network, self._groups, quantizers, data, alpha=config.alpha, num_samples=config.num_samples)

    def correct(self, quantizers: Sequence[Quantizer], data: CalibrationData) -> None:
        """Correct biases, when all quantizers have their ranges and bits and quantize; the first time only.

        Corrected biases are no longer those of the float network, so a second correction would add to the first.
        """
        config = self._config.bias_correction
        if config is not None and not self._corrected:
            self._corrected = True
            correct_biases(self._network, self._targets, quantizers, data, config.num_samples)

    def summary(self) -> list[str]:
        """Say what will be changed, and what cannot be."""
        lines = []
        if self._config.smooth_quant is not None:
            layers = sum(len(group.layers) for group in self._groups)
            lines.append(f"SmoothQuant: {len(self._groups)} activations in front of {layers} linear layers")
        if self._config.bias_correction is not None:
            left = [target.layer for target in self._targets if not target.correctable]
            line = f"Bias correction: {len(self._targets) - len(left)} layers"
            if left:
                line += f"; {len(left)} have neither a bias nor a batch norm behind them: {', '.join(left)}"
            lines.append(line)
        return lines
