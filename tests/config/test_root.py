from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from lightning_nncf.algorithms.quantization.config import QuantizationConfig
from lightning_nncf.config import InputInfo, NNCFConfig, algorithm_names
from lightning_nncf.config.registry import NOT_YET_BUILT
from lightning_nncf.errors import ConfigError, LightningNNCFError

QUANTIZATION: dict[str, Any] = {"compression": {"algorithm": "quantization"}}


def _message(source: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        NNCFConfig.load(source)
    return str(caught.value)


def test_one_algorithm_and_a_list_of_one_are_the_same() -> None:
    assert NNCFConfig.load(QUANTIZATION) == NNCFConfig.load({"compression": [{"algorithm": "quantization"}]})


def test_defaults() -> None:
    config = NNCFConfig.load({})
    assert (config.target_device, config.compression, config.input_info) == ("ANY", (), None)
    assert (config.ignored_scopes, config.target_scopes, config.compression_lr_multiplier) == ((), None, None)
    assert config.section(QuantizationConfig) is None


def test_a_model_is_passed_on() -> None:
    config = NNCFConfig.load(QUANTIZATION)
    assert NNCFConfig.load(config) is config


def test_models_nest_without_dicts() -> None:
    config = NNCFConfig(compression=(QuantizationConfig(preset="mixed"),), input_info=(InputInfo(sample_size=(1, 3)),))
    assert config.section(QuantizationConfig) == QuantizationConfig(preset="mixed")
    assert config.to_dict()["compression"][0]["preset"] == "mixed"


def test_the_callers_dict_is_not_changed() -> None:
    source = {
        "model": "x",
        "target_device": "CPU",
        "ignored_scopes": ["a"],
        "compression": [{"algorithm": "quantization", "disable_saturation_fix": True, "params": {}}],
    }
    before = copy.deepcopy(source)
    with pytest.warns(FutureWarning, match="disable_saturation_fix"):
        NNCFConfig.load(source)
    assert source == before


def test_config_is_frozen_picklable_and_copyable() -> None:
    config = NNCFConfig.load({**QUANTIZATION, "epochs": 2})
    with pytest.raises(ValueError, match="frozen"):
        config.target_device = "CPU"  # type: ignore[misc]
    restored = pickle.loads(pickle.dumps(copy.deepcopy(config)))
    assert restored == config
    assert restored.unused_keys == ("epochs",)


def test_inline_json_text_is_read() -> None:
    config = NNCFConfig.load('{"compression": {"algorithm": "quantization"}, // inline\n "epochs": 1}')
    assert config.unused_keys == ("epochs",)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ({"compresion": {}}, ["`compresion` is not a known key", "did you mean 'compression'?"]),
        ({"optimiser": {}}, ["`optimiser` is not a known key; did you mean 'optimizer'?"]),
        ({"zzz": {}}, ["`zzz` is not a known key; known: 'accuracy_aware_training', 'compression'"]),
        ({"compression": {"algorithm": "quantization", "wieghts": {}}}, ["`compression.wieghts`", "'weights'"]),
        ({"compression": [{"algorithm": "quantization", "preset": "fast"}]},
         ["`compression[0].preset`", "'performance' or 'mixed'", "got 'fast'"]),
        ({"compression": {"algorithm": "quantization", "weights": {"bits": "8"}}},
         ["`compression.weights.bits`", "an integer", "got '8'"]),
        ({"compression": {"algorithm": "quantization", "weights": {"bits": 9}}}, ["at most 8", "got 9"]),
        ({"compression": {"algorithm": "quantization", "weights": {"bits": 1}}}, ["at least 2", "got 1"]),
        ({"compression": {"algorithm": "quantization", "quantize_inputs": 1}}, ["true or false", "got 1"]),
        ({"compression": {"algorithm": "quantization", "weights": 8}}, ["`compression.weights`", "object", "got 8"]),
        ({"compression": {"algorithm": "quantisation"}}, ["`compression.algorithm`", "did you mean 'quantization'?"]),
        ({"compression": {"algorithm": 3}}, ["`compression.algorithm` must be a string, got 3"]),
        ({"compression": {}}, ["`compression.algorithm` is required"]),
        ({"compression": "quantization"}, ["`compression` must be an object", "got 'quantization'"]),
        ({"compression": [{"algorithm": "quantization"}, {"algorithm": "quantization"}]},
         ["`compression[1].algorithm` repeats 'quantization' of `compression[0]`"]),
        ({"target_device": "TPU"}, ["`target_device`", "'CPU'", "got 'TPU'"]),
        ({"input_info": {"sample_size": [1, 0]}}, ["`input_info.sample_size`", "at least 1", "[1, 0]"]),
        ({"input_info": [{"sample_size": [1]}, {}]}, ["`input_info[1].sample_size` is required"]),
        ({"input_info": {"sample_size": [1.5]}}, ["`input_info.sample_size[0]`", "integer", "1.5"]),
        ({"compression_lr_multiplier": -1}, ["`compression_lr_multiplier`", "at least 0"]),
        ({"compression_lr_multiplier": float("nan")}, ["`compression_lr_multiplier`", "finite"]),
        ({"ignored_scopes": ["a", 1]}, ["`ignored_scopes[1]` must be a string, got 1"]),
        ({"bootstrapNAS": {"training": {}}}, ["`bootstrapNAS`", "not available"]),
        ({3: 4}, ["keys of a configuration must be strings, got 3"]),
        (3, ["read from a mapping, got int"]),
    ],
)  # fmt: skip
def test_error_names_path_value_and_what_is_allowed(source: Any, parts: list[str]) -> None:
    message = _message(source)
    for part in parts:
        assert part in message


def test_algorithms_of_nncf_that_are_missing_are_refused_by_name() -> None:
    missing = sorted(NOT_YET_BUILT - set(algorithm_names()))
    assert "experimental_quantization" in missing
    for name in missing:
        message = _message({"compression": [{"algorithm": "quantization"}, {"algorithm": name, "params": {}}]})
        assert f"`compression[1].algorithm` names '{name}'" in message
        assert "'quantization'" in message.partition("available: ")[2]


def test_all_problems_are_reported_together() -> None:
    message = _message({"target_device": "TPU", "compression": [{"algorithm": "quantization", "weights": {"bit": 4}}]})
    assert message.startswith("2 problems in the configuration:")
    assert "`target_device`" in message
    assert "`compression[0].weights.bit` is not a known key; did you mean 'bits'?" in message


def test_problems_found_while_constructing_in_python_are_config_errors_too() -> None:
    with pytest.raises(ConfigError, match=r"`weights\.bits` must be at most 8, got 9"):
        QuantizationConfig(weights={"bits": 9})  # type: ignore[arg-type]


def test_errors_pickle() -> None:
    with pytest.raises(LightningNNCFError) as caught:
        NNCFConfig.load({"x": 1})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_errors_of_a_file_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({"compression": {"algorithm": "quantization", "bits": 8}}))
    message = _message(path)
    assert "`compression.bits` is not a known key" in message
    assert str(path) in message


def test_what_was_set_reads_back_alone() -> None:
    config = NNCFConfig(compression=(QuantizationConfig(preset="mixed"),), target_device="CPU")
    plain = config.model_dump(mode="json", exclude_unset=True)
    assert plain == {"compression": [{"algorithm": "quantization", "preset": "mixed"}], "target_device": "CPU"}
    assert NNCFConfig.load(plain) == config
