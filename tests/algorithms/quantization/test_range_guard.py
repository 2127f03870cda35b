from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_nncf import compress
from lightning_nncf.algorithms.quantization.learning import RangeLearning
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizationMode, QuantizerConfig
from lightning_nncf.algorithms.quantization.quantizers import Quantizer, build_quantizer
from lightning_nncf.algorithms.quantization.range_floor import LEAST
from lightning_nncf.algorithms.quantization.range_guard import RangeGuard


def built(mode: QuantizationMode, *, logarithm: bool = False) -> Quantizer:
    quantizer = build_quantizer(QuantizerConfig(mode=mode, signed=True), (4,), 0, RangeLearning(logarithm=logarithm))
    quantizer.set_range(torch.tensor(-0.001), torch.tensor(0.001))
    return quantizer


def width(quantizer: Quantizer) -> nn.Parameter:
    return quantizer.get_parameter(quantizer.width)


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
def test_steps_larger_than_a_range_neither_end_nor_turn_it(mode: QuantizationMode) -> None:
    quantizer = built(mode)
    start = float(width(quantizer))
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    RangeGuard([quantizer, quantizer]).attach([optimizer])
    seen = []
    for _ in range(60):
        width(quantizer).grad = torch.ones(1)
        optimizer.step()
        seen.append(float(width(quantizer)))
    assert seen[:3] == pytest.approx([start / 2, start / 4, start / 8])
    assert seen[-1] == pytest.approx(LEAST)
    width(quantizer).grad = -torch.ones(1) * 100
    optimizer.step()
    assert float(width(quantizer)) > 0


def test_ordinary_steps_are_left_as_they_are() -> None:
    guarded, plain = built("symmetric"), built("symmetric")
    optimizers = [torch.optim.SGD(each.parameters(), lr=1e-6, momentum=0.9) for each in (guarded, plain)]
    guard = RangeGuard([guarded])
    guard.attach(optimizers[:1])
    guard.attach(optimizers[:1])
    for _ in range(20):
        for each, optimizer in zip((guarded, plain), optimizers, strict=True):
            width(each).grad = torch.randn(1, generator=torch.Generator().manual_seed(1))
            optimizer.step()
    assert torch.equal(width(guarded), width(plain))
    assert len(optimizers[0]._optimizer_step_post_hooks) == 1


def test_a_logarithm_needs_no_guard() -> None:
    quantizer = built("symmetric", logarithm=True)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=10.0)
    RangeGuard([quantizer]).attach([optimizer])
    before = float(width(quantizer))
    width(quantizer).grad = torch.ones(1)
    optimizer.step()
    assert float(width(quantizer)) == pytest.approx(before - 10)


def test_what_is_not_a_number_is_not_hidden() -> None:
    quantizer = built("symmetric")
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    RangeGuard([quantizer]).attach([optimizer])
    width(quantizer).grad = torch.tensor([float("nan")])
    optimizer.step()
    assert bool(width(quantizer).isnan())


def test_a_compressed_network_guards_the_steps_of_its_optimizers() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1e-3)
    x = torch.randn(16, 4)
    compressed = compress(network, {"compression": {"algorithm": "quantization"}}, [x])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    compressed.attach([optimizer])
    scales = [value for name, value in network.named_parameters() if name.endswith("scale")]
    for _ in range(30):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
        assert all(bool((scale > 0).all()) for scale in scales)
    assert pickle.loads(pickle.dumps(compressed.algorithms[0]._guard)) is not None  # type: ignore[attr-defined]
    assert copy.deepcopy(optimizer).state_dict()["state"]
