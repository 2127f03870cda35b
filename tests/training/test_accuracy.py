"""Decisions about accuracy against a table worked by hand."""

from __future__ import annotations

import pytest

from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.errors import ConfigError
from lightning_nncf.training.accuracy import AccuracyTarget, EarlyExit

NONE, PART, FULL = (
    CompressionStage.UNCOMPRESSED,
    CompressionStage.PARTIALLY_COMPRESSED,
    CompressionStage.FULLY_COMPRESSED,
)

# Allowed: 80 - 1 % of 80 = 79.2. Metric, stage, budget, whether training ends.
TABLE = [
    (80.0, NONE, 0.8, False),
    (80.5, NONE, 1.3, False),
    (79.0, PART, -0.2, False),
    (79.6, PART, 0.4, False),
    (75.0, FULL, -4.2, False),
    (77.5, FULL, -1.7, False),
    (76.9, FULL, -2.3, False),
    (78.3, FULL, -0.9, False),
    (78.0, FULL, -1.2, False),
    (79.1, FULL, -0.1, False),
    (78.8, FULL, -0.4, False),
    (79.3, FULL, 0.1, True),
]


def test_training_ends_in_the_first_epoch_that_is_compressed_and_good_enough() -> None:
    early = EarlyExit(AccuracyTarget(reference=80.0, relative=1.0), maximal_total_epochs=99)
    for epoch, (metric, stage, budget, ends) in enumerate(TABLE):
        assert early.judge(epoch, metric, stage) is ends, epoch
        assert early.epochs[-1].budget == pytest.approx(budget)
    report = early.report()
    assert report["held"]
    assert (report["best_after_epochs"], report["epochs_spent"]) == (11, 11)
    assert report["absolute_drop"] == pytest.approx(0.7)
    assert report["relative_drop_percent"] == pytest.approx(0.875)


def test_what_cannot_be_held_ends_with_the_epochs_and_keeps_the_best_that_is_compressed() -> None:
    early = EarlyExit(AccuracyTarget(reference=80.0, relative=1.0), maximal_total_epochs=10)
    ends = [early.judge(epoch, metric, stage) for epoch, (metric, stage, _, _) in enumerate(TABLE[:11])]
    assert ends == [False] * 10 + [True]
    assert not early.report()["held"]
    assert early.report()["best_after_epochs"] == 9


def test_a_metric_that_is_to_be_small_may_rise() -> None:
    target = AccuracyTarget(reference=2.0, higher_is_better=False, absolute=0.25)
    assert [target.budget(metric) for metric in (1.5, 2.25, 3.0)] == [0.75, 0.0, -0.75]


def test_a_state_goes_on_where_it_was() -> None:
    early = EarlyExit(AccuracyTarget(reference=80.0, relative=1.0), maximal_total_epochs=99)
    for epoch, (metric, stage, _, _) in enumerate(TABLE[:5]):
        early.judge(epoch, metric, stage)
    again = EarlyExit(AccuracyTarget(reference=0.0), maximal_total_epochs=99)
    again.load_state_dict(early.state_dict())
    assert again.epochs == early.epochs
    assert again.target == early.target


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "adaptive_compression_level"}, "not available in this version"),
        ({"mode": "early"}, "early_exit"),
        (
            {
                "mode": "early_exit",
                "params": {
                    "maximal_relative_accuracy_degradation": 1.0,
                    "maximal_absolute_accuracy_degradation": 1.0,
                },
            },
            "keep one of them",
        ),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NNCFConfig.load({"compression": {"algorithm": "quantization"}, "accuracy_aware_training": values})
