"""The epoch in which masks are frozen, `sparsity_freeze_epoch`: they do not follow its level any more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.courses import courses
from tests.algorithms.sparsity.networks import batch, make, network

FREEZE = 3
SCHEDULES: dict[str, dict[str, Any]] = {
    "polynomial": {"schedule": "polynomial", "sparsity_target_epoch": 6},
    "per_step": {"schedule": "polynomial", "sparsity_target_epoch": 6, "update_per_optimizer_step": True},
    "exponential": {"schedule": "exponential", "sparsity_target_epoch": 6},
    "multistep": {
        "schedule": "multistep",
        "multistep_steps": [1, 2, 3],
        "multistep_sparsity_levels": [0.1, 0.2, 0.3, 0.5],
    },
    "adaptive": {"schedule": "adaptive"},
}


def section(algorithm: str, schedule: str) -> dict[str, Any]:
    return {"algorithm": algorithm, "params": {**SCHEDULES[schedule], "sparsity_freeze_epoch": FREEZE}}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("algorithm", ["magnitude_sparsity", "n_m_sparsity"])
def test_masks_stay_as_the_epoch_before_left_them(algorithm: str, schedule: str) -> None:
    net = network()
    compressed = make(section(algorithm, schedule), net)
    sparsity: Any = compressed.algorithms[0]
    seen, levels = [], []
    for _ in range(FREEZE + 2):
        compressed.epoch_step()
        compressed.step()
        compressed.step()
        seen.append([mask.kept().clone() for mask in sparsity.masks])
        levels.append(sparsity.sparsity())
        with torch.no_grad():
            for place in sparsity.places:
                weight = place.parameter_of(net)
                weight.copy_(torch.randn_like(weight))
    assert 0 < levels[FREEZE - 1] < 0.45
    assert levels[FREEZE - 2] < levels[FREEZE - 1] == levels[FREEZE]
    assert all(torch.equal(*pair) for later in seen[FREEZE:] for pair in zip(seen[FREEZE - 1], later, strict=True))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learned_masks_end_at_the_level_of_the_epoch_before(schedule: str) -> None:
    net = network()
    compressed = make({**section("rb_sparsity", schedule), "sparsity_init": 0.05}, net)
    sparsity: Any = compressed.algorithms[0]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    compressed.attach([optimizer])
    before: dict[int, float] = {}
    for epoch in range(FREEZE + 1):
        compressed.epoch_step()
        for _ in range(30 if epoch < FREEZE else 0):
            compressed.step()
            before[epoch] = sparsity._level
            optimizer.zero_grad()
            (net(batch()).square().mean() + compressed.loss()).backward()
            optimizer.step()
    assert sparsity.frozen
    assert sparsity.sparsity() == pytest.approx(before[FREEZE - 1], abs=2e-3)
    assert sparsity.level > before[FREEZE - 1]


def test_drawn_levels_stay_where_masks_are_frozen() -> None:
    (course,) = courses(NNCFConfig.load({"compression": section("magnitude_sparsity", "multistep")}), 5)
    assert course.levels == (0.1, 0.2, 0.3, 0.3, 0.3)


@pytest.mark.parametrize(
    ("params", "key"),
    [
        ({"schedule": "multistep", "multistep_steps": [3], "multistep_sparsity_levels": [0.1, 0.5]}, "multistep_steps"),
        ({"schedule": "polynomial", "sparsity_target_epoch": 3}, "sparsity_target_epoch"),
    ],
    ids=["multistep", "polynomial"],
)
def test_target_in_the_freeze_epoch_is_reported_as_out_of_reach(params: dict[str, Any], key: str) -> None:
    def told(freeze: int) -> bool:
        params_frozen = {**params, "sparsity_freeze_epoch": freeze}
        lines = make({"algorithm": "magnitude_sparsity", "params": params_frozen}).algorithms[0].summary()
        return any(f"never reach the target, which comes in epoch 3 (`{key}`)" in line for line in lines)

    assert (told(3), told(4)) == (True, False)
