"""Outputs that are sets: a detector's boxes come in the order of their scores, and near scores change places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_nncf.proof.distance import relative_rms

__all__ = ["SetDistance", "detections_in", "set_distance"]

_OVERLAP = 0.5
"""Intersection over union from which two boxes may be the same object."""


@dataclass(frozen=True, kw_only=True)
class SetDistance:
    """How far two sets of detections are apart.

    Args:
        relative_rms: Root mean square of what differs, in scores, relative to that of the scores: a detection that only
            one of the sets has counts with its score, a pair with the difference of scores and with what its boxes do
            not share. What else belongs to the pairs, such as masks, counts by itself; the worst is taken.
        score: Largest difference of scores.
    """

    relative_rms: float
    score: float


def detections_in(structure: Mapping[str, Any]) -> list[dict[str, int]]:
    """Find the sets of detections in the structure of an output: dicts with ``boxes`` and ``scores``.

    Args:
        structure: Description made by `flatten`.

    Returns:
        For each set the place of its tensors among all, by key.

    >>> tensor = {"kind": "tensor"}
    >>> detections_in({"kind": "list", "items": [{"kind": "dict", "keys": ["boxes", "scores"], "items": [tensor] * 2}]})
    [{'boxes': 0, 'scores': 1}]
    """
    found: list[dict[str, int]] = []
    _search(structure, 0, found)
    return found


def _search(structure: Mapping[str, Any], place: int, found: list[dict[str, int]]) -> int:
    if structure["kind"] == "tensor":
        return place + 1
    items = structure.get("items", ())
    keys = structure.get("keys", ())
    if {"boxes", "scores"} <= set(keys) and all(item["kind"] == "tensor" for item in items):
        found.append({str(key): place + index for index, key in enumerate(keys)})
    for item in items:
        place = _search(item, place, found)
    return place


def set_distance(outputs: Sequence[Tensor], reference: Sequence[Tensor], places: Mapping[str, int]) -> SetDistance:
    """Compare two sets of detections, whatever their order.

    Args:
        outputs: All outputs of a runtime.
        reference: All outputs of the reference.
        places: Where the tensors of the set are: ``boxes`` [N, 4], ``scores`` [N], often ``labels`` [N] and others.
    """
    boxes, true_boxes = (found[places["boxes"]].double() for found in (outputs, reference))
    scores, true_scores = (found[places["scores"]].double() for found in (outputs, reference))
    if not bool(torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
        return SetDistance(relative_rms=float("inf"), score=float("inf"))
    overlap = _overlap(true_boxes, boxes)
    if "labels" in places:
        overlap = overlap * (reference[places["labels"]][:, None] == outputs[places["labels"]][None, :])
    pairs = _pairs(overlap, true_scores)
    mine, other = (torch.tensor([pair[side] for pair in pairs], dtype=torch.long) for side in (0, 1))
    difference = true_scores[mine] - scores[other]
    apart = true_scores[mine] * (1 - overlap[mine, other])
    alone = _without(true_scores, mine).square().sum() + _without(scores, other).square().sum()
    error = (difference.square().sum() + apart.square().sum() + alone).sqrt().item()
    size = true_scores.square().sum().sqrt().item()
    rest = [
        relative_rms(outputs[place][other], reference[place][mine])
        for key, place in places.items()
        if key not in ("boxes", "scores", "labels") and len(outputs[place]) == len(scores) and len(pairs)
    ]
    ratio = 0.0 if error == 0 else error / size if size > 0 else float("inf")
    return SetDistance(relative_rms=max([ratio, *rest]), score=max(difference.abs().tolist(), default=0.0))


def _pairs(overlap: Tensor, scores: Tensor) -> list[tuple[int, int]]:
    """Give every detection of the reference, the surest first, the box that overlaps it most and is free."""
    free = overlap.clone()
    pairs = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if free.shape[1] == 0:
            break
        best = int(free[index].argmax())
        if free[index, best] >= _OVERLAP:
            pairs.append((index, best))
            free[:, best] = -1
    return pairs


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return intersection over union [N, M] of boxes [N, 4] and [M, 4] given by two corners; equal boxes share all."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    equal = (first[:, None] == second[None, :]).all(2)
    return torch.where(equal, torch.ones_like(union), shared / union.clamp(min=1e-12))


def _without(values: Tensor, taken: Tensor) -> Tensor:
    keep = torch.ones(len(values), dtype=torch.bool)
    keep[taken] = False
    return values[keep]
