"""What configurations of sparsity accept, and what they say about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_nncf.config import NNCFConfig
from lightning_nncf.errors import ConfigError
from lightning_nncf.schedules.level import ExponentialScheduler, PolynomialScheduler


def load(*sections: dict[str, Any]) -> NNCFConfig:
    return NNCFConfig.load({"compression": list(sections)})


def test_defaults_are_those_of_nncf() -> None:
    magnitude = load({"algorithm": "magnitude_sparsity"}).compression[0]
    params = magnitude.params
    assert (magnitude.sparsity_init, params.sparsity_target) == (0, 0.5)
    assert (params.sparsity_target_epoch, params.sparsity_freeze_epoch) == (90, 100)
    assert (params.power, params.concave, params.weight_importance) == (0.9, True, "normed_abs")
    assert isinstance(params.scheduler(0, 0.5, lambda: 0.0), PolynomialScheduler)
    learned = load({"algorithm": "rb_sparsity"}).compression[0].params
    assert isinstance(learned.scheduler(0, 0.5, lambda: 0.0), ExponentialScheduler)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        pytest.param({"sparsity_init": 1.0}, r"`compression\[0\].sparsity_init` must be less than 1", id="initial"),
        pytest.param({"params": {"sparsity_target": 1.3}}, "must be less than 1.0, got 1.3", id="target"),
        pytest.param({"params": {"sparsity_target": -0.1}}, "must be at least 0", id="negative"),
        pytest.param(
            {"params": {"sparsity_level_setting_mode": "local"}},
            "sparsity_levels.*is required",
            id="local without levels",
        ),
        pytest.param({"params": {"sparsity_levels": {"a": 0.5}}}, "needs .*local", id="levels without local"),
        pytest.param(
            {"params": {"schedule": "multistep", "multistep_steps": [2, 4]}}, "3 levels for epochs", id="missing level"
        ),
        pytest.param(
            {"params": {"schedule": "multistep", "multistep_steps": []}}, "at least one epoch", id="missing steps"
        ),
        pytest.param(
            {"params": {"schedule": "multistep", "multistep_steps": [4, 2]}}, "ascending", id="steps out of order"
        ),
        pytest.param({"params": {"shedule": "polynomial"}}, "did you mean 'schedule'", id="typo"),
    ],
)
def test_wrong_values_are_refused_with_their_key(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load({"algorithm": "magnitude_sparsity", **section})


def test_two_masks_on_one_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="one sparsity algorithm, got magnitude_sparsity and rb_sparsity"):
        load({"algorithm": "magnitude_sparsity"}, {"algorithm": "rb_sparsity"})


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 4)])
def test_n_must_be_less_than_m(n: int, m: int) -> None:
    with pytest.raises(ConfigError, match="must be less than `m`"):
        load({"algorithm": "n_m_sparsity", "n": n, "m": m})


def test_multistep_levels_of_a_pattern_end_with_the_pattern() -> None:
    params = {"schedule": "multistep", "multistep_steps": [1], "multistep_sparsity_levels": [0.2, 0.4]}
    with pytest.raises(ConfigError, match=r"must end with 0.5 \(1 - n / m\)"):
        load({"algorithm": "n_m_sparsity", "params": params})
