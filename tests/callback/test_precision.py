from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import nn

from lightning_nncf import NNCFCallback, compress, export_and_verify, load_from_checkpoint
from lightning_nncf.core.compression import calibration_from
from tests.callback.modules import Classifier, Net, config, dataset, loader, trainer

INT8 = config()["compression"]
LEVELS = {"schedule": "polynomial", "sparsity_target": 0.5, "sparsity_target_epoch": 1}
COMPRESSIONS: dict[str, Any] = {
    "magnitude+int8": [{"algorithm": "magnitude_sparsity", "params": LEVELS}, INT8],
    "asymmetric": [{**INT8, "weights": {"mode": "asymmetric"}, "activations": {"mode": "asymmetric"}}],
    "logarithm": [{**INT8, "weights": {"logarithm_scale": True}, "activations": {"logarithm_scale": True}}],
    "rb": [{"algorithm": "rb_sparsity", "params": LEVELS}],
    "movement": [
        {
            "algorithm": "movement_sparsity",
            "params": {
                "warmup_start_epoch": 0,
                "warmup_end_epoch": 1,
                "importance_regularization_factor": 0.1,
                "enable_structured_masking": False,
            },
        }
    ],
    "binary": [
        {
            "algorithm": "binarization",
            "params": {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": 1},
            "ignored_scopes": ["{re}stem.*"],
        }
    ],
    "pruning": [
        {
            "algorithm": "filter_pruning",
            "initializer": {"batchnorm_adaptation": {"num_bn_adaptation_samples": 8}},
            "pruning_init": 0.5,
            "params": {"pruning_target": 0.5, "grouping": "full", "all_weights": True, "shrink_at": 1},
        },
        INT8,
    ],
}
TYPES = {
    "bf16-true": (torch.bfloat16, torch.float32),
    "16-true": (torch.float16, torch.float32),
    "64-true": (torch.float64, torch.float64),
    "bf16-mixed": (torch.float32, torch.float32),
}


def fit(tmp_path: Path, precision: Any, compression: Any, *callbacks: Any, **kwargs: Any) -> tuple[Any, NNCFCallback]:
    torch.manual_seed(0)
    module = Classifier()
    module.example_input_array = kwargs.pop("example_input_array", None)
    settings = {"compression": compression, **kwargs.pop("config", {})}
    nncf = NNCFCallback(settings, export_path=kwargs.pop("export_path", None))
    ckpt_path = kwargs.pop("ckpt_path", None)
    run = trainer(tmp_path, nncf, *callbacks, **{"max_epochs": 2, "precision": precision, **kwargs})
    run.fit(module, loader(), loader(), ckpt_path=ckpt_path)
    run.save_checkpoint(tmp_path / "last.ckpt")
    return module, nncf


def types_of(module: nn.Module, *, inserted: bool) -> set[torch.dtype]:
    return {parameter.dtype for name, parameter in module.named_parameters() if ("lnncf_" in name) == inserted}


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_inserted_parameters_keep_their_precision_and_learn(tmp_path: Path, compression: str, precision: str) -> None:
    start, _ = fit(tmp_path, precision, COMPRESSIONS[compression], max_epochs=0)
    begin = {name: value.detach().clone() for name, value in start.named_parameters()}
    module, nncf = fit(tmp_path, precision, COMPRESSIONS[compression])
    weights, ranges = TYPES[precision]
    assert types_of(module, inserted=False) == {weights}
    assert types_of(module, inserted=True) == {ranges}
    assert all(value.isfinite().all() for value in module.parameters())
    moved = {name for name, value in module.named_parameters() if not torch.equal(value, begin[name])}
    assert any("lnncf_" in name for name in moved)
    assert nncf.compressed is not None


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("compression", ["magnitude+int8", "pruning"])
def test_export_of_other_precisions_is_proven(tmp_path: Path, compression: str, precision: str) -> None:
    _, nncf = fit(tmp_path, precision, COMPRESSIONS[compression], export_path="model.onnx")
    assert nncf.proof is not None
    assert nncf.proof.verification is not None
    assert nncf.proof.verification.passed


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
@pytest.mark.parametrize("compression", ["magnitude+int8", "rb"])
def test_resumed_half_precision_equals_one_that_was_not_stopped(
    tmp_path: Path, compression: str, precision: str
) -> None:
    fit(tmp_path, precision, COMPRESSIONS[compression], max_epochs=1)
    path = tmp_path / "last.ckpt"
    resumed, _ = fit(tmp_path, precision, COMPRESSIONS[compression], max_epochs=2, ckpt_path=path)
    whole, _ = fit(tmp_path, precision, COMPRESSIONS[compression], max_epochs=2)
    expected, found = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    loaded = load_from_checkpoint(Classifier, path).state_dict()
    assert expected.keys() == loaded.keys()
    loaded = load_from_checkpoint(Classifier, tmp_path / "last.ckpt").state_dict()
    assert all(torch.equal(expected[name].to(loaded[name].dtype), loaded[name]) for name in expected)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("inputs", ["input_info", "example_input_array"])
def test_network_is_captured_from_described_inputs(tmp_path: Path, inputs: str, precision: str) -> None:
    described = {"config": {"input_info": {"sample_size": [2, 1, 8, 8]}}}
    given: Any = described if inputs == "input_info" else {"example_input_array": torch.zeros(2, 1, 8, 8)}
    module, _ = fit(tmp_path, precision, COMPRESSIONS["magnitude+int8"], max_epochs=1, **given)
    assert types_of(module, inserted=True) == {TYPES[precision][1]}


def test_average_of_half_precision_is_made_in_single_precision(tmp_path: Path) -> None:
    average = EMAWeightAveraging(decay=0.999)
    module, _ = fit(tmp_path, "bf16-true", COMPRESSIONS["magnitude+int8"], average)
    assert average._average_model is not None
    assert types_of(average._average_model.module, inserted=False) == {torch.float32}
    assert types_of(module, inserted=False) == {torch.bfloat16}


@pytest.mark.parametrize("compression", ["magnitude+int8", "rb", "binary"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_network_converted_by_hand_before_or_after(kind: torch.dtype, compression: str) -> None:
    x = dataset().tensors[0]
    for before in (True, False):
        torch.manual_seed(0)
        network = Net().to(kind) if before else Net()
        info = {"input_info": {"sample_size": [2, 1, 8, 8]}, "compression": COMPRESSIONS[compression]}
        compressed = compress(network, info)
        network.to(kind)
        compressed.initialize(calibration_from(network, [x.to(kind)]))
        network.train()
        output = network(x.to(kind))
        assert output.dtype == kind
        output.float().square().mean().backward()
        assert types_of(network, inserted=True) <= {torch.float32, kind} - {torch.bfloat16, torch.float16}
        ranges = [p for n, p in network.named_parameters() if "lnncf_" in n and p.grad is not None]
        assert all(p.grad is not None and p.grad.dtype == p.dtype and p.grad.isfinite().all() for p in ranges)


def test_conversion_there_and_back_loses_nothing_of_ranges() -> None:
    network = Net()
    compressed = compress(network, {"compression": INT8}, [dataset().tensors[0]])
    before = {name: value.clone() for name, value in network.named_parameters() if "lnncf_" in name}
    for convert in (network.half, network.bfloat16, network.double, network.half, network.float):
        convert()
    after = dict(network.named_parameters())
    assert before
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert compressed.stage.name == "FULLY_COMPRESSED"


@pytest.fixture
def half_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("half_by_default")
def test_ranges_are_single_precision_where_half_is_the_default(tmp_path: Path) -> None:
    network = Net()
    data = [dataset().tensors[0].bfloat16()]
    compressed = compress(network, {"compression": COMPRESSIONS["magnitude+int8"]}, data)
    assert types_of(network, inserted=True) == {torch.float32}
    assert types_of(network, inserted=False) == {torch.bfloat16}
    torch.set_default_dtype(torch.float32)
    proof = export_and_verify(compressed, tmp_path / "model.onnx")
    assert proof.verification is not None
    assert proof.verification.passed
