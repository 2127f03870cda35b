"""Correction of biases: the mean of each output channel of a quantized layer is moved back to that of the float layer.

Rounding a weight changes the mean of what its layer puts out, which quantization error that is noise does not (Nagel et
al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, the empirical form).
Layers are corrected one after the other in the order of the network, so that each is measured behind corrected ones.

A layer without a bias is corrected through the batch norm behind it: lowering the running mean by the shift is the same
as a bias, and export folds it into one. A layer that has neither is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lightning_nncf.algorithms.quantization.initialization.range_init import bypassed
from lightning_nncf.algorithms.quantization.placement.operators import LINEAR, operator_of
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.calibration import CalibrationData, Reduce, run
from lightning_nncf.graph.graph import NetworkGraph, OpNode

__all__ = ["BiasTarget", "bias_targets", "channel_sums", "correct_biases"]


@dataclass(frozen=True, kw_only=True)
class BiasTarget:
    """A layer with a quantized weight.

    Args:
        layer: Path of its module.
        norm: Path of the batch norm that takes the correction because the layer has no bias.
        correctable: Whether there is a bias or such a batch norm.
    """

    layer: str
    norm: str | None = None
    correctable: bool = True


def bias_targets(network: nn.Module, graph: NetworkGraph, setup: QuantizationSetup) -> list[BiasTarget]:
    """Find the layers with quantized weights, in the order in which they run.

    Args:
        network: The network.
        graph: Its captured graph.
        setup: The quantization points.
    """
    weighted = {address for point in setup.points if point.kind == "weight" for address in point.ops}
    modules = [op.module for op in graph.ops() if operator_of(op) == "BatchNorm"]
    targets: dict[str, BiasTarget] = {}
    for op in graph.ops():
        if op.address not in weighted or operator_of(op) not in LINEAR or op.module in targets:
            continue
        layer = network.get_submodule(op.module)
        norm = _norm_behind(network, graph, op)
        if not isinstance(layer, (_ConvNd, nn.Linear)):
            targets[op.module] = BiasTarget(layer=op.module, correctable=False)
        elif layer.bias is not None:
            targets[op.module] = BiasTarget(layer=op.module)
        else:
            alone = norm is not None and modules.count(norm) == 1
            targets[op.module] = BiasTarget(layer=op.module, norm=norm if alone else None, correctable=alone)
    return list(targets.values())


def correct_biases(
    network: nn.Module,
    targets: Sequence[BiasTarget],
    quantizers: Sequence[Quantizer],
    data: CalibrationData,
    num_samples: int,
) -> int:
    """Correct the biases of quantized layers, in evaluation mode; one pass over the data for each and one before them.

    In several processes the means are taken over the samples of all, so that all get the same biases.

    Args:
        network: The network, quantizing.
        targets: Its layers, in the order in which they run.
        quantizers: All quantizers.
        data: The data, whose `forward` must call this network.
        num_samples: Samples to run in each pass, per process.

    Returns:
        How many layers were corrected; those that no sample reached are not.
    """
    targets = [target for target in targets if target.correctable]
    if not targets:
        return 0
    layers = [network.get_submodule(target.layer) for target in targets]
    with bypassed(quantizers):
        wanted = _means(layers, data, num_samples, "Bias correction: float")
    corrected = 0
    for index, (target, layer, mean) in enumerate(zip(targets, layers, wanted, strict=True)):
        (found,) = _means([layer], data, num_samples, f"Bias correction: {index + 1} of {len(targets)}")
        if mean is None or found is None:
            continue
        _shift(network, target, layer, mean - found)
        corrected += 1
    return corrected


def channel_sums(output: Tensor, axis: int) -> tuple[Tensor, int]:
    """Sum over everything but the channels, in float64.

    Args:
        output: Output of a layer.
        axis: Axis of its channels.

    Returns:
        ``[C]`` sums on the CPU, and how many values each is over.

    >>> channel_sums(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), -1)
    (tensor([4., 7.], dtype=torch.float64), 2)
    """
    values = output.detach().double().movedim(axis, 0).flatten(1)
    return values.sum(1).cpu(), values.shape[1]


class _ChannelMean:
    """Running mean of each output channel of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        spatial = len(layer.kernel_size) if isinstance(layer, _ConvNd) else 0
        weight = layer.weight
        assert isinstance(weight, Tensor)
        channels = layer.out_channels if isinstance(layer, _ConvNd) else weight.shape[0]
        self.axis = -1 - spatial
        self.sums = torch.zeros(channels, dtype=torch.float64)
        self.count = 0

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        sums, count = channel_sums(output, self.axis)
        self.sums += sums
        self.count += count

    def result(self, reduce: Reduce | None) -> Tensor | None:
        values = torch.cat([self.sums, torch.tensor([self.count], dtype=torch.float64)])
        if reduce is not None:
            values = reduce(values, "sum")
        return values[:-1] / values[-1] if values[-1] > 0 else None


def _means(
    layers: Sequence[nn.Module], data: CalibrationData, num_samples: int, description: str
) -> list[Tensor | None]:
    """Run the network and return the mean of each output channel of layers, before any quantizer behind them."""
    means = [_ChannelMean(layer) for layer in layers]
    # Every pass sees the same samples, whatever the loader shuffles or distorts.
    with _watched(layers, means), isolate_rng():
        run(data, num_samples, description)
    return [mean.result(data.reduce) for mean in means]


@contextmanager
def _watched(layers: Sequence[nn.Module], means: Sequence[_ChannelMean]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer, mean in zip(layers, means, strict=True):
            handle = layer.register_forward_hook(mean.hook, prepend=True)
            stack.callback(handle.remove)
        yield


def _shift(network: nn.Module, target: BiasTarget, layer: nn.Module, shift: Tensor) -> None:
    """Add a shift to the output channels of a layer."""
    if target.norm is None:
        taker, sign = layer.bias, 1
    else:
        taker, sign = network.get_submodule(target.norm).running_mean, -1
    assert isinstance(taker, Tensor)
    with torch.no_grad():
        taker.copy_((taker.double() + sign * shift.to(taker.device)).to(taker.dtype))


def _norm_behind(network: nn.Module, graph: NetworkGraph, op: OpNode) -> str | None:
    """Return the batch norm that alone takes the output of an op, None if there is none with statistics of its own."""
    takers = {edge.target for edge in graph.outputs_of(op.address)}
    norm = graph[takers.pop()] if len(takers) == 1 else None
    if norm is None or operator_of(norm) != "BatchNorm":
        return None
    module = network.get_submodule(norm.module)
    return norm.module if isinstance(module, _BatchNorm) and module.running_mean is not None else None
