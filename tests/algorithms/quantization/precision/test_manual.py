from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml

from lightning_nncf.algorithms.quantization.config import QuantizationConfig
from lightning_nncf.algorithms.quantization.precision.formats import allowed_formats
from lightning_nncf.algorithms.quantization.precision.manual import assign_bits
from lightning_nncf.algorithms.quantization.quantizer_config import QuantizerConfig
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compression import compress
from lightning_nncf.errors import ConfigError, ScopeError
from tests.algorithms.quantization.precision import zoo_lists
from tests.algorithms.quantization.precision.networks import Mixed, batches, placed, quantization

CONFIGS = Path("configs/classification/bits")


def _bits(pairs: Any, device: str = "TRIAL", **section: Any) -> dict[str, int]:
    config = quantization({"bitwidth_per_scope": pairs}, device, **section)
    compressed = compress(Mixed(), config, example_inputs=torch.zeros(2, 1, 8, 8))
    return {row["place"]: row["bits"] for row in compressed.rows()}


@pytest.mark.parametrize(
    ("name", "total", "counts"),
    [
        ("resnet50", 125, {8: 56, 4: 69}),
        ("mobilenet_v2", 117, {8: 55, 4: 62}),
        ("squeezenet1_1", 53, {8: 29, 4: 24}),
    ],
)
def test_nncfs_lists_name_each_quantizer_of_the_zoo_once(name: str, total: int, counts: dict[int, int]) -> None:
    network = getattr(torchvision.models, name)(weights=None)
    asymmetric = {"mode": "asymmetric", "bits": 4}
    graph, settings, setup, names = placed(
        network, torch.zeros(1, 3, 64, 64), weights=asymmetric, activations=asymmetric
    )
    pairs = getattr(zoo_lists, name)()
    found = [names.find(text) for _, text in pairs]
    assert len(pairs) == len(setup.points) == total
    assert sorted(found) == [(index,) for index in range(total)]

    assigned = assign_bits(setup, names, allowed_formats(graph, settings, setup), pairs)
    bits = [point.config.bits for point in assigned.points]
    assert {value: bits.count(value) for value in (4, 8)} == counts

    file = CONFIGS / f"{name}.yaml"
    config = QuantizationConfig.load({"initializer": {"precision": {"bitwidth_per_scope": str(file)}}})
    assert config.initializer.precision is not None
    own = {text: value for value, text in config.initializer.precision.bitwidth_per_scope}
    assert own == {str(point.point): point.config.bits for point in assigned.points}


def test_named_quantizers_get_their_bits_and_the_others_keep_theirs() -> None:
    bits = _bits([[4, "left|WEIGHT"], [2, "Mixed/NNCFConv2d[right]/conv2d_0|WEIGHT"]], weights={"bits": 6})
    assert (bits["left/conv2d:0|weight1"], bits["right/conv2d:0|weight1"]) == (4, 2)
    assert (bits["stem/conv2d:0|weight1"], bits["/input:0"]) == (6, 8)


def test_a_shared_quantizer_changes_at_all_its_places() -> None:
    bits = _bits([[4, "relu@1/relu:0"]])
    assert (bits["relu@1/relu:0"], bits["relu@2/relu:0"]) == (4, 4)


def test_pairs_lists_and_files_say_the_same(tmp_path: Path) -> None:
    pairs = [[4, "left|WEIGHT"], [4, "right|WEIGHT"], [2, "head|WEIGHT"]]
    groups = {4: ["left|WEIGHT", "right|WEIGHT"], 2: "head|WEIGHT"}
    (tmp_path / "bits.yaml").write_text(yaml.safe_dump(groups, sort_keys=False), encoding="utf-8")
    loaded = [
        NNCFConfig.load(quantization({"bitwidth_per_scope": form}))
        for form in (pairs, groups, str(tmp_path / "bits.yaml"))
    ]
    assert loaded[0] == loaded[1] == loaded[2]
    # what a checkpoint holds does not need the file
    assert NNCFConfig.load(loaded[2].to_dict()) == loaded[0]


@pytest.mark.parametrize("bits", [1, 9, "many"])
def test_impossible_bits_are_refused_with_the_path_of_the_key(bits: Any) -> None:
    with pytest.raises(ConfigError, match=r"initializer\.precision\.bitwidth_per_scope\[0\]"):
        NNCFConfig.load(quantization({"bitwidth_per_scope": [[bits, "left|WEIGHT"]]}))


def test_bits_that_the_device_lacks_are_an_error_that_names_what_it_has() -> None:
    with pytest.raises(ConfigError, match=r"asks for 4 bits at 'left/conv2d:0\|weight1', where .* computes in 8"):
        _bits([[4, "left|WEIGHT"]], device="CPU")


def test_bits_may_differ_between_weights_and_activations_of_a_device() -> None:
    assert _bits([[2, "left|WEIGHT"]], device="NPU")["left/conv2d:0|weight1"] == 2
    with pytest.raises(ConfigError, match="asks for 2 bits at '/input:0', where the target device computes in 4, 8"):
        _bits([[2, "/input:0"]], device="NPU")


def test_a_name_that_means_nothing_is_an_error_with_the_key() -> None:
    with pytest.raises(ScopeError, match=r"`initializer.precision.bitwidth_per_scope`: .*did you mean"):
        _bits([[4, "lft/conv2d:0|WEIGHT"]])


def test_entries_that_contradict_each_other_are_an_error_naming_both() -> None:
    with pytest.raises(ScopeError) as caught:
        _bits([[4, "left|WEIGHT"], [4, "left"], [8, "{re}left|WEIGHT"]])
    assert "'left' and '{re}left|WEIGHT' give the quantizer at 'left/conv2d:0|weight1' 4 and 8 bits" in str(
        caught.value
    )


def test_shared_quantizers_cannot_have_different_bits() -> None:
    with pytest.raises(ScopeError, match="give the quantizer at 'relu@1/relu:0' 4 and 8 bits"):
        _bits([[4, "relu@1/relu:0"], [8, "relu@2/relu:0"]])


def test_only_8_bit_weights_use_a_part_of_their_range() -> None:
    graph, settings, setup, names = placed(Mixed(), torch.zeros(2, 1, 8, 8), overflow_fix="disable")
    formats = allowed_formats(graph, settings, setup)
    index = names.find("left|WEIGHT")[0]
    found = {config.bits: config.quant_range() for config in formats[index] if config.bits in (2, 4, 8)}
    assert setup.points[index].config == QuantizerConfig(bits=8, narrow_range=True)
    # the sign is open until the data decides
    assert found == {8: (0, 254), 4: (0, 15), 2: (0, 3)}


def test_ranges_do_not_depend_on_bits() -> None:
    states = []
    for bits in (4, 8):
        torch.manual_seed(0)
        network = Mixed()
        pairs = [[bits, name] for name in ("left|WEIGHT", "relu@1/relu:0")]
        compress(network, quantization({"bitwidth_per_scope": pairs}), batches())
        states.append({name: value for name, value in network.state_dict().items() if "lnncf_" in name})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
