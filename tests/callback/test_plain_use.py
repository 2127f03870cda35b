"""What those are told who take a compressed module or checkpoint for a plain one, or the other way round."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from lightning_nncf import NNCFCallback, load_from_checkpoint, load_weights
from lightning_nncf.errors import CheckpointError
from tests.callback.modules import Classifier, config, loader, trainer

SPARSITY = {"compression": {"algorithm": "magnitude_sparsity"}}


def _fitted(folder: Path, *, sparse: bool = False) -> tuple[Classifier, NNCFCallback, pl.Trainer]:
    module, callback = Classifier(), NNCFCallback(SPARSITY if sparse else config(), export_path=None)
    run = trainer(folder, callback)
    run.fit(module, loader(), loader())
    run.save_checkpoint(folder / "compressed.ckpt")
    return module, callback, run


def test_plain_lightning_is_told_how_to_load_a_compressed_checkpoint(tmp_path: Path) -> None:
    _, _, _ = _fitted(tmp_path)
    path = tmp_path / "compressed.ckpt"
    told = r'Unexpected key\(s\) in state_dict: "net\.lnncf_hint: .*lightning_nncf\.load_from_checkpoint.*NNCFCallback'
    with pytest.raises(RuntimeError, match=told):
        Classifier.load_from_checkpoint(path)
    with pytest.raises(RuntimeError, match=told):
        trainer(tmp_path).test(Classifier(), loader(), ckpt_path=path)
    with pytest.raises(RuntimeError, match=told):
        trainer(tmp_path).fit(Classifier(), loader(), ckpt_path=path)


def test_hint_is_in_files_alone(tmp_path: Path) -> None:
    module, callback, _ = _fitted(tmp_path)
    weights = torch.load(tmp_path / "compressed.ckpt", weights_only=True)["state_dict"]
    assert [name for name in weights if name not in module.state_dict()] == [next(iter(weights))]
    # Whoever loads weights by hand into a compressed module, or a copy, meets no unexpected key.
    for compressed in (module, copy.deepcopy(module), load_from_checkpoint(Classifier, tmp_path / "compressed.ckpt")):
        compressed.load_state_dict(weights)
    callback.strip()
    with pytest.raises(RuntimeError, match="lnncf_hint"):
        module.load_state_dict(weights)


def test_checkpoint_of_the_earlier_format_is_read(tmp_path: Path) -> None:
    module, _, _ = _fitted(tmp_path)
    checkpoint = torch.load(tmp_path / "compressed.ckpt", weights_only=True)
    ours = checkpoint["lightning_nncf"]
    (section,) = ours.pop("networks").values()
    checkpoint["lightning_nncf"] = {**ours, **section, "format": 1, "network": "net"}
    checkpoint["state_dict"] = dict(module.state_dict())
    torch.save(checkpoint, tmp_path / "earlier.ckpt")
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_from_checkpoint(Classifier, tmp_path / "earlier.ckpt")(x), module.eval()(x))
    callback = NNCFCallback(config(), export_path=None)
    trainer(tmp_path, callback, max_epochs=2).fit(Classifier(), loader(), ckpt_path=tmp_path / "earlier.ckpt")
    assert callback.compressed is not None
    assert callback.compressed.algorithms[0].scheduler.current_step == 7


@pytest.mark.parametrize("sparse", [False, True], ids=["quantization", "sparsity"])
def test_going_on_with_a_float_checkpoint_names_the_call_that_loads_it(tmp_path: Path, sparse: bool) -> None:
    run = trainer(tmp_path)
    run.fit(Classifier(), loader())
    run.save_checkpoint(tmp_path / "float.ckpt")
    module, callback = Classifier(), NNCFCallback(SPARSITY if sparse else config(), export_path=None)
    with pytest.raises(CheckpointError, match=r"lightning_nncf\.load_weights\(module, path\)"):
        trainer(tmp_path, callback, max_epochs=2).fit(module, loader(), ckpt_path=tmp_path / "float.ckpt")
    load_weights(module, tmp_path / "float.ckpt")
    again = trainer(tmp_path, callback)
    again.fit(module, loader())
    assert again.global_step == 4


def test_exporters_of_torch_point_to_ours(tmp_path: Path) -> None:
    told = r"compressed Net.*callback\.export\(path\)"
    x = torch.randn(2, 1, 8, 8)
    module, callback, _ = _fitted(tmp_path)
    module.eval()
    # PyTorch has no symbol for a fused quantizer.
    with pytest.warns(UserWarning, match=told), pytest.raises(Exception, match="lightning_nncf"):
        torch.onnx.export(module, (x,), str(tmp_path / "a.onnx"), dynamo=False)
    with pytest.warns(UserWarning, match=told), pytest.raises(Exception, match="lightning_nncf"):
        module.to_onnx(tmp_path / "b.onnx", x, dynamo=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*torch.onnx.export sees.*")
        module(x)
        callback.export(tmp_path / "ours.onnx")
        callback.strip()
        torch.onnx.export(module, (x,), str(tmp_path / "plain.onnx"), dynamo=False)


def test_exporter_that_can_write_masks_points_to_ours_too(tmp_path: Path) -> None:
    module, _, _ = _fitted(tmp_path, sparse=True)
    with pytest.warns(UserWarning, match=r"compressed Net.*callback\.export\(path\)"):
        torch.onnx.export(module.net.eval(), (torch.randn(2, 1, 8, 8),), str(tmp_path / "a.onnx"), dynamo=True)
    assert (tmp_path / "a.onnx").exists()


def test_compressed_network_is_compiled_without_a_break(tmp_path: Path) -> None:
    module, _, _ = _fitted(tmp_path)
    module.eval()
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        compiled = torch.compile(module.net, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), module(x))
