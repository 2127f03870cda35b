from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from lightning_nncf import NNCFCallback
from lightning_nncf.errors import VerificationError
from tests.callback.modules import Classifier, config, loader, trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit")
    callback = NNCFCallback(config(), export_path="out/model.onnx")
    module = Classifier()
    run = trainer(path, callback)
    run.fit(module, loader())
    run.save_checkpoint(path / "model.ckpt")
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.save({"x": x, "y": module.eval()(x)}, path / "sample.pt")
    assert callback.proof is not None
    assert callback.proof.verification is not None
    assert callback.proof.verification.passed
    return path


def test_file_gives_the_trained_outputs_in_both_runtimes(folder: Path) -> None:
    from lightning_nncf.proof import runtime_models

    sample = torch.load(folder / "sample.pt", weights_only=True)
    models = runtime_models(folder / "out/model.onnx")
    assert set(models) == {"ONNX Runtime", "OpenVINO"}
    for model in models.values():
        torch.testing.assert_close(model(sample["x"]), sample["y"], atol=0.02, rtol=0)


def test_weights_are_integers_and_nothing_of_the_machine_is_left(folder: Path) -> None:
    model = onnx.load(folder / "out/model.onnx")
    kinds = [tensor.data_type for tensor in model.graph.initializer]
    assert kinds.count(onnx.TensorProto.INT8) >= 3
    assert str(Path.cwd()).encode() not in model.SerializeToString()
    assert {entry.key for entry in model.metadata_props} >= {"lightning_nncf.version", "lightning_nncf.config"}


def test_every_place_is_listed_beside_the_file(folder: Path) -> None:
    lines = (folder / "out/model.layers.csv").read_text().splitlines()
    assert lines[0].startswith("algorithm,place,kind,bits")
    assert len(lines) == 1 + 8


def test_no_half_written_file_is_left(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "model.layers.csv",
        "model.onnx",
        "model.weights.csv",
    ]


def test_file_that_disagrees_is_kept_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disagree(*_args: object, **_kwargs: object) -> None:
        raise VerificationError("outputs differ")

    monkeypatch.setattr("lightning_nncf.proof.proof.verify_onnx", disagree)
    callback = NNCFCallback(config())
    with pytest.raises(VerificationError, match=r"model\.unverified\.onnx"):
        trainer(tmp_path, callback).fit(Classifier(), loader())
    assert not (tmp_path / "model.onnx").exists()
    assert (tmp_path / "model.unverified.onnx").exists()
