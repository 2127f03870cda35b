from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_nncf import NNCFCallback
from lightning_nncf.errors import ConfigError, ExportError, InitializationError, NetworkNotFoundError, ScopeError
from tests.callback.modules import Classifier, config, loader, trainer


def quantize(**kwargs: Any) -> NNCFCallback:
    return NNCFCallback(config(), **{"export_path": None, **kwargs})


def test_unknown_key_names_its_path_and_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"weights.*bist.*bits"):
        NNCFCallback({"compression": {"algorithm": "quantization", "weights": {"bist": 8}}})


def test_value_out_of_range_says_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"weights\.bits"):
        NNCFCallback({"compression": {"algorithm": "quantization", "weights": {"bits": 9}}})


def test_unknown_export_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="export_format"):
        quantize(export_format="tflite")


def test_scope_that_matches_nothing_names_near_ones(tmp_path: Path) -> None:
    callback = NNCFCallback(config(ignored_scopes=["stam"]), export_path=None)
    module = Classifier()
    with pytest.raises(ScopeError, match=r"stam.*stem"):
        trainer(tmp_path, callback).fit(module, loader())
    assert not [name for name in module.state_dict() if "lnncf_" in name]


def test_network_that_is_not_there_names_near_ones(tmp_path: Path) -> None:
    with pytest.raises(NetworkNotFoundError, match=r"nett.*'net'"):
        trainer(tmp_path, quantize(network="nett")).fit(Classifier(), loader())


def test_empty_loader_is_an_error(tmp_path: Path) -> None:
    class Nothing(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(InitializationError, match="no batch"):
        trainer(tmp_path, quantize()).fit(Classifier(), DataLoader(Nothing()))


def test_nan_in_the_data_names_the_quantizer(tmp_path: Path) -> None:
    data = TensorDataset(torch.full((4, 1, 8, 8), float("nan")), torch.zeros(4, dtype=torch.long))
    with pytest.raises(InitializationError, match=r"stem/conv2d:0|input:0"):
        trainer(tmp_path, quantize()).fit(Classifier(), DataLoader(data, batch_size=4))


def test_unwritable_export_path_fails_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    module = Classifier()
    before = module.net.stem.weight.clone()
    with pytest.raises(ExportError, match="file"):
        trainer(tmp_path, quantize(export_path="file/model.onnx")).fit(module, loader())
    assert torch.equal(module.net.stem.weight, before)


def test_export_before_fit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"call `trainer\.fit` first"):
        quantize().export(tmp_path / "model.onnx")
