"""An algorithm of another package: weights are clipped to limits that are trained with them.

Users name it in a configuration, ``{"compression": {"algorithm": "weight_clipping", "limit": 0.1}}``. It is known once
this module is imported, which happens by itself where the package's ``setup.cfg`` says

    [options.entry_points]
    lightning_nncf.algorithms =
        weight_clipping = third_party_algorithm
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lightning_nncf.config import AlgorithmConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.registry import register
from lightning_nncf.core.weights import CONVOLUTIONS, WeightPlace, find_weights, insert_at, inside_scopes
from lightning_nncf.graph.graph import NetworkGraph


class WeightClippingConfig(AlgorithmConfig):
    """Clips weights."""

    algorithm: Literal["weight_clipping"] = "weight_clipping"

    limit: float = Field(1.0, gt=0)
    """Largest magnitude of a weight at first."""


class Clip(nn.Module):
    """What is inserted at a weight; what training changes in it is a parameter, and so in every checkpoint."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor([limit]))

    def forward(self, weight: Tensor) -> Tensor:
        """Clip a weight; values beyond the limit hand their gradient to it."""
        return torch.minimum(torch.maximum(weight, -self.limit), self.limit)


@register(WeightClippingConfig)
class WeightClipping(Algorithm):
    """Clips the weights of convolutions and linear layers."""

    name = "weight_clipping"
    priority = 5  # at one weight behind the masks of sparsity (3) and before quantizers (11)

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Find the weights in the graph, and insert."""
        inside = inside_scopes(network, graph, self.config, self.root)
        self._insert(network, find_weights(network, graph, CONVOLUTIONS | {"linear"}, inside))

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert again, from a checkpoint."""
        self._insert(network, [WeightPlace.from_dict(place) for place in structure["places"]])

    def structure(self) -> dict[str, Any]:
        """Say what `restore` needs, as plain values."""
        return {"places": [place.to_dict() for place in self.places]}

    def _insert(self, network: nn.Module, places: Sequence[WeightPlace]) -> None:
        self.network, self.places = network, places
        self.clips = [Clip(self.config.limit) for _ in places]
        for place, clip in zip(places, self.clips, strict=True):
            insert_at(network, place, clip, algorithm=self.name, priority=self.priority)
