"""The example of a third-party algorithm does all that one of the package's own does."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper

from lightning_nncf import NNCFCallback
from lightning_nncf.config import registry as config_registry
from lightning_nncf.core import registry
from tests.callback.modules import Classifier, config, loader, trainer

SECTIONS = [{"algorithm": "weight_clipping", "limit": 0.1}, config()["compression"]]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the example is installed."""
    config_registry.algorithm_names()
    monkeypatch.setattr(config_registry, "_registered", dict(config_registry._registered))
    monkeypatch.setattr(registry, "_ALGORITHMS", dict(registry._ALGORITHMS))
    module = "docs.examples.third_party_algorithm"
    monkeypatch.delitem(sys.modules, module, raising=False)
    entries = EntryPoints([EntryPoint("weight_clipping", module, config_registry.ENTRY_POINT_GROUP)])
    monkeypatch.setattr(config_registry, "entry_points", lambda group: entries.select(group=group))


def _fit(folder: Path, *, epochs: int, resumed: Path | None = None) -> tuple[Classifier, NNCFCallback]:
    """Train for one batch per epoch and write a checkpoint; where training was resumed, export and prove, too."""
    torch.manual_seed(0)
    module, path = Classifier(), None if resumed is None else "model.onnx"
    callback = NNCFCallback({"compression": SECTIONS}, export_path=path, verify=["onnxruntime"])
    fitting = trainer(folder, callback, max_epochs=epochs, limit_train_batches=1)
    fitting.fit(module, loader(), ckpt_path=resumed)
    fitting.save_checkpoint(folder / "last.ckpt")
    return module, callback


def test_example_is_trained_saved_resumed_and_exported_beside_quantization(tmp_path: Path) -> None:
    (straight, _), _ = _fit(tmp_path / "straight", epochs=2), _fit(tmp_path / "first", epochs=1)
    resumed, callback = _fit(tmp_path / "second", epochs=2, resumed=tmp_path / "first" / "last.ckpt")
    expected, state = straight.state_dict(), resumed.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    limit = float(state["net.stem.lnncf_weight.weight_clipping.limit"])
    assert limit != pytest.approx(0.1)
    assert callback.proof is not None
    callback.strip()
    largest = float(resumed.net.stem.weight.abs().max())
    assert largest == pytest.approx(limit, rel=0.02)
    weights = onnx.load(tmp_path / "second" / "model.onnx").graph.initializer
    assert any(numpy_helper.to_array(each).dtype == "int8" for each in weights)
