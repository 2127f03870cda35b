from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_nncf.algorithms.quantization.precision import search
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.capture.trace import trace
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.compression import compress
from lightning_nncf.errors import ConfigError
from tests.algorithms.quantization.precision.networks import Mixed, batches, quantization

HAWQ = {"type": "hawq", "iter_number": 5, "num_data_points": 8}


def _compressed(config: dict[str, Any], **changes: Any) -> CompressedNetwork:
    torch.manual_seed(0)
    network = Mixed()

    def loss(batch: Any) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1])

    return compress(network, config, batches(), **{"loss": loss, **changes})


def _bits(compressed: CompressedNetwork, kind: str) -> dict[str, int]:
    return {row["place"]: row["bits"] for row in compressed.rows() if row["kind"] == kind}


@pytest.mark.parametrize("of", ["flops", "size"])
@pytest.mark.parametrize("ratio", [1.2, 2.0, 2.9])
def test_chosen_bits_satisfy_the_ratio(of: str, ratio: float) -> None:
    compressed = _compressed(quantization({**HAWQ, "compression_ratio": ratio, "compression_ratio_of": of}))
    network = compressed.network
    weights = _bits(compressed, "weight")
    bits = {place.partition("/")[0]: value for place, value in weights.items()}
    activations = _bits(compressed, "activation")
    if of == "size":
        costs = {name: network.get_submodule(name).weight.numel() for name in bits}
        used = bits
    else:
        positions = {"stem": 64, "left": 16, "right": 16, "join": 16, "head": 1}
        costs = {name: network.get_submodule(name).weight.numel() * positions[name] for name in bits}
        feeds = {"stem": "/input:0", "left": "relu/relu:0", "right": "relu/relu:0", "join": "relu@1/relu:0"}
        feeds["head"] = "/mean:0"
        used = {name: max(bits[name], activations[feeds[name]]) for name in bits}
    reached = 8 * sum(costs.values()) / sum(costs[name] * used[name] for name in bits)
    assert reached >= ratio
    assert len(set(bits.values())) > 1


def test_the_bits_are_in_the_statistics_and_in_the_state_of_the_checkpoint() -> None:
    compressed = _compressed(quantization({**HAWQ, "compression_ratio": 2.0}))
    statistics, weights = compressed.statistics(), _bits(compressed, "weight")
    for bits in set(weights.values()):
        assert statistics[f"weight_bits_{bits}"] == list(weights.values()).count(bits)
    setup = compressed.structure()["algorithms"]["quantization"]["setup"]
    stored = [point["config"]["bits"] for point in setup["points"] if point["kind"] == "weight"]
    assert stored == list(weights.values())


def test_nothing_is_searched_on_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = _compressed(quantization({**HAWQ, "compression_ratio": 2.0}))
    structure = json.loads(json.dumps(compressed.structure()))

    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(search, "search_by_traces", forbidden)
    network = Mixed()
    restored = CompressedNetwork.restore(network, compressed.config, structure)
    network.load_state_dict(compressed.network.state_dict())
    assert restored.rows() == compressed.rows()
    x = batches()[0][0]
    assert torch.equal(network.eval()(x), compressed.network.eval()(x))


def test_a_structure_saved_before_the_search_can_still_be_searched() -> None:
    torch.manual_seed(0)
    network = Mixed()
    config = NNCFConfig.load(quantization({**HAWQ, "compression_ratio": 2.0}))
    built = CompressedNetwork.build(network, config, trace(network, lambda: network(batches()[0][0])))
    structure = json.loads(json.dumps(built.structure()))
    assert set(_bits(built, "weight").values()) == {8}
    torch.manual_seed(0)
    again = Mixed()
    restored = CompressedNetwork.restore(again, config, structure)

    def loss(batch: Any) -> Tensor:
        return F.cross_entropy(again(batch[0]), batch[1])

    restored.initialize(CalibrationData(batches=batches(), forward=loss, batch_size=lambda batch: len(batch[0])))
    assert min(_bits(restored, "weight").values()) < 8


def test_same_seed_same_bits_and_the_global_generator_is_left_alone() -> None:
    found = []
    for _ in range(2):
        compressed = _compressed(quantization({**HAWQ, "compression_ratio": 2.0}))
        found.append((compressed.rows(), torch.rand(1).item()))
    torch.manual_seed(0)
    Mixed()
    assert found[0] == found[1]
    assert found[0][1] == torch.rand(1).item()


def test_bits_never_exceed_those_of_the_section() -> None:
    config = quantization({**HAWQ, "compression_ratio": 2.0}, weights={"bits": 4}, activations={"bits": 4})
    assert max(row["bits"] for row in _compressed(config).rows()) <= 4


def test_formats_are_those_of_the_device() -> None:
    config = quantization({**HAWQ, "compression_ratio": 1.8}, "NPU")
    rows = _compressed(config).rows()
    # the NPU has weights of 2, 4 and 8 bits, but no inputs of 2 bits and no asymmetric ones of 4
    assert {row["bits"] for row in rows if row["kind"] == "activation"} == {4, 8}
    assert {row["mode"] for row in rows if row["bits"] < 8} == {"symmetric"}
    assert all(row["levels"] in ("-8..7", "0..15") for row in rows if row["bits"] == 4)


def test_only_one_group_is_chosen_for_when_asked() -> None:
    precision = {**HAWQ, "compression_ratio": 2.0, "compression_ratio_of": "size"}
    compressed = _compressed(quantization({**precision, "target_quantizer_group": "weights"}))
    assert set(_bits(compressed, "activation").values()) == {8}
    assert len(set(_bits(compressed, "weight").values())) > 1


def test_traces_come_from_a_file_and_the_search_writes_what_it_saw(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Mixed()
    names = ["stem", "left", "right", "join", "head"]
    places = [f"{name}/{'linear' if name == 'head' else 'conv2d'}:0|weight1" for name in names]
    (tmp_path / "traces.json").write_text(json.dumps(dict(zip(places, [5, 4, 3, 2, 1], strict=True))), encoding="utf-8")
    precision = {
        **HAWQ,
        "compression_ratio": 2.0,
        "traces_per_layer_path": str(tmp_path / "traces.json"),
        "dump_init_precision_data": True,
    }
    config = NNCFConfig.load(quantization(precision))
    built = CompressedNetwork.build(network, config, trace(network, lambda: network(batches()[0][0])))
    built.initialize(
        CalibrationData(
            batches=batches(),
            forward=lambda batch: network(batch[0]),
            batch_size=lambda batch: len(batch[0]),
            directory=tmp_path,
        )
    )
    bits = _bits(built, "weight")
    # rising traces, never falling bits
    assert [bits[place] for place in reversed(places)] == sorted(bits.values())

    again = quantization({"bitwidth_per_scope": str(tmp_path / "hawq" / "bitwidth_per_scope.json")})
    rows = compress(Mixed(), again, example_inputs=torch.zeros(2, 1, 8, 8)).rows()
    assert [row["bits"] for row in rows] == [row["bits"] for row in built.rows()]
    assert json.loads((tmp_path / "hawq" / "traces.json").read_text()) == dict(
        zip(places, [5, 4, 3, 2, 1], strict=True)
    )
    changes = json.loads((tmp_path / "hawq" / "perturbations.json").read_text())
    assert all(each["2"] > each["4"] > each["8"] > 0 for each in changes.values())
    header, *lines = (tmp_path / "hawq" / "choices.csv").read_text().splitlines()
    assert header == "compression_ratio,metric"
    assert len(lines) == 3 + 3 * 4 + 6  # one, two or three bit widths, changing at one or two of four borders


def test_more_bits_are_spent_where_the_curvature_is() -> None:
    torch.manual_seed(0)
    network = Mixed()
    config = NNCFConfig.load(
        quantization({**HAWQ, "compression_ratio": 2.0, "compression_ratio_of": "size", "iter_number": 30})
    )
    built = CompressedNetwork.build(network, config, trace(network, lambda: network(batches()[0][0])))

    def loss(batch: Any) -> Tensor:
        network(batch[0])
        return 1e6 * network.right.weight.square().sum() + sum(
            1e-3 * module.weight.square().sum() for module in (network.stem, network.left, network.join, network.head)
        )

    built.initialize(CalibrationData(batches=batches(), forward=loss, batch_size=lambda batch: len(batch[0])))
    bits = _bits(built, "weight")
    assert bits["right/conv2d:0|weight1"] == 8
    assert min(bits.values()) == 2


@pytest.mark.parametrize(
    ("precision", "device", "section", "message"),
    [
        ({"compression_ratio": 9.0}, "TRIAL", {}, "`initializer.precision.compression_ratio` must be from 1 to 4 "),
        ({}, "CPU", {}, "no quantizer has a choice between bit widths: 2, 4, 8 are asked for, .*'CPU' allows 8 and"),
        ({"bits": [8]}, "TRIAL", {}, "no quantizer has a choice between bit widths: 8 are asked for"),
        ({"target_quantizer_group": "activations"}, "TRIAL", {}, "chooses bits by weights, but no weight has a choice"),
        ({"bits": []}, "TRIAL", {}, "bits"),
    ],
    ids=["ratio", "device", "one width", "activations only", "empty"],
)
def test_what_cannot_be_searched_is_an_error(
    precision: dict[str, Any], device: str, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _compressed(quantization({**HAWQ, **precision}, device, **section))


def test_ranges_of_weights_are_those_that_fit_their_new_bits() -> None:
    config = quantization({**HAWQ, "compression_ratio": 2.5, "compression_ratio_of": "size"})
    config["compression"]["initializer"]["range"] = {"type": "least_squares", "num_init_samples": 8}
    compressed = _compressed(config)
    bits = _bits(compressed, "weight")
    assert len(set(bits.values())) > 1
    pairs = [[value, place] for place, value in bits.items()]
    by_hand = quantization({"bitwidth_per_scope": pairs})
    by_hand["compression"]["initializer"]["range"] = config["compression"]["initializer"]["range"]
    expected = _compressed(by_hand).network.state_dict()
    found = compressed.network.state_dict()
    scales = [name for name in found if "lnncf_" in name and name.endswith("scale")]
    assert len(scales) > 5
    assert all(torch.equal(found[name], expected[name]) for name in scales)
