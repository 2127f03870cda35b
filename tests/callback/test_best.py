"""Which checkpoint is best, which one is exported, and what is said about both."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from lightning_nncf import CompressionCheckpoint, NNCFCallback
from lightning_nncf.core.sections import read_sections
from tests.callback.modules import Classifier, config, loader, trainer
from tests.callback.test_pruning import Wide


class Scored(Wide):
    """Does worse in every epoch."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("score", -float(self.current_epoch))


def sparse(**params: Any) -> dict[str, Any]:
    fixed = {"sparsity_target": 0.6, "sparsity_target_epoch": 2, "sparsity_freeze_epoch": 3}
    return {"algorithm": "magnitude_sparsity", "params": {**fixed, **params}}


STEPS = {"multistep_steps": [1, 2], "multistep_sparsity_levels": [0.2, 0.4, 0.6]}
SCHEDULES: dict[str, dict[str, Any]] = {
    "polynomial": sparse(),
    "exponential": sparse(schedule="exponential"),
    "multistep": sparse(schedule="multistep", **STEPS),
    "adaptive": sparse(schedule="adaptive", step=0.3),
    "rb": {"algorithm": "rb_sparsity", "params": sparse()["params"]},
    "pruning": {
        "algorithm": "filter_pruning",
        "pruning_init": 0.1,
        "params": {"pruning_target": 0.5, "pruning_steps": 2, "grouping": "full"},
    },
    "staged": {
        **config()["compression"],
        "params": {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": 2},
    },
}


def compress(*sections: dict[str, Any], **keys: Any) -> NNCFCallback:
    return NNCFCallback({"compression": list(sections)}, **{"export_path": None, **keys})


def fit(folder: Path, *callbacks: Any, module: Classifier | None = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    runner = trainer(folder, *callbacks, **{"max_epochs": 5, "enable_checkpointing": True, **settings})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Checkpoint directory")
        runner.fit(module or Scored(), loader(), loader())
    return runner


def keep(folder: Path, cls: Any = CompressionCheckpoint, **settings: Any) -> Any:
    return cls(dirpath=folder, filename="{epoch}", monitor="score", mode="max", **settings)


def levels(path: str | Path) -> dict[str, Any]:
    saved = torch.load(path, weights_only=True)
    return {"epoch": saved["epoch"], **read_sections(saved)["net"]["state"]}


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_less_compressed_is_never_best(tmp_path: Path, name: str) -> None:
    plain, ours = keep(tmp_path / "plain", ModelCheckpoint), keep(tmp_path / "ours")
    stages: list[int] = []

    class Note(ModelCheckpoint):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if not trainer.sanity_checking:
                stages.append(int(callback.compressed.stage))  # type: ignore[union-attr]

    callback = compress(SCHEDULES[name])
    fit(tmp_path, callback, plain, ours, Note(save_top_k=0))
    first = stages.index(2)
    assert first > 0
    assert Path(plain.best_model_path).name == "epoch=0.ckpt"
    assert Path(ours.best_model_path).name == f"epoch={first}.ckpt"
    assert ours.best_model_score == -first
    assert [path.name for path in (tmp_path / "ours").iterdir()] == [f"epoch={first}.ckpt"]


def test_several_best_are_of_the_furthest_stage_alone_and_a_restart_knows_it(tmp_path: Path) -> None:
    ours = keep(tmp_path / "ours", save_top_k=2, save_last=True)
    fit(tmp_path, compress(sparse()), ours, max_epochs=4)
    names = sorted(path.name for path in (tmp_path / "ours").iterdir())
    assert names == ["epoch=2.ckpt", "epoch=3.ckpt", "last.ckpt"]
    again = keep(tmp_path / "ours", save_top_k=2)
    torch.manual_seed(0)
    runner = trainer(tmp_path, compress(sparse()), again, max_epochs=5, enable_checkpointing=True)
    runner.fit(Scored(), loader(), loader(), ckpt_path=str(tmp_path / "ours" / "last.ckpt"), weights_only=True)
    assert again.stage == 2
    assert Path(again.best_model_path).name == "epoch=2.ckpt"


def test_without_compression_it_is_an_ordinary_checkpoint(tmp_path: Path) -> None:
    ours = keep(tmp_path / "ours")
    fit(tmp_path, ours, max_epochs=2)
    assert Path(ours.best_model_path).name == "epoch=0.ckpt"


@pytest.mark.parametrize(
    ("callback", "remedy"),
    [
        (lambda folder: keep(folder, ModelCheckpoint), "lightning_nncf.CompressionCheckpoint"),
        (lambda folder: EarlyStopping("score", mode="max", patience=9), "patience"),
    ],
    ids=["checkpoint", "early stopping"],
)
def test_choosing_by_a_metric_alone_is_warned_of_once(tmp_path: Path, callback: Any, remedy: str) -> None:
    with pytest.warns(UserWarning, match="monitors") as caught:
        fit(tmp_path, compress(sparse()), callback(tmp_path / "c"), max_epochs=2)
    assert len([each for each in caught if remedy in str(each.message) and "monitors" in str(each.message)]) == 1


@pytest.mark.parametrize("section", [config()["compression"], sparse()], ids=["compressed at once", "ours"])
def test_nothing_is_said_where_nothing_can_go_wrong(tmp_path: Path, section: dict[str, Any]) -> None:
    cls = ModelCheckpoint if section["algorithm"] == "quantization" else CompressionCheckpoint
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, compress(section), keep(tmp_path / "c", cls), max_epochs=1)
    assert not [each for each in caught if "monitors" in str(each.message)]


class Drifting(Scored):
    """Shows in a weight which epoch it is of."""

    def on_train_epoch_end(self) -> None:
        with torch.no_grad():
            self.net.head.bias.fill_(float(self.current_epoch))


@pytest.mark.parametrize(
    ("cls", "export_from", "epoch", "said"),
    [
        (CompressionCheckpoint, None, 2, "the best checkpoint"),
        (CompressionCheckpoint, "last", 3, "the last state"),
        (ModelCheckpoint, "best", 3, "is UNCOMPRESSED and the last state FULLY_COMPRESSED"),
        (None, None, 3, "no checkpoint callback monitors a metric"),
    ],
    ids=["best", "last", "best is not compressed", "none"],
)
def test_the_file_is_made_from_the_best_that_is_compressed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cls: Any, export_from: Any, epoch: int, said: str
) -> None:
    callback = compress(sparse(), export_path="model.onnx", verify=False, export_from=export_from)
    module = Drifting()
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoints = [] if cls is None else [keep(tmp_path / "c", cls)]
        fit(tmp_path, callback, *checkpoints, module=module, max_epochs=4, enable_checkpointing=bool(checkpoints))
    assert any("model.onnx is made from" in line and said in line for line in caplog.messages)
    values = {each.name: numpy_helper.to_array(each) for each in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert [float(value[0]) for name, value in values.items() if name.endswith("head.bias")] == [epoch]
    assert float(module.net.head.bias[0]) == 3  # the live module stays where training left it


def test_a_test_of_the_best_tells_how_far_it_is_compressed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner = fit(tmp_path, compress(sparse()), keep(tmp_path / "c"), max_epochs=3)
    with caplog.at_level(logging.INFO):
        runner.test(datamodule=None, dataloaders=loader(), ckpt_path="best", weights_only=True)
    assert "`test` runs the network fully compressed: magnitude_sparsity at 0.6" in caplog.messages
