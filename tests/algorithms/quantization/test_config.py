from __future__ import annotations

from typing import Any

import pytest

from lightning_nncf.algorithms.quantization.config import QuantizationConfig, RangeConfig
from lightning_nncf.config import NNCFConfig
from lightning_nncf.errors import ConfigError


def test_defaults_are_those_of_nncf_2_13() -> None:
    config = QuantizationConfig()
    assert config.preset == "performance"
    assert config.overflow_fix == "enable"
    assert (config.quantize_inputs, config.quantize_outputs) == (True, False)
    assert config.initializer.range == (RangeConfig(),)
    assert (RangeConfig().type, RangeConfig().num_init_samples) == ("mixed_min_max", 256)
    assert config.initializer.batchnorm_adaptation.num_bn_adaptation_samples == 2000
    assert config.validate_scopes is True


@pytest.mark.parametrize(
    ("values", "modes"),
    [
        ({}, ("symmetric", "symmetric")),
        ({"preset": "mixed"}, ("symmetric", "asymmetric")),
        ({"preset": "mixed", "activations": {"mode": "symmetric"}}, ("symmetric", "symmetric")),
        ({"weights": {"mode": "asymmetric"}}, ("asymmetric", "symmetric")),
    ],
    ids=["performance", "mixed", "own mode wins over mixed", "own mode wins over performance"],
)
def test_preset_gives_the_mode_unless_the_group_has_its_own(values: dict[str, Any], modes: tuple[str, str]) -> None:
    config = QuantizationConfig.load(values)
    assert (config.mode_of("weights"), config.mode_of("activations")) == modes


@pytest.mark.parametrize(("old", "new"), [(True, "disable"), (False, "enable")])
def test_disable_saturation_fix_becomes_overflow_fix(old: bool, new: str) -> None:
    with pytest.warns(FutureWarning, match="`disable_saturation_fix` is deprecated: write `overflow_fix"):
        assert QuantizationConfig.load({"disable_saturation_fix": old}).overflow_fix == new


def test_disable_saturation_fix_must_be_a_boolean() -> None:
    with (
        pytest.warns(FutureWarning),
        pytest.raises(ConfigError, match="`disable_saturation_fix` must be true or false, got 'yes'"),
    ):
        QuantizationConfig.load({"disable_saturation_fix": "yes"})


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"accuracy_aware_training": {"patience_epochs": 1}}, "accuracy_aware_training"),
    ],
)
def test_what_this_version_lacks_is_refused_and_not_ignored(values: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        QuantizationConfig.load(values)
    assert str(caught.value).startswith(f"`{path}` ")
    assert "not available in this version" in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"initializer": {"precision": {"type": "hawk"}}},
        {"initializer": {"range": {"num_init_samples": -1}}},
        {"initializer": {"range": []}},
        {"initializer": {"range": {"params": {"min_percentile": 101}}}},
        {"params": {"base_lr": 0}},
        {"scope_overrides": {"weights": {"conv1": {"bit": 4}}}},
    ],
)
def test_sections_of_other_versions_are_still_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        QuantizationConfig.load(values)
    assert "not available" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"scope_overrides": {"weights": {}}},
        {"params": {}},
        {"params": None},
        {"weights": {"logarithm_scale": False}},
        {"activations": {"unified_scale_ops": []}},
    ],
)
def test_sections_that_change_nothing_are_accepted(values: dict[str, Any]) -> None:
    assert QuantizationConfig.load(values) == QuantizationConfig()


@pytest.mark.parametrize("device", ["VPU", "NPU"])
def test_devices_without_presets_refuse_one_and_choose_the_modes_themselves(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"`compression.preset` is not available for target device '{device}'"):
        NNCFConfig.load(
            {"target_device": device, "compression": {"algorithm": "quantization", "preset": "performance"}}
        )
    config = NNCFConfig.load({"target_device": device, "compression": {"algorithm": "quantization"}}).compression[0]
    assert isinstance(config, QuantizationConfig)
    assert config.mode_of("activations", device) is None
    assert QuantizationConfig.load({"activations": {"mode": "symmetric"}}).mode_of("activations", device) == "symmetric"


@pytest.mark.parametrize("device", ["ANY", "CPU", "CPU_SPR", "GPU", "TRIAL"])
def test_presets_hold_on_the_other_devices(device: str) -> None:
    root = NNCFConfig.load({"target_device": device, "compression": {"algorithm": "quantization", "preset": "mixed"}})
    config = root.compression[0]
    assert isinstance(config, QuantizationConfig)
    assert (config.mode_of("weights", device), config.mode_of("activations", device)) == ("symmetric", "asymmetric")


def test_zero_samples_are_allowed() -> None:
    config = QuantizationConfig.load(
        {
            "initializer": {
                "range": {"num_init_samples": 0},
                "batchnorm_adaptation": {"num_bn_adaptation_samples": 0},
            }
        }
    )
    assert config.initializer.range[0].num_init_samples == 0
    assert config.initializer.batchnorm_adaptation.num_bn_adaptation_samples == 0


def test_one_wrong_value_is_one_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        QuantizationConfig.load({"initializer": {"range": {"type": "percentil"}}})
    assert str(caught.value).startswith("`initializer.range.type` must be 'min_max', ")
    assert "\n" not in str(caught.value)
