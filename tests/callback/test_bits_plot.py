from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from lightning_nncf import NNCFCallback
from lightning_nncf.callback.bits_plot import plot_bits
from tests.callback import modules

ROWS = [
    {"place": "conv/conv2d:0|weight1", "kind": "weight", "bits": 8},
    {"place": "fc/linear:0|weight1", "kind": "weight", "bits": 2},
    {"place": "/input:0", "kind": "activation", "bits": 4},
    {"place": "conv", "kind": "filters"},
]


def test_bars_show_each_quantizer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: (drawn.append(self), save(self, *args, **kwargs))
    )
    plot_bits(ROWS, tmp_path / "new" / "model.bits.png")
    above, below = drawn[0].axes
    assert [bar.get_height() for bar in above.patches] == [8, 2]
    assert [label.get_text() for label in above.get_xticklabels()] == ["conv/conv2d:0|weight1", "fc/linear:0|weight1"]
    assert above.get_title() == "weights: 1 of 2 bits, 1 of 8 bits"
    assert [bar.get_height() for bar in below.patches] == [4]
    assert imread(tmp_path / "new" / "model.bits.png").std() > 0


def test_a_plot_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.bits.png"
    path.write_bytes(b"old")

    def fail(self: Figure, *args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_bits(ROWS, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "uniform"])
def test_a_plot_lies_beside_the_export_of_mixed_precision(tmp_path: Path, mixed: bool) -> None:
    values = modules.config()
    values["target_device"] = "TRIAL"
    if mixed:
        values["compression"]["initializer"]["precision"] = {"bitwidth_per_scope": {"4": ["body|WEIGHT"]}}
    torch.manual_seed(0)
    trainer = modules.trainer(tmp_path, NNCFCallback(values, export_path="out/model.onnx"))
    trainer.fit(modules.Classifier(), modules.loader())
    assert (tmp_path / "out" / "model.bits.png").exists() is mixed
    assert (tmp_path / "out" / "model.layers.csv").exists()
