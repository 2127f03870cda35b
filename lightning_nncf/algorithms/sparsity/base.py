"""What all algorithms that put masks on weights have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_nncf.algorithms.sparsity.mask import WeightMask
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.computed_weights import refuse_computed
from lightning_nncf.core.weights import CONVOLUTIONS, WeightPlace, find_weights, insert_at, inside_scopes, refuse_frozen
from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.hooks.insertion import inserted
from lightning_nncf.statistics.sparsity import SparseSize, SparsityLevel

__all__ = ["MaskedSparsity"]


class MaskedSparsity(Algorithm):
    """Puts one mask on each weight of convolutions, linear layers and embeddings.

    Args:
        config: Settings of the algorithm.
        root: The whole configuration.
    """

    priority: ClassVar[int] = 3
    averages: ClassVar[bool] = False
    functions: ClassVar[frozenset[str]] = CONVOLUTIONS | {"linear", "embedding", "multi_head_attention_forward"}
    """Functions whose weights get a mask."""
    trains: ClassVar[bool] = True
    """Whether masks depend on how weights are trained, so that frozen layers are refused."""

    def __init__(self, config: Any, root: NNCFConfig) -> None:
        super().__init__(config, root)
        self.places: list[WeightPlace] = []
        self.masks: list[WeightMask] = []
        self.skipped: list[str] = []
        self._network: nn.Module | None = None

    @property
    def network(self) -> nn.Module:
        """The network with the masks."""
        assert self._network is not None, "built or restored before use"
        return self._network

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Find the weights and insert masks that keep everything.

        Raises:
            ConfigError: There is no weight to mask, a layer is frozen, or a hook computes its weight.
        """
        inside = inside_scopes(network, graph, self.config, self.root)
        found = find_weights(network, graph, self.functions, inside)
        places = [place for place in found if self._accepts(place)]
        self.skipped = [place.address for place in found if place not in places]
        self.skipped += refuse_computed(network, graph, self.functions, inside, self.name)
        if not places:
            reason = f"; not suitable: {', '.join(map(repr, self.skipped))}" if self.skipped else ""
            raise ConfigError(f"`{self.name}` finds no weight in {type(network).__name__}{reason}")
        if self.trains:
            refuse_frozen(network, places, self.name)
        self._insert(network, places)
        self._prepare(network, graph)

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert the masks that a checkpoint lists."""
        self.skipped = list(structure["skipped"])
        self._insert(network, [WeightPlace.from_dict(values).resized(network) for values in structure["places"]])

    def structure(self) -> dict[str, Any]:
        """Return where the masks are."""
        return {"places": [place.to_dict() for place in self.places], "skipped": self.skipped}

    def prepare_for_export(self, network: nn.Module) -> None:
        """Write the zeros into the weights, so that the file holds them instead of dense weights and masks."""
        with torch.no_grad():
            for site, algorithm, module in inserted(network):
                if algorithm == self.name:
                    assert isinstance(module, WeightMask)
                    site.parameter_of(network).masked_fill_(~module.kept(), 0.0)
                    module.written = True

    def sparsity(self) -> float:
        """Return the share of masked weights in the masked layers."""
        kept = sum(int(torch.count_nonzero(module.kept())) for module in self.masks)
        total = sum(module.mask.numel() for module in self.masks)
        return 1 - kept / total if total else 0.0

    def metrics(self) -> dict[str, Metric]:
        """Return metrics of sparsity and of the size it allows."""
        return {"sparsity": SparsityLevel(), "sparse_size_mb": SparseSize()}

    @torch.no_grad()
    def observations(self) -> dict[str, Tensor]:
        """Return the numbers of zeros and weights of each masked layer and of the network."""
        masked = {id(place.parameter_of(self.network)) for place in self.places}
        others = [p for name, p in self.network.named_parameters() if "lnncf_" not in name and id(p) not in masked]
        zeros = torch.tensor([self._zeros(index) for index in range(len(self.places))])
        counts = torch.tensor([module.mask.numel() for module in self.masks])
        return {
            "sparse_zeros": zeros,
            "sparse_counts": counts,
            "network_zeros": zeros.sum() + sum(p.numel() - int(torch.count_nonzero(p)) for p in others),
            "network_count": counts.sum() + sum(p.numel() for p in others),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per masked weight."""
        total = sum(module.mask.numel() for module in self.masks)
        return [
            {
                "place": place.address,
                "kind": "weight",
                "parameter": place.name,
                "shape": "x".join(map(str, place.shape)),
                "sparsity": self._zeros(index) / self.masks[index].mask.numel(),
                "share": self.masks[index].mask.numel() / total,
            }
            for index, place in enumerate(self.places)
        ]

    def summary(self) -> list[str]:
        """Say how many weights have masks, and which could have none."""
        weights = sum(module.mask.numel() for module in self.masks)
        lines = [f"{type(self).__name__}: masks on {weights:,} weights of {len(self.places)} layers"]
        if self.skipped:
            lines.append(f"{type(self).__name__}: left dense, not suitable: {', '.join(self.skipped)}")
        return lines

    def _accepts(self, place: WeightPlace) -> bool:
        """Whether a weight can have a mask of this algorithm."""
        return True

    def _prepare(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Look at the graph once the masks are inserted; only in `build`."""

    @abstractmethod
    def _make_mask(self, place: WeightPlace) -> WeightMask:
        """Make the module for one weight."""

    def _insert(self, network: nn.Module, places: Sequence[WeightPlace]) -> None:
        self._network, self.places = network, list(places)
        for place in places:
            module = self._make_mask(place)
            insert_at(network, place, module, algorithm=self.name, priority=self.priority)
            self.masks.append(module)

    def _weights(self) -> list[Tensor]:
        """Return the dense weights."""
        return [place.parameter_of(self.network).detach() for place in self.places]

    def _zeros(self, index: int) -> int:
        """Count the exact zeros of one masked weight."""
        weight, kept = self.places[index].parameter_of(self.network).detach(), self.masks[index].kept()
        return weight.numel() - int(torch.count_nonzero(kept & (weight != 0)))
