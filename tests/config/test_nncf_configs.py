"""Configurations in the shapes that NNCF's samples, zoo and integrations use load as they are."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from lightning_nncf.algorithms.quantization.config import QuantizationConfig, RangeConfig
from lightning_nncf.config import NNCFConfig

DATA = Path(__file__).parent / "data"
FILES = sorted(path for path in DATA.iterdir() if path.suffix in (".json", ".yaml"))


def _load(name: str) -> tuple[NNCFConfig, QuantizationConfig]:
    config = NNCFConfig.load(DATA / name)
    section = config.section(QuantizationConfig)
    assert section is not None
    return config, section


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_file_loads_and_its_plain_form_reads_back(path: Path) -> None:
    config = NNCFConfig.load(str(path))
    plain = config.to_dict()
    assert [section.algorithm for section in config.compression] == ["quantization"]
    assert NNCFConfig.load(plain).to_dict() == plain


def test_there_are_several_files() -> None:
    assert len(FILES) >= 8


def test_resnet50_keeps_its_range_samples_and_reports_sample_keys() -> None:
    config, section = _load("resnet50_int8.json")
    assert section.initializer.range == (RangeConfig(type="mixed_min_max", num_init_samples=850),)
    assert section.initializer.batchnorm_adaptation.num_bn_adaptation_samples == 2000
    assert section.overflow_fix == "enable"
    assert config.input_info is not None
    assert config.input_info[0].sample_size == (1, 3, 224, 224)
    assert set(config.unused_keys) == {
        "model", "pretrained", "num_classes", "batch_size", "epochs", "multiprocessing_distributed", "optimizer"
    }  # fmt: skip


def test_per_tensor_weights_come_from_a_list_with_one_algorithm() -> None:
    _, section = _load("resnet50_int8_per_tensor.json")
    assert section.weights.per_channel is False
    assert section.activations.per_channel is None
    assert section.initializer.range[0].type == "mean_min_max"


def test_mobilenet_has_one_range_entry_per_group() -> None:
    config, section = _load("mobilenet_v2_int8.json")
    assert config.target_device == "TRIAL"
    assert [entry.target_quantizer_group for entry in section.initializer.range] == ["weights", "activations"]
    assert section.initializer.batchnorm_adaptation.num_bn_adaptation_samples == 4096
    assert (section.mode_of("weights"), section.mode_of("activations")) == ("symmetric", "asymmetric")
    assert section.activations.signed is True


def test_squeezenet_has_all_defaults() -> None:
    _, section = _load("squeezenet_int8.json")
    assert section == QuantizationConfig()


def test_inception_keeps_its_seven_ignored_scopes() -> None:
    _, section = _load("inception_v3_int8.json")
    assert len(section.ignored_scopes) == 7
    assert section.ignored_scopes[0] == "Inception3/__add___0"


def test_bert_inputs_are_long_and_named() -> None:
    config, section = _load("bert_xnli_int8.json")
    assert config.input_info is not None
    assert [each.keyword for each in config.input_info] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {each.type for each in config.input_info} == {"long"}
    assert [each.filler for each in config.input_info] == ["ones", "ones", "zeros"]
    assert section.ignored_scopes[0] == r"{re}BertSelfAttention\[self\]/__add___0"
    assert section.quantize_inputs is False


def test_spellings_of_2_0_are_read_with_a_warning_each() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config, section = _load("unet_int8_v2_0.json")
    text = " ".join(str(each.message) for each in caught if each.category is FutureWarning)
    assert config.target_device == "CPU"
    assert section.overflow_fix == "disable"
    assert section.params is None
    for spelling in ("hw_config_type", "disable_saturation_fix", "export_to_onnx_standard_ops"):
        assert f"`{spelling}` is deprecated" in text
    assert "disable_shape_matching" in config.unused_keys


def test_yaml_reads_exponents_without_a_dot_as_numbers() -> None:
    config, section = _load("ssd300_int8.yaml")
    assert config.compression_lr_multiplier == pytest.approx(0.1)
    assert section.initializer.range[0].num_init_samples == 1280
