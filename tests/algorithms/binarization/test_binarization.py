"""Binarization: formulas by hand, stages, the recipe, restoring and export."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_nncf import NNCFCallback, compress
from lightning_nncf.algorithms.binarization.functional import initial_log_scale
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.errors import ConfigError
from tests.callback.modules import Classifier, loader, trainer


def network(channels: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, 8, 3, padding=1, bias=False),
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


def test_first_scale_is_the_smallest_of_the_top_thousandth() -> None:
    values = torch.arange(1.0, 5001.0)
    assert float(initial_log_scale(values).exp()) == pytest.approx(4996.0)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_first_scale_follows_the_scale_of_the_data(factor: float) -> None:
    values = torch.arange(-50.0, 50.0) * factor
    assert float(initial_log_scale(values).exp()) == pytest.approx(49 * factor)
    # nothing above zero: the magnitude of what is below, or of nothing
    assert float(initial_log_scale(-values.abs()).exp()) == pytest.approx(50 * factor)
    assert float(initial_log_scale(values * 0).exp()) == 1.0


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
