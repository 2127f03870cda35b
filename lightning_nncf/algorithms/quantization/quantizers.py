"""Quantizers: modules that fake-quantize a tensor with trainable ranges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.quantization import range_floor
from lightning_nncf.algorithms.quantization.learning import RangeLearning
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode, QuantizerConfig
from lightning_nncf.core.gradients import scale_gradient
from lightning_nncf.core.idle import idle
from lightning_nncf.ops import fake_quantize_asymmetric, fake_quantize_symmetric, normalized, rectified
from lightning_nncf.ops.grids import asymmetric_grid, symmetric_grid

__all__ = ["AsymmetricQuantizer", "Quantizer", "SymmetricQuantizer", "build_quantizer"]


class Quantizer(nn.Module, ABC):
    """A module that quantizes and dequantizes a tensor.

    Args:
        config: Number format.
        axis: Axis of the channels in the tensors to quantize, or -1 for one range per tensor.
        learning: How the range learns; default: its linear values, by their plain gradients.

    Parameters have the shape ``(1,)`` for one range per tensor, else ones with the number of channels at `axis`. A
    range that learns as a logarithm has it in its parameter, but linear values under the same name in state dicts: in
    double precision, from which the parameter comes back to the bit (to 2**-53 within 2**-28 of zero).
    """

    width: ClassVar[str]
    """Name of the parameter that may learn as a logarithm."""

    floor: range_floor.RangeFloor = "data"
    """How small a range statistics may give."""

    def __init__(self, config: QuantizerConfig, axis: int, learning: RangeLearning | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.learning = learning or RangeLearning()
        self._learns_plainly = self.learning == RangeLearning()
        self.enabled = True
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize a tensor, or return it as it is while the quantizer is not enabled."""
        return self.quantize(x) if self.enabled else idle(self, x)

    @abstractmethod
    def quantize(self, x: Tensor) -> Tensor:
        """Fake-quantize a tensor."""

    @property
    def shape(self) -> torch.Size:
        """Shape of the parameters, which have fewer channels once filters are removed."""
        return self._width.shape

    @property
    def config(self) -> QuantizerConfig:
        """Number format; a new one takes effect at once."""
        return self._config

    @config.setter
    def config(self, config: QuantizerConfig) -> None:
        self._config = config
        # plain attributes: forward runs in every step
        self.quant_min, self.quant_max = config.quant_range()
        self.levels = config.levels

    @abstractmethod
    def range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value that come out, of the shape of the parameters."""

    @abstractmethod
    def quantization_parameters(self) -> tuple[Tensor, Tensor, int, int]:
        """Return the affine map to integers, for export.

        Returns:
            ``(scale, zero_point, quant_min, quant_max)``: `scale` in float32 and `zero_point` in int32, both with
            one value per channel or one value, such that ``(clamp(round(x / scale) + zero_point, quant_min,
            quant_max) - zero_point) * scale`` is what `forward` gives. The integers are signed where `quant_min` is
            negative, else unsigned.
        """

    @abstractmethod
    def _assign(self, low: Tensor, high: Tensor) -> None:
        """Set the parameters from checked statistics of the shape of the parameters."""

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Set the parameters from the smallest and the largest value seen.

        Args:
            low: Smallest value, one or one per channel.
            high: Largest value, of the shape of `low`.

        Raises:
            InitializationError: The statistics are NaN or infinite, or low lies above high.
        """
        low, high = range_floor.checked_ends(low, high, self.shape)
        with torch.no_grad():
            self._assign(low, high)

    @torch.no_grad()
    def rescale(self, factors: Tensor) -> None:
        """Multiply both ends of the range.

        Args:
            factors: One factor, or one per channel in the shape of the parameters.
        """
        self._assign_linear(self._linear() * factors)

    @property
    def _width(self) -> nn.Parameter:
        """The parameter that may learn as a logarithm, looked up faster than `get_parameter` does."""
        return self._parameters[self.width]  # type: ignore[return-value]

    def _learned_width(self) -> Tensor:
        """Return the scale or the width in linear values, with the gradients that it is to learn by."""
        if self._learns_plainly:
            return self._parameters[self.width]  # type: ignore[return-value]
        return self._learning(self._linear())

    def _linear(self) -> Tensor:
        """Return the scale or the width, in linear values."""
        parameter = self._width
        return parameter.exp() if self.learning.logarithm else parameter

    def _assign_linear(self, values: Tensor) -> None:
        """Set the scale or the width from linear values."""
        self._width.copy_(values.log() if self.learning.logarithm else values)

    def _learning(self, values: Tensor) -> Tensor:
        """Return values of the range with the gradients that they are to learn by."""
        return scale_gradient(values, self.learning.factor(self.quant_max))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.learning.logarithm:
            destination[prefix + self.width] = self._width.detach().double().exp()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        key = prefix + self.width
        if self.learning.logarithm and key in state_dict:
            values: Tensor = state_dict[key].detach().double().abs()
            least = torch.finfo(torch.float32).tiny
            state_dict[key] = values.clamp_min(least).log().to(self._width.dtype)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        """Return the number format for `repr`."""
        granularity = f"axis={self.axis}" if self.axis >= 0 else "per tensor"
        return f"bits={self.config.bits}, {self.quant_min}..{self.quant_max}, {granularity}"


class SymmetricQuantizer(Quantizer):
    """A quantizer with a trainable upper end; zero maps to the integer zero.

    >>> quantizer = SymmetricQuantizer(QuantizerConfig(bits=4, signed=True), (1,), -1)
    >>> quantizer.set_range(torch.tensor(-7.0), torch.tensor(3.0))
    >>> quantizer(torch.tensor([-9.0, 0.6, 9.0])).tolist()
    [-8.0, 1.0, 7.0]
    """

    width: ClassVar[str] = "scale"

    def __init__(
        self, config: QuantizerConfig, shape: tuple[int, ...], axis: int, learning: RangeLearning | None = None
    ) -> None:
        super().__init__(config, axis, learning)
        self.scale = nn.Parameter(torch.zeros(shape) if self.learning.logarithm else torch.ones(shape))

    def quantize(self, x: Tensor) -> Tensor:
        """Fake-quantize a tensor."""
        scale = self._parameters["scale"] if self._learns_plainly else self._learned_width()
        return fake_quantize_symmetric(x, scale, self.quant_min, self.quant_max, self.axis)  # type: ignore[arg-type]

    def rectified(self, x: Tensor, top: float) -> Tensor | None:
        """Fake-quantize what a ReLU that ends at `top` makes of a tensor, if that is worth more than doing both."""
        if not self.enabled or self.quant_min != 0 or self.axis >= 0 or not rectified.pays(x):
            return None
        return rectified.fake_quantize_rectified(x, self._learned_width(), self.quant_max, top)

    def normalized(self, norm: nn.Module, x: Tensor, top: float | None) -> Tensor | None:
        """Fake-quantize what a batch norm, and a ReLU that ends at `top`, make of a tensor, if that is worth more."""
        if not self.enabled or self.axis >= 0 or (top is not None and self.quant_min != 0):
            return None
        if not normalized.pays(norm, x):
            return None
        scale = self._learned_width()
        return normalized.fake_quantize_normalized(norm, x, scale, self.quant_min, self.quant_max, top)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value that come out, of the shape of the parameters."""
        _, low, high = symmetric_grid(self._linear().detach(), self.quant_min, self.quant_max)
        return low, high

    def quantization_parameters(self) -> tuple[Tensor, Tensor, int, int]:
        """Return ``(scale, zero_point, quant_min, quant_max)``; the zero points are 0."""
        step, _, _ = symmetric_grid(self._linear().detach().float(), self.quant_min, self.quant_max)
        scale = step.flatten()
        return scale, torch.zeros_like(scale, dtype=torch.int32), self.quant_min, self.quant_max

    def _assign(self, low: Tensor, high: Tensor) -> None:
        if self.config.signed is None:
            self.config = replace(self.config, signed=bool((low < 0).any()))
        self._assign_linear(range_floor.symmetric_scale(low, high, self.floor))


class AsymmetricQuantizer(Quantizer):
    """A quantizer with trainable low end and width, used after tuning so that zero is one of the levels.

    >>> quantizer = AsymmetricQuantizer(QuantizerConfig(bits=2, mode="asymmetric"), (1,), -1)
    >>> quantizer.set_range(torch.tensor(-1.0), torch.tensor(2.0))
    >>> quantizer(torch.tensor([-9.0, 0.6, 9.0])).tolist()
    [-1.0, 1.0, 2.0]
    """

    width: ClassVar[str] = "input_range"

    def __init__(
        self, config: QuantizerConfig, shape: tuple[int, ...], axis: int, learning: RangeLearning | None = None
    ) -> None:
        super().__init__(config, axis, learning)
        self.input_low = nn.Parameter(torch.zeros(shape))
        self.input_range = nn.Parameter(torch.zeros(shape) if self.learning.logarithm else torch.ones(shape))

    def quantize(self, x: Tensor) -> Tensor:
        """Fake-quantize a tensor."""
        low, width = self._learning(self.input_low), self._learned_width()
        return fake_quantize_asymmetric(x, low, width, self.levels, self.axis)

    def rescale(self, factors: Tensor) -> None:
        """Multiply both ends of the range."""
        super().rescale(factors)
        with torch.no_grad():
            self.input_low.mul_(factors)

    def range(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value that come out, of the shape of the parameters."""
        _, _, low, high = asymmetric_grid(self.input_low.detach(), self._linear().detach(), self.levels)
        return low, high

    def quantization_parameters(self) -> tuple[Tensor, Tensor, int, int]:
        """Return ``(scale, zero_point, quant_min, quant_max)`` of the tuned range."""
        low, width = self.input_low.detach().float(), self._linear().detach().float()
        step, zero_point, _, _ = asymmetric_grid(low, width, self.levels)
        zero_points = zero_point.flatten().to(torch.int32) + self.quant_min
        return step.flatten(), zero_points, self.quant_min, self.quant_max

    def _assign(self, low: Tensor, high: Tensor) -> None:
        low, width = range_floor.asymmetric_range(low, high, self.floor)
        self.input_low.copy_(low)
        self._assign_linear(width)


_CLASSES: dict[QuantizationMode, Callable[[QuantizerConfig, tuple[int, ...], int, RangeLearning | None], Quantizer]] = {
    "symmetric": SymmetricQuantizer,
    "asymmetric": AsymmetricQuantizer,
}


def build_quantizer(
    config: QuantizerConfig,
    shape: Sequence[int],
    channel_axis: int,
    learning: RangeLearning | None = None,
    *,
    floor: range_floor.RangeFloor = "data",
) -> Quantizer:
    """Build the quantizer of one place.

    Args:
        config: Number format.
        shape: Shape of the tensors to quantize; only its length and its channels count.
        channel_axis: Axis of the channels in it, used when ``config.per_channel``; may count from the end.
        learning: How the range learns.
        floor: How small a range statistics may give.

    Returns:
        A quantizer with parameters of shape ``(1,)`` per tensor, or ``[..., C, ...]`` with ones elsewhere.

    >>> build_quantizer(QuantizerConfig(per_channel=True, signed=True), (8, 3, 5, 5), 0).scale.shape
    torch.Size([8, 1, 1, 1])
    """
    axis = -1
    parameters: tuple[int, ...] = (1,)
    if config.per_channel:
        if not -len(shape) <= channel_axis < len(shape):
            raise ValueError(f"`channel_axis` must be an axis of the shape {tuple(shape)}, got {channel_axis}")
        axis = channel_axis % len(shape)
        parameters = tuple(size if dim == axis else 1 for dim, size in enumerate(shape))
    quantizer = _CLASSES[config.mode](config, parameters, axis, learning)
    quantizer.floor = floor
    return quantizer
