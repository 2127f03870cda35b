"""Padding of convolutions whose device knows no unsigned 4-bit numbers.

VPU and NPU multiply signed 4-bit numbers with zero as padding. They take unsigned inputs, as behind a ReLU, by moving
them down by half of their range, and the padding with them. For it to be zero there, it must be half of the range here:
the network is trained and exported with that value around the inputs of such convolutions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.graph.graph import InsertionPoint, NetworkGraph
from lightning_nncf.hooks.insertion import HookSite, insert, sites

__all__ = ["PaddedConvolution", "fix_padding_values", "insert_paddings", "padded_convolutions"]

_log = logging.getLogger(__name__)

_ALGORITHM = "padding"
_MOST_BITS = 4


@dataclass(frozen=True, kw_only=True)
class PaddedConvolution:
    """A convolution whose padding depends on the formats of its quantizers.

    Args:
        activation: Id of the quantization point of its input.
        weight: Id of the quantization point of its weight.
        site: Where its input is seen.
        widths: Zeros that it adds at the beginning and end of each axis, the last axis first.
    """

    activation: int
    weight: int
    site: HookSite
    widths: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {
            "activation": self.activation,
            "weight": self.weight,
            "site": self.site.to_dict(),
            "widths": list(self.widths),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PaddedConvolution:
        """Rebuild from `to_dict`."""
        return cls(
            activation=values["activation"],
            weight=values["weight"],
            site=HookSite.from_dict(values["site"]),
            widths=tuple(values["widths"]),
        )


class _Condition:
    """Whether the padding is half of the range, asked in every forward because bit widths and signs are found late.

    It holds the quantizers without registering them a second time.
    """

    def __init__(self, activation: Quantizer, weight: Quantizer) -> None:
        self.activation = activation
        self.weight = weight

    def __bool__(self) -> bool:
        config = self.activation.config
        return (
            self.activation.enabled
            and config.mode == "symmetric"
            and config.bits == _MOST_BITS
            and not config.signed
            and not config.per_channel
            and self.weight.enabled
            and self.weight.config.bits <= _MOST_BITS
        )


class _HalfRangeBorder(nn.Module):
    """Surrounds a tensor ``[..., H, W]`` with half of its quantizer's range."""

    def __init__(self, condition: _Condition, widths: Sequence[int]) -> None:
        super().__init__()
        self.condition = condition
        self.widths = list(widths)
        self.constant: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.condition:
            return x
        if self.constant is not None:
            return F.pad(x, self.widths, value=self.constant)
        # a tensor, not a number: reading a number would wait for the GPU in every step
        inside = F.pad(x.new_ones(x.shape[-2:]), self.widths).bool()
        return torch.where(inside, F.pad(x, self.widths), self.value().to(x.dtype))

    def value(self) -> Tensor:
        """Return half of the range."""
        return self.condition.activation.range()[1] / 2


class _NoPadding(nn.Module):
    """Takes the place of the attribute ``padding`` while the border is added beforehand."""

    def __init__(self, condition: _Condition) -> None:
        super().__init__()
        self.condition = condition

    def forward(self, padding: str | tuple[int, ...]) -> str | tuple[int, ...]:
        return (0, 0) if self.condition else padding


def padded_convolutions(
    network: nn.Module, graph: NetworkGraph, setup: QuantizationSetup
) -> tuple[PaddedConvolution, ...]:
    """Find the convolutions of a network whose padding may have to be adjusted.

    These are the layers `nn.Conv2d` with quantized input and weight that pad with zeros; one that is called several
    times is reported and left as it is.
    """
    return tuple(_found(network, graph, setup))


def _found(network: nn.Module, graph: NetworkGraph, setup: QuantizationSetup) -> Iterator[PaddedConvolution]:
    inputs = {op: index for index, p in enumerate(setup.points) if p.kind == "activation" for op in p.ops}
    for index, point in enumerate(setup.points):
        if point.kind != "weight":
            continue
        ops = [op for op in point.ops if graph[op].function == "conv2d" and op in inputs]
        for module in dict.fromkeys(graph[op].module for op in ops):
            calls = [op for op in ops if graph[op].module == module]
            layer = network.get_submodule(module)
            if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros":
                continue
            widths = tuple(layer._reversed_padding_repeated_twice)
            if not any(widths):
                continue
            if len(calls) > 1:
                _log.warning("the padding of %r is not adjusted to 4 bits because it is called several times", module)
                continue
            (site,) = sites(graph, network, InsertionPoint(kind="input", address=calls[0], port=0))
            yield PaddedConvolution(activation=inputs[calls[0]], weight=index, site=site, widths=widths)


def insert_paddings(
    network: nn.Module, convolutions: Sequence[PaddedConvolution], quantizers: Sequence[Quantizer], *, priority: int
) -> None:
    """Insert what adjusts the padding of convolutions.

    Args:
        network: The network.
        convolutions: The convolutions.
        quantizers: Quantizers by the id of their point.
        priority: Priority after that of the quantizers.
    """
    for convolution in convolutions:
        condition = _Condition(quantizers[convolution.activation], quantizers[convolution.weight])
        layer = convolution.site.module
        attribute = HookSite(
            kind="attribute", module=layer, holder=layer, slot="padding", frame=layer, parameter="padding"
        )
        border = _HalfRangeBorder(condition, convolution.widths)
        insert(network, convolution.site, border, algorithm=_ALGORITHM, priority=priority)
        insert(network, attribute, _NoPadding(condition), algorithm=_ALGORITHM, priority=priority)


def fix_padding_values(network: nn.Module) -> None:
    """Make the values around inputs plain numbers, as exported files need them."""
    for module in network.modules():
        if isinstance(module, _HalfRangeBorder) and module.condition:
            module.constant = float(module.value())
