"""Binarization: formulas by hand, stages, the recipe, restoring and export."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import NNCFCallback, compress
from lightning_nncf.algorithms.binarization.functional import (
    binarize_activation,
    binarize_weight,
    initial_log_scale,
)
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.errors import ConfigError
from lightning_nncf.export import export_onnx
from tests.callback.modules import Classifier, loader, trainer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def batch() -> Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def section(**params: Any) -> dict[str, Any]:
    return {"algorithm": "binarization", "ignored_scopes": ["0"], "params": params}


def make(net: nn.Module, **params: Any) -> CompressedNetwork:
    return compress(net, {"compression": section(**params)}, [batch()])


@pytest.mark.parametrize(("mode", "magnitudes"), [("xnor", [2.5, 25.0]), ("dorefa", [13.75, 13.75])])
def test_weights_are_signs_times_mean_magnitudes(mode: Any, magnitudes: list[float]) -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0], [10.0, 20.0, 30.0, -40.0]]).reshape(2, 1, 2, 2)
    binary = binarize_weight(weight, mode)
    signs = torch.tensor([[1, -1, 1, -1], [1, 1, 1, -1]]).reshape(2, 1, 2, 2)
    torch.testing.assert_close(binary, signs * torch.tensor(magnitudes).reshape(2, 1, 1, 1))


def test_gradient_of_weights_passes_straight_through() -> None:
    weight = torch.randn(2, 3, 1, 1, requires_grad=True)
    upstream = torch.randn(2, 3, 1, 1)
    (binarize_weight(weight, "xnor") * upstream).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream)


def _reference_gradients(x: Tensor, s: float, t: Tensor, g: Tensor) -> tuple[Tensor, float, Tensor]:
    """The formulas of the facts in plain loops over [N, C]."""
    d_x, d_s, d_t = torch.zeros_like(x), 0.0, torch.zeros(x.shape[1], dtype=x.dtype)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            value, up = float(x[n, c]), float(g[n, c])
            y = s if value > float(t[0, c]) * s else 0.0
            d_x[n, c] = up if 0 <= value <= s else 0.0
            d_s += up * ((y - value) / s if value <= s else 1.0)
            d_t[c] -= up if 0 < value < s else 0.0
    return d_x, d_s, d_t


def test_gradients_of_activations_are_those_of_the_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(6, 3, generator=generator, dtype=torch.float64) * 2).requires_grad_()
    scale = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    threshold = torch.rand(1, 3, generator=generator, dtype=torch.float64).requires_grad_()
    upstream = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = binarize_activation(x, scale, threshold)
    assert set(y.unique().tolist()) == {0.0, 1.5}
    (y * upstream).sum().backward()
    expected = _reference_gradients(x.detach(), 1.5, threshold.detach(), upstream)
    torch.testing.assert_close(x.grad, expected[0])
    torch.testing.assert_close(scale.grad, torch.tensor([expected[1]], dtype=torch.float64))
    torch.testing.assert_close(threshold.grad, expected[2][None])


def test_threshold_gradient_is_summed_over_all_but_channels() -> None:
    x = torch.full((2, 3, 4, 5), 0.5)
    threshold = torch.full((1, 3, 1, 1), 0.3, requires_grad=True)
    binarize_activation(x, torch.ones(1), threshold).sum().backward()
    assert threshold.grad is not None
    assert threshold.grad.flatten().tolist() == [-40.0] * 3


def test_first_scale_is_the_smallest_of_the_top_thousandth() -> None:
    values = torch.arange(1.0, 5001.0)
    assert float(initial_log_scale(values).exp()) == pytest.approx(4996.0)


def test_stages_begin_in_their_epochs() -> None:
    net = network()
    compressed = make(net, activations_quant_start_epoch=1, weights_quant_start_epoch=2)
    plain = net.eval()(batch())
    stages, shares = [], []
    for _ in range(3):
        net.train()
        compressed.epoch_step()
        net(batch())
        stages.append(compressed.stage)
        shares.append(compressed.statistics()["binarized_macs"])
    assert stages == [
        CompressionStage.UNCOMPRESSED,
        CompressionStage.PARTIALLY_COMPRESSED,
        CompressionStage.FULLY_COMPRESSED,
    ]
    # 4 * 9 * 64 operations of the first convolution stay float, 8 * 4 * 9 * 64 become binary, 24 are linear.
    assert shares == pytest.approx([0, 0, 18432 / (2304 + 18432 + 24)])
    assert not torch.allclose(net.eval()(batch()), plain)


def test_scale_is_taken_from_the_first_training_batch_alone() -> None:
    net = network()
    compressed = make(net, activations_quant_start_epoch=0, weights_quant_start_epoch=0)
    compressed.epoch_step()
    module = compressed.algorithms[0].activations[0]
    net.eval()(batch())
    assert not bool(module.initialized)
    net.train()(batch())
    first = module.log_scale.detach().clone()
    net(batch() * 100)
    assert bool(module.initialized)
    assert float(first) != 0
    assert torch.equal(module.log_scale.detach(), first)


def test_recipe_drops_the_learning_rate_and_switches_weight_decay_off() -> None:
    net = network()
    compressed = make(
        net,
        activations_quant_start_epoch=0,
        weights_quant_start_epoch=0,
        lr_poly_drop_start_epoch=1,
        lr_poly_drop_duration_epochs=2,
        disable_wd_start_epoch=2,
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.4, weight_decay=0.1)
    algorithm = compressed.algorithms[0]
    algorithm.attach([optimizer])
    compressed.announce_steps(2)
    seen = []
    for _ in range(3):
        compressed.epoch_step()
        for _ in range(2):
            compressed.step()
            seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]))
    rates = [0.4, 0.4, 0.4, 0.4 * 0.75**2.1, 0.4 * 0.5**2.1, 0.4 * 0.25**2.1]
    assert [rate for rate, _ in seen] == pytest.approx(rates)
    assert [decay for _, decay in seen] == [0.1] * 4 + [0.0] * 2


def test_restored_binarizers_compute_the_same() -> None:
    net = network()
    compressed = make(net, activations_quant_start_epoch=0, weights_quant_start_epoch=0)
    compressed.epoch_step()
    net.train()(batch())
    other = network()
    restored = CompressedNetwork.restore(other, compressed.config, compressed.structure())
    restored.load_state_dict(compressed.state_dict())
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(batch()), other.eval()(batch()))
    assert restored.stage == CompressionStage.FULLY_COMPRESSED


@pytest.mark.parametrize("mode", ["xnor", "dorefa"])
def test_exported_network_computes_the_same_in_standard_onnx(tmp_path: Path, mode: str) -> None:
    net = network()
    values = {**section(activations_quant_start_epoch=0, weights_quant_start_epoch=0), "mode": mode}
    compressed = compress(net, {"compression": values}, [batch()])
    compressed.epoch_step()
    net.train()(batch())
    export_onnx(net, ((batch(),), {}), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: batch().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net.eval()(batch()), rtol=1e-4, atol=1e-5)


def test_callback_trains_through_all_stages(tmp_path: Path) -> None:
    class Net(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

    values = section(
        activations_quant_start_epoch=1,
        weights_quant_start_epoch=2,
        lr_poly_drop_start_epoch=2,
        lr_poly_drop_duration_epochs=2,
    )
    callback = NNCFCallback({"compression": values}, export_path=None)
    module = Net()
    fit = trainer(tmp_path, callback, max_epochs=4)
    fit.fit(module, loader())
    assert callback.compressed is not None
    assert callback.compressed.stage == CompressionStage.FULLY_COMPRESSED
    assert all(math.isfinite(value) for p in module.parameters() for value in p.flatten().tolist())
    # In the last step 1/8 of the drop is left.
    assert fit.optimizers[0].param_groups[0]["lr"] < 0.05 * 0.2


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(ConfigError, match="finds no 2d convolution"):
        compress(nn.Sequential(nn.Linear(2, 2)), {"compression": {"algorithm": "binarization"}}, [torch.zeros(1, 2)])
