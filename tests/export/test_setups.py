"""Every number format of weights and activations, in both export formats, in the runtimes, against PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.proof.int8_layers import count_int8_layers
from tests.export.networks import RUNS_SEVERAL_ZERO_POINTS, for_weight, quick_export

_RUNTIMES = {"qdq": (OnnxRuntimeModel, OpenVINOModel), "openvino_fq": (OpenVINOModel,)}


def _modes() -> Iterator[dict[str, Any]]:
    yield {"mode": "symmetric", "signed": True}
    yield {"mode": "symmetric", "signed": False}
    yield {"mode": "asymmetric"}


def _setups(*, half_range: bool) -> Iterator[dict[str, Any]]:
    for bits, mode, per_channel in itertools.product((8, 7, 4, 3, 2), _modes(), (False, True)):
        for narrow in (False, True):
            yield {"bits": bits, **mode, "per_channel": per_channel, "narrow_range": narrow}
        if half_range and bits == 8:
            yield {"bits": bits, **mode, "per_channel": per_channel, "half_range": True}


def _name(setup: dict[str, Any]) -> str:
    words = [str(setup["bits"]), setup["mode"][:4], {True: "signed", False: "unsigned"}.get(setup.get("signed"), "")]
    words += [name for name in ("per_channel", "narrow_range", "half_range") if setup.get(name)]
    return "-".join(word for word in words if word)


def _activation(low: float, high: float, channels: int, rank: int, **settings: Any) -> Quantizer:
    """A quantizer whose channels, if it tells them apart, have ranges from the given one down to half of it."""
    config = QuantizerConfig(**settings)
    quantizer = build_quantizer(config, (1, channels, *[1] * (rank - 2)), 1)
    share = torch.linspace(1.0, 0.5, channels) if config.per_channel else torch.ones(1)
    quantizer.set_range(low * share, high * share)
    return quantizer


class _Parallel(nn.Module):
    """A convolution and a linear layer side by side, so that each output is one layer away from the input."""

    def __init__(self, weights: dict[str, Any], activations: dict[str, Any]) -> None:
        super().__init__()
        self.image, self.vector = (_activation(-3.0, 3.0, 4, rank) for rank in (4, 2))
        self.conv, self.linear = nn.Conv2d(4, 6, 3), nn.Linear(4, 6)
        self.conv_weight, self.linear_weight = (for_weight(m.weight, **weights) for m in (self.conv, self.linear))
        self.conv_output = _activation(-1.0, 1.5, 6, 4, **activations)
        self.linear_output = _activation(-1.0, 1.5, 6, 2, **activations)

    def forward(self, image: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        maps = F.conv2d(self.image(image), self.conv_weight(self.conv.weight), self.conv.bias)
        rows = F.linear(self.vector(vector), self.linear_weight(self.linear.weight), self.linear.bias)
        return self.conv_output(maps), self.linear_output(rows)


def _check(network: _Parallel, runtimes: Sequence[Any], export_format: str, path: Path) -> list[Any]:
    """Export, and compare runtimes: at most one step apart anywhere, and equal in most places.

    Sums of a few coarse products often lie next to the border between two steps.
    """
    inputs = torch.randn(4, 4, 8, 8), torch.randn(64, 4)
    network = network.eval()
    quick_export(network, inputs, path, export_format=export_format, dynamic_batch=False)
    with torch.no_grad():
        expected = network(*inputs)
    loaded = [runtime(path) for runtime in runtimes]
    for model in loaded:
        for got, value, quantizer in zip(
            model(*inputs), expected, (network.conv_output, network.linear_output), strict=True
        ):
            scale = quantizer.quantization_parameters()[0]
            step = scale.reshape(1, -1, *[1] * (value.ndim - 2)) if len(scale) > 1 else scale
            steps = (got - value).abs() / step
            assert steps.max() <= 1.001
            assert (steps > 0.001).float().mean() <= 0.25
    return loaded


@pytest.mark.parametrize("export_format", ["qdq", "openvino_fq"])
@pytest.mark.parametrize("setup", list(_setups(half_range=True)), ids=_name)
def test_every_weight_setup_agrees_within_one_step(setup: dict[str, Any], export_format: str, tmp_path: Path) -> None:
    network = _Parallel({"half_range": False, **setup}, {})
    # OpenVINO has no integer layers for weights with a zero point, which 8 and 7 bits cannot do without.
    wide = setup["bits"] > 4 and setup.get("signed") is not True
    several = wide and setup["mode"] == "asymmetric" and setup["per_channel"] and not RUNS_SEVERAL_ZERO_POINTS
    runtimes = [each for each in _RUNTIMES[export_format] if each is OpenVINOModel or not several]
    for model in _check(network, runtimes, export_format, tmp_path / "m.onnx"):
        layers = count_int8_layers(model)
        if not (wide and isinstance(model, OpenVINOModel)):
            assert (layers.convolutions, layers.matmuls) == (1, 1)


@pytest.mark.parametrize("export_format", ["qdq", "openvino_fq"])
@pytest.mark.parametrize("setup", list(_setups(half_range=True)), ids=_name)
def test_every_activation_setup_agrees_within_one_step(
    setup: dict[str, Any], export_format: str, tmp_path: Path
) -> None:
    network = _Parallel({}, setup)
    for model in _check(network, _RUNTIMES[export_format], export_format, tmp_path / "m.onnx"):
        layers = count_int8_layers(model)
        if not setup["per_channel"]:
            assert (layers.convolutions, layers.matmuls) == (1, 1)


@pytest.mark.parametrize("export_format", ["qdq", "openvino_fq"])
@pytest.mark.parametrize("mode", list(_modes()), ids=lambda mode: mode["mode"] + str(mode.get("signed", "")))
def test_input_of_a_layer_may_be_quantized_per_channel(
    mode: dict[str, Any], export_format: str, tmp_path: Path
) -> None:
    network = _Parallel({}, {})
    network.image, network.vector = (_activation(-3.0, 3.0, 4, rank, per_channel=True, **mode) for rank in (4, 2))
    _check(network, _RUNTIMES[export_format], export_format, tmp_path / "m.onnx")


@pytest.mark.parametrize("export_format", ["qdq", "openvino_fq"])
def test_quantizer_shared_by_two_places_agrees(export_format: str, tmp_path: Path) -> None:
    network = _Parallel({}, {})
    network.linear_output = network.conv_output
    _check(network, _RUNTIMES[export_format], export_format, tmp_path / "m.onnx")
