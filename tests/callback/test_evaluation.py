from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from lightning_nncf.callback.batches.sources import LoopData
from lightning_nncf.callback.evaluation import ValidationScore
from lightning_nncf.errors import ConfigError
from tests.callback import modules


class Judged(modules.Classifier):
    """Logs numbers, a metric, and something at the end of the epoch."""

    def __init__(self, names: tuple[str, ...] = ("val_loss", "index", "mean_index", "end")) -> None:
        super().__init__()
        self.names = names
        self.mean_index = MeanMetric()
        self.modes: set[bool] = set()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.modes.add(self.net.training)
        self.mean_index.update(batch_idx)
        values = {
            "val_loss": F.cross_entropy(self.net(batch[0]), batch[1]),
            "index": torch.tensor(float(batch_idx)),
            "mean_index": self.mean_index,
        }
        self.log_dict({name: value for name, value in values.items() if name in self.names})

    def on_validation_epoch_end(self) -> None:
        if "end" in self.names:
            self.log("end", 7.0)


class AtStart(Callback):
    """Asks for scores where a fit begins, as initialization does."""

    def __init__(self, *asked: tuple[float, str | None]) -> None:
        self.asked = asked
        self.found: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        score = ValidationScore(trainer, pl_module, LoopData(trainer, training=False))
        self.found = [score(share, metric) for share, metric in self.asked]


def _scores(
    tmp_path: Any, module: Any, *asked: tuple[float, str | None], validate: bool = True, more: Any = ()
) -> list[float]:
    callback = AtStart(*asked)
    # 10 samples: batches of 4, 4 and 2
    loaders = [modules.loader(10)] if validate else []
    modules.trainer(tmp_path, callback, *more, num_sanity_val_steps=0).fit(module, modules.loader(), *loaders)
    return callback.found


def test_numbers_are_averaged_by_samples_and_metrics_compute_themselves(tmp_path: Any) -> None:
    module = Judged()
    found = _scores(tmp_path, module, (1.0, "index"), (1.0, "mean_index"), (1.0, "end"), (1.0, "-index"))
    assert found == pytest.approx([(0 * 4 + 1 * 4 + 2 * 2) / 10, 1.0, 7.0, -0.8])
    assert module.modes == {False}
    assert module.net.training


@pytest.mark.parametrize(("share", "expected"), [(0.1, 0.0), (0.5, 0.5), (1.0, 0.8)])
def test_only_a_share_of_the_batches_runs(tmp_path: Any, share: float, expected: float) -> None:
    assert _scores(tmp_path, Judged(), (share, "index")) == pytest.approx([expected])


def test_a_loss_counts_negative_when_nothing_else_is_logged(tmp_path: Any) -> None:
    module = Judged(("val_loss",))
    (found,) = _scores(tmp_path, module, (1.0, None))
    assert found < 0


def test_what_a_callback_monitors_is_taken(tmp_path: Any) -> None:
    stopping = EarlyStopping("index", mode="min")
    assert _scores(tmp_path, Judged(), (1.0, None), more=[stopping]) == pytest.approx([-0.8])


def test_several_metrics_without_a_choice_are_an_error(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"cannot tell which .*'index', 'end', 'mean_index' is logged"):
        _scores(tmp_path, Judged(), (1.0, None))


def test_an_unknown_metric_is_an_error_with_the_nearest(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="logs no 'indx'; did you mean 'index'"):
        _scores(tmp_path, Judged(), (1.0, "-indx"))


def test_no_validation_loader_is_an_error(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="no validation loader or no `validation_step`"):
        _scores(tmp_path, Judged(), (1.0, None), validate=False)
