from __future__ import annotations

from typing import Any

import pytest

from lightning_nncf import NNCFConfig
from lightning_nncf.algorithms.pruning import FilterPruningConfig
from lightning_nncf.errors import ConfigError


def test_defaults_are_those_of_nncf() -> None:
    config = FilterPruningConfig()
    params = config.params
    assert (config.pruning_init, params.target, params.schedule) == (0.0, 0.5, "exponential")
    assert (params.num_init_steps, params.pruning_steps, params.filter_importance) == (0, 100, "L2")
    assert not any((params.all_weights, params.prune_first_conv, params.prune_last_conv, params.prune_downsample_convs))
    assert params.prune_batch_norms
    assert params.zero_grad
    assert params.legr_params.model_dump() == {
        "generations": 400,
        "train_steps": 200,
        "max_pruning": None,
        "random_seed": 42,
        "population_size": 64,
        "num_samples": 16,
        "mutate_percent": 0.1,
        "scale_sigma": 1.0,
    }


def test_config_of_the_zoo_is_read_as_it_is() -> None:
    section = {
        "algorithm": "filter_pruning",
        "pruning_init": 0.1,
        "params": {
            "schedule": "exponential",
            "pruning_target": 0.4,
            "pruning_steps": 15,
            "filter_importance": "geometric_median",
        },
    }
    config = NNCFConfig.load({"input_info": {"sample_size": [1, 3, 224, 224]}, "compression": section})
    assert config.section(FilterPruningConfig).params.target == 0.4


def test_learned_ranking_implies_one_ranking_for_all_layers() -> None:
    params = FilterPruningConfig(
        params={"interlayer_ranking_type": "learned_ranking", "pruning_flops_target": 0.3}
    ).params
    assert params.all_weights
    assert params.prune_first_conv
    assert params.prune_downsample_convs


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"params": {"pruning_target": 0.4, "pruning_flops_target": 0.4}}, r"`params\.pruning_flops_target` cannot be"),
        ({"params": {"pruning_target": 1.0}}, r"`params\.pruning_target` must be less than 1\.0, got 1\.0"),
        ({"pruning_init": 0.6}, r"`pruning_init` must not exceed the target of 0\.5, got 0\.6"),
        ({"pruning_init": 0.4, "params": {"schedule": "exponential_with_bias"}}, r"`pruning_init` must be below three"),
        ({"params": {"prune_first": True}}, r"did you mean 'prune_first_conv'"),
        (
            {"params": {"interlayer_ranking_type": "learned_ranking", "all_weights": False}},
            r"`params\.all_weights` must be true",
        ),
    ],
)
def test_mistakes_are_named(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FilterPruningConfig(**section)
