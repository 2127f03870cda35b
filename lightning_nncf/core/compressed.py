"""A network together with the algorithms that compress it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_nncf.calibration import CalibrationData
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.initializing import initialize_all, initialize_ranges
from lightning_nncf.core.inputs import Arguments, describe, generate
from lightning_nncf.core.insertion import inserting, refuse_compressed, refuse_stripped
from lightning_nncf.core.joint import JointStatistics
from lightning_nncf.core.registry import create_algorithms
from lightning_nncf.core.sections import write_network
from lightning_nncf.core.seen import SeenInputs
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.core.stripping import StrippedWeights, check_weights, strip_network
from lightning_nncf.core.surroundings import Surroundings
from lightning_nncf.core.trained import TrainedNetwork
from lightning_nncf.errors import HookError
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.hooks.notices import put_up

__all__ = ["CompressedNetwork"]


class CompressedNetwork(TrainedNetwork):
    """All algorithms of one configuration at work on one network.

    The network is changed in place: it keeps its class, its parameters and their names. `compress` makes one from a
    plain network, `restore` one from what `structure` returned.

    Args:
        network: The network.
        config: The configuration.
        algorithms: Its algorithms, already inserted.
        inputs: Description of the network's inputs, see `lightning_nncf.core.inputs.describe`.
        graph: The captured graph; none after `restore`.
        own_first: Whether the network lists what was inserted behind all of its own, as networks in checkpoints of
            formats 1 and 2 did not: the state of an optimizer knows parameters by their position.
    """

    def __init__(
        self,
        network: nn.Module,
        config: NNCFConfig,
        algorithms: list[Algorithm],
        inputs: Any,
        graph: NetworkGraph | None = None,
        *,
        own_first: bool = True,
    ) -> None:
        super().__init__(network, algorithms)
        self.config = config
        self.inputs = inputs
        self.graph = graph
        self.initialized = False
        self.samples: Arguments | None = None
        """Some real inputs, of the shapes at capture; seen by `initialize`, never saved."""
        self.copies: list[nn.Module] = []
        """Copies of the network that are to have the sizes that it has, such as an average of its weights."""
        for algorithm in algorithms:
            algorithm.copies = self.copies
        put_up(network)
        self.own_first = own_first
        self.surroundings = Surroundings(network, ordered=own_first)
        self._statistics = JointStatistics(algorithms)

    @classmethod
    def build(cls, network: nn.Module, config: NNCFConfig, graph: NetworkGraph) -> CompressedNetwork:
        """Insert the algorithms of a configuration into a network whose graph was captured.

        Raises:
            HookError: The network is compressed already.
        """
        refuse_compressed(network, "call `strip()` first to compress it in another way")
        algorithms = create_algorithms(config)
        with inserting(network):
            for algorithm in algorithms:
                algorithm.build(network, graph)
        inputs = None if graph.example_inputs is None else describe(graph.example_inputs)
        return cls(network, config, algorithms, inputs, graph)

    @classmethod
    def restore(cls, network: nn.Module, config: NNCFConfig, structure: Mapping[str, Any]) -> CompressedNetwork:
        """Insert the algorithms again as `structure` says, without data; the state dict is loaded by the caller."""
        algorithms = create_algorithms(config)
        with inserting(network):
            for algorithm in algorithms:
                algorithm.restore(network, structure["algorithms"][algorithm.name])
        ordered = structure.get("own_first", False)
        compressed = cls(network, config, algorithms, structure["inputs"], own_first=ordered)
        if structure["initialized"]:
            compressed.activate()
        return compressed

    def place(self, module: nn.Module, path: str, averages: Mapping[str, str]) -> None:
        """Get to know the module that the network is in; see `Surroundings`."""
        self.surroundings = Surroundings(module, path, averages, ordered=self.own_first)

    def structure(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON-able values."""
        return {
            "algorithms": {algorithm.name: algorithm.structure() for algorithm in self.algorithms},
            "inputs": self.inputs,
            "initialized": self.initialized,
            "own_first": self.own_first,
            "averages": self.surroundings.averages,
        }

    def section(self) -> dict[str, Any]:
        """Return what `lightning_nncf.core.checkpoint.restore_network` needs beside the weights, as plain values."""
        return {
            "config": self.config.model_dump(mode="json", exclude_unset=True),
            "structure": self.structure(),
            "state": self.state_dict(),
        }

    def save(self, path: str | Path) -> None:
        """Write the network to a file, from which `lightning_nncf.load` restores it, without Lightning.

        The file holds weights and plain values alone, and appears only once it is complete.

        Args:
            path: The file; missing directories are created.

        Raises:
            HookError: The network was stripped.
        """
        refuse_stripped(self.network)
        write_network(Path(path), self.network, self.section())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the data, which belong to the network that is copied or pickled."""
        return {**self.__dict__, "calibration": None}

    def initialize(self, data: CalibrationData) -> None:
        """Set everything that needs data, then let the algorithms act.

        The network runs in evaluation mode; its mode and all random number generators are left as they were.
        """
        self.calibration = data
        with SeenInputs(self.network, self.inputs) as seen:
            initialize_all(self.network, self.algorithms, data)
        self.inputs, self.samples = seen.description, seen.samples
        self.activate()

    def initialize_ranges(self, data: CalibrationData | None = None) -> None:
        """Set the ranges of all quantizers again, in the state that training left the network in.

        The parameters stay the same objects. In several processes all must call.

        Args:
            data: The data; default: those that `initialize` had.

        Raises:
            InitializationError: There is no data.
        """
        initialize_ranges(self.network, self.algorithms, data or self.calibration)

    def activate(self) -> None:
        """Let the algorithms act on the network; called by `initialize` and after loading a state."""
        for algorithm in self.algorithms:
            algorithm.activate()
        self.initialized = True

    def example_inputs(self, seed: int = 0) -> Arguments:
        """Make inputs of the shapes seen when the network was captured, with values as calibration saw them."""
        if self.inputs is None:
            raise HookError("the network was never called while it was captured, so its inputs are unknown")
        args, kwargs = generate(self.inputs, torch.Generator().manual_seed(seed))
        return args, kwargs

    @property
    def stage(self) -> CompressionStage:
        """How far the network is compressed by all algorithms together."""
        if not self.initialized:
            return CompressionStage.UNCOMPRESSED
        return CompressionStage.combine(algorithm.stage for algorithm in self.algorithms)

    def exportable(self) -> nn.Module:
        """Return a copy of the network as it is exported: what is masked may be physically gone.

        Raises:
            HookError: The network was stripped.
        """
        refuse_stripped(self.network)
        copied = copy.deepcopy(self.network)
        for algorithm in self.algorithms:
            algorithm.prepare_for_export(copied)
        return copied

    def take_resized(self) -> bool:
        """Tell whether an algorithm changed the sizes of parameters since this was last asked."""
        resized = [algorithm for algorithm in self.algorithms if algorithm.resized]
        for algorithm in resized:
            algorithm.resized = False
        return bool(resized)

    def statistics(self) -> dict[str, float]:
        """Return all statistics as plain numbers by name."""
        losses = self.losses.means()
        # The loss of a task alone is what its module logs already.
        added = {f"loss_{name}": mean for name, mean in losses.items()} if len(losses) > 1 else {}
        return {**self._statistics.compute(), **added}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per compressed place of every algorithm."""
        return [{"algorithm": a.name, **row} for a in self.algorithms for row in a.rows()]

    def state_dict(self) -> dict[str, Any]:
        """Return the state that is not in the network's own state dict."""
        return {algorithm.name: algorithm.state_dict() for algorithm in self.algorithms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the state from `state_dict`."""
        for algorithm in self.algorithms:
            algorithm.load_state_dict(state[algorithm.name])

    def strip(self, *, weights: StrippedWeights = "effective") -> nn.Module:
        """Take everything out again and return the plain network.

        Args:
            weights: ``effective`` leaves the weights that the compressed network computed with: masked, fake-quantized,
                binary. ``latent`` leaves those that were trained behind them. What acts on activations is gone in both.

        Raises:
            ConfigError: There are no such weights.
        """
        check_weights(weights)
        self._hooks.remove()
        copies = [copied for _, copied in self.surroundings.copies()]
        strip_network(self.network, self.algorithms, weights, copies)
        self.surroundings.leave()
        return self.network
