"""Weights that hooks or parametrizations compute: quantized where they are used, else refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize, prune

from lightning_nncf import compress, export_onnx
from lightning_nncf.errors import ConfigError


def _own(layer: nn.Module) -> nn.Module:
    weight = layer.weight.detach()
    del layer._parameters["weight"]
    layer.raw, layer.weight = nn.Parameter(weight.clone()), weight
    layer.register_forward_pre_hook(_scale)
    return layer


def _scale(layer: nn.Module, args: object) -> None:
    layer.weight = layer.raw * 1.25


class Doubled(nn.Module):
    """A parametrization of a user."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


def _doubled(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def _pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


KINDS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "weight_norm": (utils.weight_norm, r"WeightNorm of '0': torch\.nn\.utils\.remove_weight_norm\(0\)"),
    "spectral_norm": (utils.spectral_norm, r"SpectralNorm of '0': torch\.nn\.utils\.remove_spectral_norm\(0\)"),
    "prune": (_pruned, r"L1Unstructured of '0': torch\.nn\.utils\.prune\.remove\(0, 'weight'\)"),
    "own hook": (_own, r"a forward pre-hook of '0' \(_scale\): take the hook off"),
    "new weight_norm": (parametrizations.weight_norm, r"_WeightNorm of '0': .*remove_parametrizations\(0, 'weight'\)"),
    "new spectral_norm": (parametrizations.spectral_norm, r"parametrization _SpectralNorm of '0'"),
    "orthogonal": (parametrizations.orthogonal, r"parametrization _Orthogonal of '0'"),
    "own parametrization": (_doubled, r"parametrization Doubled of '0'"),
}
SECTIONS = {
    "magnitude_sparsity": {"params": {"sparsity_target": 0.5}},
    "rb_sparsity": {"params": {"sparsity_target": 0.5}},
    "const_sparsity": {},
    "binarization": {},
    "filter_pruning": {"params": {"pruning_target": 0.5, "grouping": "full"}},
}


def _net(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(wrap(nn.Conv2d(3, 16, 3)), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(64, 4))


X = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_quantization_works_on_the_computed_weight(kind: str, tmp_path: Path) -> None:
    net = _net(KINDS[kind][0]).eval()
    with torch.no_grad():
        exact = net(X)
    compressed = compress(net, {"compression": {"algorithm": "quantization"}}, [X, X])
    (place,) = [p for p in compressed.algorithms[0].inserted.setup.points if p.computed]
    with torch.no_grad():
        assert 0 < float((net(X) - exact).norm() / exact.norm()) < 0.1
    net.train()
    net(X).square().sum().backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if "scale" in name or name.startswith("0"))
    net.eval()
    with torch.no_grad():
        result = net(X)
    number = compressed.algorithms[0].inserted.setup.points.index(place)
    if kind != "orthogonal":  # torch cannot export what it computes, with or without quantizers
        report = export_onnx(net, ((X,), {}), tmp_path / "m.onnx")
        assert (report.weight_quantizers, report.missing_quantizers) == (3, ())
    quantizer = compressed.algorithms[0].inserted.quantizers[number]
    with torch.no_grad():
        next(iter(quantizer.parameters())).mul_(0.1)
        assert not torch.allclose(net(X), result)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("algorithm", SECTIONS)
@pytest.mark.parametrize("kind", ["weight_norm", "own hook", "new weight_norm"])
def test_what_changes_parameters_refuses_naming_the_hook_and_the_cure(kind: str, algorithm: str) -> None:
    net = _net(KINDS[kind][0])
    with pytest.raises(ConfigError, match=rf"`{algorithm}` changes parameters.*'0/conv2d:0' by .*{KINDS[kind][1]}"):
        compress(net, {"compression": {"algorithm": algorithm, **SECTIONS[algorithm]}}, [X])
    assert not any("lnncf_" in name for name, _ in net.named_modules())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_named_with_its_cure_and_ignored_on_request(kind: str) -> None:
    section = {"algorithm": "magnitude_sparsity", "sparsity_init": 0.5, "params": {"sparsity_target": 0.6}}
    with pytest.raises(ConfigError, match=KINDS[kind][1]):
        compress(_net(KINDS[kind][0]), {"compression": section}, [X])
    compressed = compress(_net(KINDS[kind][0]), {"compression": {**section, "ignored_scopes": ["0"]}}, [X])
    assert [place.name for place in compressed.algorithms[0].places] == ["2.weight", "4.weight"]


class Standardized(nn.Conv2d):
    """A convolution whose forward computes its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias)


def test_a_weight_that_the_forward_computes_is_left_dense_and_said_so() -> None:
    net = _net(lambda layer: Standardized(3, 16, 3))
    section = {"algorithm": "magnitude_sparsity", "params": {"sparsity_target": 0.5}}
    algorithm = compress(net, {"compression": section}, [X]).algorithms[0]
    assert [place.name for place in algorithm.places] == ["2.weight", "4.weight"]
    assert "left dense, not suitable: 0/conv2d:0" in algorithm.summary()[1]
