from __future__ import annotations

import pytest
import torch

from lightning_nncf.export.structure import flatten
from lightning_nncf.proof.compare import compare
from lightning_nncf.proof.detections import detections_in, set_distance

_PLACES = {"boxes": 0, "scores": 1, "labels": 2}


def _detections() -> list[torch.Tensor]:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0], [5.0, 50.0, 9.0, 60.0]])
    return [boxes, torch.tensor([0.9, 0.6, 0.59]), torch.tensor([1, 2, 1])]


def test_sets_are_found_in_what_a_detector_returns() -> None:
    detection = dict(
        zip(("boxes", "labels", "scores"), (torch.zeros(2, 4), torch.zeros(2), torch.zeros(2)), strict=True)
    )
    _, structure = flatten([detection, detection])
    assert detections_in(structure) == [
        {"boxes": 0, "labels": 1, "scores": 2},
        {"boxes": 3, "labels": 4, "scores": 5},
    ]


def test_order_of_detections_is_free() -> None:
    reference = _detections()
    swapped = [tensor[[0, 2, 1]] for tensor in reference]
    assert set_distance(swapped, reference, _PLACES).relative_rms == 0.0
    assert compare(swapped, reference).relative_rms > 0.5
    assert compare(swapped, reference, [_PLACES]).relative_rms == 0.0


def test_missing_detection_counts_with_its_score() -> None:
    reference = _detections()
    fewer = [tensor[:2] for tensor in reference]
    # 0.59 / sqrt(0.9^2 + 0.6^2 + 0.59^2)
    assert set_distance(fewer, reference, _PLACES).relative_rms == pytest.approx(0.59 / 1.2330, abs=1e-3)


def test_moved_box_counts_with_what_it_does_not_share() -> None:
    reference = _detections()
    moved = [tensor.clone() for tensor in reference]
    moved[0][0] += torch.tensor([0.0, 0.0, 0.0, 2.5])  # intersection 100, union 125
    assert set_distance(moved, reference, _PLACES).relative_rms == pytest.approx(0.9 * 0.2 / 1.2330, abs=1e-3)


@pytest.mark.parametrize("change", ["label", "nan", "masks"])
def test_wrong_detection_is_seen(change: str) -> None:
    reference = [*_detections(), torch.rand(3, 4, 4)]
    wrong = [tensor.clone() for tensor in reference]
    if change == "label":
        wrong[2][0] = 7
    elif change == "nan":
        wrong[1][0] = float("nan")
    else:
        wrong[3] = 1 - wrong[3]
    assert set_distance(wrong, reference, {**_PLACES, "masks": 3}).relative_rms > 0.5


def test_no_detection_equals_no_detection() -> None:
    empty = [torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)]
    assert set_distance(empty, empty, _PLACES).relative_rms == 0.0
    assert set_distance(_detections(), empty, _PLACES).relative_rms == float("inf")
