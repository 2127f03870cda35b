from __future__ import annotations

import pytest
import torch

from lightning_nncf.algorithms.quantization.initialization.range_fit import fit_range
from lightning_nncf.algorithms.quantization.learning import RangeLearning
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode, QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer


def _fitted(weight: torch.Tensor, bits: int, mode: QuantizationMode, per_channel: bool, logarithm: bool) -> Quantizer:
    config = QuantizerConfig(
        bits=bits, mode=mode, per_channel=per_channel, signed=True if mode == "symmetric" else None
    )
    quantizer = build_quantizer(config, weight.shape, 0, RangeLearning(logarithm=logarithm))
    dims = tuple(range(1, weight.ndim)) if per_channel else tuple(range(weight.ndim))
    quantizer.set_range(weight.amin(dims), weight.amax(dims))
    fit_range(quantizer, weight)
    return quantizer


@pytest.mark.parametrize("logarithm", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_narrower_or_wider_range_changes_the_weight_less(
    bits: int, mode: QuantizationMode, per_channel: bool, logarithm: bool
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 500) * torch.tensor([[0.02], [1.0], [5.0]])
    quantizer = _fitted(weight, bits, mode, per_channel, logarithm)

    def error() -> torch.Tensor:
        return (quantizer.quantize(weight) - weight).square().sum(1 if per_channel else None)

    best = error()
    for factor in (0.5, 0.8, 1.25, 2.0):
        quantizer.rescale(torch.full(quantizer.shape, factor))
        assert bool((error() >= best * 0.999).all()), factor
        quantizer.rescale(torch.full(quantizer.shape, 1 / factor))


def test_the_best_scale_of_normal_values_is_the_known_one() -> None:
    # Two bits are levels -2, -1, 0 and 1 times the step; a fine search over steps is the oracle.
    weight = torch.special.ndtri(torch.linspace(0, 1, 20_001, dtype=torch.float64)[1:-1]).float()
    steps = torch.linspace(0.5, 2, 301)
    errors = [(s * torch.clamp(torch.round(weight / s), -2, 1) - weight).square().mean() for s in steps]
    expected = float(steps[int(torch.stack(errors).argmin())])
    quantizer = _fitted(weight, 2, "symmetric", False, False)
    assert float(quantizer.quantization_parameters()[0]) == pytest.approx(expected, rel=0.05)


def test_8_bits_keep_nearly_the_whole_range() -> None:
    torch.manual_seed(0)
    weight = torch.rand(1000) * 2 - 1
    assert float(_fitted(weight, 8, "symmetric", False, False).range()[1]) > 0.94
