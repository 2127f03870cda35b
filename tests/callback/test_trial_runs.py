"""What is written, and what is not, in runs that train little or nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lightning_nncf import NNCFCallback
from tests.callback.modules import Classifier, config, loader, trainer
from tests.callback.test_pruning import fit, prune

HAWQ = {"precision": {"type": "hawq", "bits": [4, 8], "num_data_points": 4, "dump_init_precision_data": True}}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fast_dev_run_leaves_every_file_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("model.onnx", "model.layers.csv", "model.weights.csv", "model.bits.png"):
        (tmp_path / name).write_text("good")
    before = files(tmp_path)
    callback = NNCFCallback(
        {"target_device": "TRIAL", **config(initializer={**config()["compression"]["initializer"], **HAWQ})}
    )
    with caplog.at_level(logging.INFO):
        trainer(tmp_path, callback, fast_dev_run=True).fit(Classifier(), loader(), loader())
    assert files(tmp_path) == before
    assert callback.compressed is not None
    assert callback.compressed.stage.name == "FULLY_COMPRESSED"
    assert [record.message for record in caplog.records].count(
        "No file is written and nothing is exported under `fast_dev_run`"
    ) == 1


def test_fast_dev_run_writes_no_ranking_that_pruning_learned(tmp_path: Path) -> None:
    callback = prune(
        "model.onnx",
        pruning_target=None,
        pruning_flops_target=0.4,
        interlayer_ranking_type="learned_ranking",
        legr_params={"generations": 1, "train_steps": 1, "population_size": 1, "num_samples": 1},
        save_ranking_coeffs_path=str(tmp_path / "ranking.json"),
    )
    fit(tmp_path, callback, epochs=1, fast_dev_run=True)
    assert files(tmp_path) == {}


def test_fast_dev_run_needs_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    callback = NNCFCallback(config(), export_path=tmp_path / "file" / "below" / "model.onnx")
    trainer(tmp_path, callback, fast_dev_run=2).fit(Classifier(), loader())
    assert callback.compressed is not None


@pytest.mark.parametrize(
    "settings",
    [{"max_steps": 0}, {"overfit_batches": 1, "limit_val_batches": 0}],
    ids=["max_steps", "overfit_batches"],
)
def test_other_short_runs_export(tmp_path: Path, settings: dict[str, Any]) -> None:
    callback = NNCFCallback(config(), verify=False)
    trainer(tmp_path, callback, **settings).fit(Classifier(), loader(), loader())
    assert {"model.onnx", "model.layers.csv", "model.weights.csv"} <= set(files(tmp_path))
