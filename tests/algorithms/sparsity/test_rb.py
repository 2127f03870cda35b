"""RB sparsity: formulas by hand and by autograd, and what training does with them."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_nncf import NNCFCallback, compress
from lightning_nncf.algorithms.sparsity.rb_functional import (
    INITIAL_LOGIT,
    binary_mask_ste,
    density,
    follow_density,
    rb_loss,
    root_mean_square,
    step_logits,
)
from lightning_nncf.algorithms.sparsity.rb_mask import LearnedMask
from lightning_nncf.core.stage import CompressionStage
from tests.algorithms.sparsity.networks import batch, make, multistep, network
from tests.callback.modules import Classifier, loader, trainer


def rb(**params: Any) -> dict[str, Any]:
    return {"algorithm": "rb_sparsity", "params": params}


def test_initial_probability_is_99_percent() -> None:
    assert torch.sigmoid(torch.tensor(INITIAL_LOGIT)) == pytest.approx(0.99)
    assert pytest.approx(4.59512, abs=1e-5) == INITIAL_LOGIT


def test_mask_gradient_is_that_of_the_logistic_function() -> None:
    logits = torch.tensor([-2.0, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    mask = binary_mask_ste(logits)
    assert mask.tolist() == [0, 0, 1, 1]
    (mask * weights).sum().backward()
    expected = [
        w * math.exp(-s) / (1 + math.exp(-s)) ** 2 for s, w in zip(logits.tolist(), weights.tolist(), strict=True)
    ]
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx(expected)


def test_loss_is_the_squared_distance_in_units_of_p() -> None:
    logits = [torch.tensor([1.0, -1.0]), torch.tensor([2.0, 3.0])]
    # Density 3/4, target 1/2: (0.25 / 0.05)^2.
    assert float(rb_loss(density(logits), 0.5)) == pytest.approx(25.0)


def test_sampled_masks_keep_a_weight_with_its_probability_and_belong_to_their_seed() -> None:
    module = LearnedMask([200_000]).train()
    with torch.no_grad():
        module.logits.fill_(math.log(0.7 / 0.3))
    weight = torch.ones(200_000)
    assert bool((module(weight) == 1).all())
    drawn = []
    for seed in (3, 4, 3):
        module.sample(seed)
        drawn.append(module(weight).detach())
    assert float(drawn[0].mean()) == pytest.approx(0.7, abs=4e-3)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert bool((module.eval()(weight) == 1).all())


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_logits_move_as_far_whatever_the_scale_of_the_gradients(scale: float) -> None:
    logits = [torch.zeros(2), torch.zeros(2)]
    gradients = [torch.tensor([1.0, -1.0]) * scale, torch.tensor([1.0, -1.0]) * scale]
    step_logits(logits, gradients, root_mean_square(gradients), rate=0.1)
    assert torch.cat(logits).tolist() == pytest.approx([-0.1, 0.1, -0.1, 0.1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_gradients_without_direction_move_nothing(bad: float) -> None:
    logits = [torch.zeros(2)]
    gradients = [torch.tensor([bad, bad])]
    step_logits(logits, gradients, root_mean_square(gradients))
    assert logits[0].tolist() == [0.0, 0.0]


def test_density_is_followed_in_both_directions_with_limited_speed() -> None:
    torch.manual_seed(0)
    logits, weights = [torch.randn(600) + 4, torch.randn(400) + 4], [torch.rand(600), torch.rand(400)]
    densities = []
    for target in (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.8, 0.8, 0.8, 0.8):
        follow_density(logits, weights, target, speed=0.1)
        densities.append(float(density(logits)))
    assert densities == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.6, 0.7, 0.8, 0.8], abs=0.003)


def test_masks_are_drawn_once_per_optimizer_step_and_not_in_evaluation() -> None:
    net = network()
    compressed = make(rb(**multistep(0.3, 0.3)), net)
    net.train()
    net[1].eval()
    compressed.epoch_step()
    compressed.step()
    first = net(batch())
    assert torch.equal(net(batch()), first)
    compressed.step()
    assert not torch.equal(net(batch()), first)
    net.eval()
    expected = net(batch())
    compressed.step()
    assert torch.equal(net(batch()), expected)


def test_two_networks_draw_equal_masks() -> None:
    nets = [network(), network()]
    for net in nets:
        compressed = make(rb(**multistep(0.3, 0.3)), net)
        compressed.step()
        torch.rand(3)
    assert torch.equal(nets[0](batch()), nets[1](batch()))


def test_loss_joins_a_backward_and_ends_with_the_freeze() -> None:
    net = network()
    compressed = make(rb(**multistep(0.3, 0.3, freeze=1)), net)
    compressed.epoch_step()
    loss = compressed.loss()
    assert loss is not None
    assert loss.item() == pytest.approx((0.3 / 0.05) ** 2, rel=1e-5)
    loss.backward()
    # The masks' number is set exactly before the optimizer steps; the loss leaves them to the task's gradients.
    assert compressed.algorithms[0].masks[0].logits.grad is None
    compressed.epoch_step()
    assert compressed.present_loss() is None


def test_frozen_masks_survive_an_optimizer_that_knows_nothing_of_them() -> None:
    net = network()
    compressed = make(rb(**multistep(0.3, 0.3, freeze=0)), net)
    module = compressed.algorithms[0].masks[0]
    with torch.no_grad():
        module.logits[0] = -1.0
    compressed.epoch_step()
    frozen = module.kept().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=100.0, weight_decay=1.0)
    net(batch()).sum().backward()
    module.logits.grad = torch.zeros_like(module.logits)  # as DistributedDataParallel leaves it
    optimizer.step()
    assert torch.equal(module.kept(), frozen)
    assert not bool(frozen[0].any())
    assert torch.equal(copy.deepcopy(module)(torch.ones(8, 4, 3, 3)) != 0, frozen)


class Net(Classifier):
    """Classifier with the optimizer of the test."""

    def __init__(self, optimizer: str = "sgd", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.optimizer = optimizer
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 3)
        )

    def configure_optimizers(self) -> Any:
        if self.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-2)
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "settings", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=["plain", "accumulate", "amp"]
)
def test_target_is_reached_with_any_optimizer(tmp_path: Path, optimizer: str, settings: dict[str, Any]) -> None:
    params = {"sparsity_target": 0.61, "sparsity_target_epoch": 6, "sparsity_freeze_epoch": 11}
    callback = NNCFCallback({"compression": rb(**params)}, export_path=None)
    trainer(tmp_path, callback, max_epochs=12, gradient_clip_val=0.1, **settings).fit(Net(optimizer), loader(32))
    compressed = callback.compressed
    assert compressed is not None
    assert compressed.statistics()["sparsity_level"] == pytest.approx(0.61, abs=0.01)
    assert compressed.stage == CompressionStage.FULLY_COMPRESSED
    assert compressed.statistics()["mask_probability"] == pytest.approx(0.61, abs=0.05)


def test_local_mode_reaches_the_level_of_each_layer(tmp_path: Path) -> None:
    params = {
        "sparsity_target": 0.5,
        "sparsity_target_epoch": 4,
        "sparsity_freeze_epoch": 9,
        "sparsity_level_setting_mode": "local",
        "sparsity_levels": {"0": 0.25, "4": 0.75},
    }
    callback = NNCFCallback({"compression": rb(**params)}, export_path=None, network="net")
    trainer(tmp_path, callback, max_epochs=10).fit(Net(), loader(32))
    assert callback.compressed is not None
    assert [row["sparsity"] for row in callback.compressed.rows()] == pytest.approx([0.25, 0.75], abs=0.01)


def test_stopping_and_resuming_equals_not_stopping(tmp_path: Path) -> None:
    section = {"compression": rb(sparsity_target=0.5, sparsity_target_epoch=2, sparsity_freeze_epoch=9)}

    def run(epochs: int, checkpoint: Path | None = None) -> tuple[Net, Any]:
        torch.manual_seed(0)
        module = Net()
        callback = NNCFCallback(section, export_path=None)
        fit = trainer(tmp_path, callback, max_epochs=epochs)
        fit.fit(module, loader(32), ckpt_path=checkpoint)
        return module, fit

    whole, _ = run(4)
    _, half = run(2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = run(4, tmp_path / "half.ckpt")
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_weight_decay_is_advised_against_once(recwarn: pytest.WarningsRecorder) -> None:
    net = network()
    compressed = make(rb(), net)
    for _ in range(2):
        compressed.attach([torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.01)])
    assert sum("weight decay of 0.01 on weights" in str(warning.message) for warning in recwarn) == 1


@pytest.mark.parametrize(("steps", "zeros"), [(40, 2811), (1, 92 + 9)], ids=["at the target", "far from it"])
def test_freezing_makes_a_level_exact_that_was_nearly_reached(steps: int, zeros: int) -> None:
    # 4608 weights, of which 61 % are 2810.88; at most 2 % of them (92) move in a step and 0.2 % (9) in the end.
    layer = nn.Conv2d(8, 64, 3)
    section = rb(sparsity_target=0.61, sparsity_target_epoch=0, sparsity_freeze_epoch=1)
    compressed = compress(nn.Sequential(layer), {"compression": section}, example_inputs=torch.rand(1, 8, 4, 4))
    (algorithm,) = compressed.algorithms
    (mask,) = algorithm.masks  # type: ignore[attr-defined]
    compressed.epoch_step()
    for _ in range(steps):
        mask.logits.grad = torch.zeros_like(mask.logits)
        algorithm.before_optimizer_step()
    before = int((~mask.kept()).sum())
    assert abs(before - zeros) <= 9
    compressed.epoch_step()
    assert int((~mask.kept()).sum()) == zeros
    assert algorithm.frozen  # type: ignore[attr-defined]
