"""Binarization of 2d convolutions in stages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lightning_nncf.algorithms.binarization.binarizers import ActivationBinarizer, WeightBinarizer
from lightning_nncf.algorithms.binarization.config import BinarizationConfig
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.computed_weights import refuse_computed
from lightning_nncf.core.registry import register
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.core.staged import StagedOptimizers
from lightning_nncf.core.weights import (
    CONVOLUTIONS,
    WeightPlace,
    find_weights,
    insert_at,
    inside_scopes,
    refuse_frozen,
)
from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.graph import InsertionPoint, NetworkGraph
from lightning_nncf.hooks.insertion import HookSite, insert, sites
from lightning_nncf.schedules.staged import StagedScheduler
from lightning_nncf.statistics.binarization import BinarizedShare

__all__ = ["Binarization"]


@register(BinarizationConfig)
class Binarization(Algorithm):
    """Binary weights, and binary activations in front of them, of 2d convolutions.

    Both begin in epochs that the configuration names. Ignore the first convolution and those of shortcuts.

    Args:
        config: Settings.
        root: The whole configuration.
    """

    name: ClassVar[str] = "binarization"
    priority: ClassVar[int] = 11
    scheduler: StagedScheduler

    def __init__(self, config: BinarizationConfig, root: NNCFConfig) -> None:
        super().__init__(config, root)
        params = config.params
        self.scheduler = StagedScheduler(params.activations_quant_start_epoch, params.weights_quant_start_epoch)
        self.scheduler.attach(self.start_activations, self.start_weights, self._step)
        self.optimizers = StagedOptimizers(params)
        self.places: list[WeightPlace] = []
        self.weights: list[WeightBinarizer] = []
        self.activations: list[ActivationBinarizer] = []
        self.macs: list[dict[str, Any]] = []
        self._inputs: list[tuple[HookSite, ...]] = []

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Insert binarizers, idle at first, at the weights and inputs of 2d convolutions.

        Raises:
            ConfigError: There is no convolution to binarize, it is frozen, or a hook computes its weight.
        """
        inside = inside_scopes(network, graph, self.config, self.root)
        refuse_computed(network, graph, {"conv2d"}, inside, self.name)
        places = find_weights(network, graph, {"conv2d"}, inside)
        if not places:
            raise ConfigError(f"`{self.name}` finds no 2d convolution in {type(network).__name__} within its scopes")
        refuse_frozen(network, places, self.name)
        names = {place.name for place in places}
        calls = [op for op in graph.ops() if op.function == "conv2d" and names & set(op.parameters.values())]
        inputs = {
            op.address: (sites(graph, network, InsertionPoint(kind="input", address=op.address, port=0)), op.inputs[0])
            for op in calls
        }
        self.macs = _macs(graph, names)
        self._insert(network, places, [(located, info.shape[1]) for located, info in inputs.values()])

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert the binarizers that a checkpoint lists."""
        self.macs = [dict(row) for row in structure["macs"]]
        inputs = [
            (tuple(HookSite.from_dict(site) for site in entry["sites"]), int(entry["channels"]))
            for entry in structure["inputs"]
        ]
        self._insert(network, [WeightPlace.from_dict(values) for values in structure["places"]], inputs)

    def structure(self) -> dict[str, Any]:
        """Return where the binarizers are."""
        return {
            "places": [place.to_dict() for place in self.places],
            "inputs": [
                {"sites": [site.to_dict() for site in located], "channels": module.threshold_logit.shape[1]}
                for located, module in zip(self._inputs, self.activations, strict=True)
            ],
            "macs": self.macs,
        }

    def start_activations(self) -> None:
        """Make activations binary from now on."""
        for module in self.activations:
            module.enabled = True

    def start_weights(self) -> None:
        """Make weights binary from now on."""
        for module in self.weights:
            module.enabled = True

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Take the optimizers whose learning rate and weight decay the recipe sets."""
        self.optimizers.attach(optimizers)

    @property
    def batch_multiplier(self) -> int:
        """Number of batches whose gradients are accumulated."""
        return int(self.config.params.batch_multiplier)

    @property
    def stage(self) -> CompressionStage:
        """Fully compressed once weights and activations are binary."""
        on = [module.enabled for module in (*self.weights, *self.activations)]
        if all(on):
            return CompressionStage.FULLY_COMPRESSED
        return CompressionStage.PARTIALLY_COMPRESSED if any(on) else CompressionStage.UNCOMPRESSED

    def metrics(self) -> dict[str, Metric]:
        """Return the metric of the binarized share."""
        return {"binarized_share": BinarizedShare()}

    def observations(self) -> dict[str, Tensor]:
        """Return operations and weights of all convolutions and linear layers."""
        active = bool(self.weights) and all(module.enabled for module in self.weights)
        return {
            "layer_macs": torch.tensor([row["macs"] for row in self.macs]),
            "layer_weights": torch.tensor([row["weights"] for row in self.macs]),
            "layer_is_binary": torch.tensor([row["binary"] and active for row in self.macs]),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per convolution and linear layer, with its multiply-accumulate operations per sample."""
        total = sum(row["macs"] for row in self.macs)
        return [
            {
                "place": row["place"],
                "kind": "weight",
                "bits": 1 if row["binary"] else 32,
                "mode": self.config.mode if row["binary"] else "float",
                "macs": row["macs"],
                "share": row["macs"] / total if total else 0.0,
            }
            for row in self.macs
        ]

    def summary(self) -> list[str]:
        """Say what will be binary."""
        total = sum(row["macs"] for row in self.macs)
        binary = sum(row["macs"] for row in self.macs if row["binary"])
        return [
            f"Binarization: {len(self.weights)} convolutions, {binary:,} of {total:,} multiply-accumulate operations "
            f"per sample ({100 * binary / max(total, 1):.1f} %)"
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stages."""
        return {
            **super().state_dict(),
            "activations": any(module.enabled for module in self.activations),
            "weights": any(module.enabled for module in self.weights),
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state of the stages."""
        super().load_state_dict(state)
        for module in self.activations:
            module.enabled = bool(state["activations"])
        for binarizer in self.weights:
            binarizer.enabled = bool(state["weights"])
        self.optimizers.load_state_dict(state["optimizers"])

    def _insert(
        self, network: nn.Module, places: list[WeightPlace], inputs: list[tuple[tuple[HookSite, ...], int]]
    ) -> None:
        self.places = places
        for place in places:
            binarizer = WeightBinarizer(self.config.mode)
            insert_at(network, place, binarizer, algorithm=self.name, priority=self.priority)
            self.weights.append(binarizer)
        taken: set[HookSite] = set()
        device = places[0].parameter_of(network).device
        for located, channels in inputs:
            free = tuple(site for site in located if site not in taken)
            if not free:
                continue
            taken.update(free)
            module = ActivationBinarizer(channels, multiplier=self.lr_multiplier).to(device)
            for site in free:
                insert(network, site, module, algorithm=self.name, priority=self.priority)
            self.activations.append(module)
            self._inputs.append(free)

    def _step(self) -> None:
        self.optimizers.update(self.scheduler.progress)


def _macs(graph: NetworkGraph, binary: set[str]) -> list[dict[str, Any]]:
    """Count multiply-accumulate operations per sample of each call of a convolution or linear layer."""
    rows = []
    for op in graph.ops():
        port = next((port for port in op.parameters if port == 1), None)
        if op.function not in CONVOLUTIONS | {"linear"} or port is None:
            continue
        weights = math.prod(op.inputs[port].shape)
        shape = op.outputs[0].shape
        places = shape[2:] if op.function in CONVOLUTIONS else shape[1:-1]
        name = op.parameters[port]
        rows.append(
            {
                "place": op.address,
                "weights": weights,
                "macs": weights * math.prod(places),
                "binary": op.function == "conv2d" and name in binary,
            }
        )
    return rows
