"""A network together with the algorithms that compress it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MetricCollection

from lightning_nncf.calibration import CalibrationData, StatisticsWatch, frozen_norms, tracking_norms
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.inputs import Arguments, describe, generate
from lightning_nncf.core.optimizer_hooks import OptimizerHooks
from lightning_nncf.core.registry import create_algorithms
from lightning_nncf.core.sections import add_section
from lightning_nncf.core.seen import SeenInputs
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.errors import ConfigError, HookError, InitializationError
from lightning_nncf.files import replacing
from lightning_nncf.graph.effective import acting_on_activations, strip_effective
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.graph.hooks import inserted, strip
from lightning_nncf.graph.notices import put_up
from lightning_nncf.graph.preserve import preserved

__all__ = ["CompressedNetwork"]


class CompressedNetwork:
    """All algorithms of one configuration at work on one network.

    The network is changed in place: it keeps its class, its parameters and their names. `compress` makes one from a
    plain network, `restore` one from what `structure` returned.

    Args:
        network: The network.
        config: The configuration.
        algorithms: Its algorithms, already inserted.
        inputs: Description of the network's inputs, see `lightning_nncf.core.inputs.describe`.
        graph: The captured graph; none after `restore`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: NNCFConfig,
        algorithms: list[Algorithm],
        inputs: Any,
        graph: NetworkGraph | None = None,
    ) -> None:
        self.network = network
        self.config = config
        self.algorithms = algorithms
        self.inputs = inputs
        self.graph = graph
        self.initialized = False
        self.step_is_due = True
        """Whether the next batch begins an optimizer step: it is the first, or an optimizer of the network stepped."""
        self._hooks = OptimizerHooks(network, self._before_step, self._after_step)
        self.samples: Arguments | None = None
        """Some real inputs, of the shapes at capture; seen by `initialize`, never saved."""
        self.calibration: CalibrationData | None = None
        """Data for what has to be initialized later in training; kept by `initialize`, needed again after `restore`."""
        self.copies: list[nn.Module] = []
        """Copies of the network that are to have the sizes that it has, such as an average of its weights."""
        for algorithm in algorithms:
            algorithm.copies = self.copies
        put_up(network)
        metrics = {name: metric for algorithm in algorithms for name, metric in algorithm.metrics().items()}
        self._metrics = MetricCollection(metrics) if metrics else None  # type: ignore[arg-type]

    @classmethod
    def build(cls, network: nn.Module, config: NNCFConfig, graph: NetworkGraph) -> CompressedNetwork:
        """Insert the algorithms of a configuration into a network whose graph was captured.

        Raises:
            HookError: The network is compressed already.
        """
        if any(True for _ in inserted(network)):
            raise HookError(
                f"{type(network).__name__} is compressed already; call `strip()` first to compress it in another way"
            )
        algorithms = create_algorithms(config)
        try:
            for algorithm in algorithms:
                algorithm.build(network, graph)
        except BaseException:
            strip(network)
            raise
        inputs = None if graph.example_inputs is None else describe(graph.example_inputs)
        return cls(network, config, algorithms, inputs, graph)

    @classmethod
    def restore(cls, network: nn.Module, config: NNCFConfig, structure: Mapping[str, Any]) -> CompressedNetwork:
        """Insert the algorithms again as `structure` says, without data; the state dict is loaded by the caller."""
        algorithms = create_algorithms(config)
        try:
            for algorithm in algorithms:
                algorithm.restore(network, structure["algorithms"][algorithm.name])
        except BaseException:
            strip(network)
            raise
        compressed = cls(network, config, algorithms, structure["inputs"])
        if structure["initialized"]:
            compressed.activate()
        return compressed

    def structure(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON-able values."""
        return {
            "algorithms": {algorithm.name: algorithm.structure() for algorithm in self.algorithms},
            "inputs": self.inputs,
            "initialized": self.initialized,
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
        """
        content: dict[str, Any] = {"state_dict": self.network.state_dict()}
        add_section(content, "", self.section(), self.network)
        with replacing(Path(path)) as temporary:
            torch.save(content, temporary)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the data, which belong to the network that is copied or pickled."""
        return {**self.__dict__, "calibration": None}

    def initialize(self, data: CalibrationData) -> None:
        """Set everything that needs data, then let the algorithms act.

        The network runs in evaluation mode; its mode and all random number generators are left as they were.
        """
        self.calibration = data
        with self._calibrating(data) as prepared, SeenInputs(self.network, self.inputs) as seen:
            frozen = prepared.frozen or frozenset()
            norms = {name: norm for name, norm in tracking_norms(self.network).items() if norm not in frozen}
            watch = StatisticsWatch(norms, renew=self._adapts_norms(), reduce=data.reduce)
            for algorithm in self.algorithms:
                algorithm.initialize(self.network, replace(prepared, watch=watch))
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
        chosen = data or self._require_calibration()
        with self._calibrating(chosen) as prepared:
            for algorithm in self.algorithms:
                algorithm.initialize_ranges(self.network, prepared)

    @property
    def batch_multiplier(self) -> int:
        """Number of batches whose gradients are to be accumulated before each optimizer step.

        Raises:
            ConfigError: The algorithms disagree.
        """
        wanted = {algorithm.batch_multiplier for algorithm in self.algorithms} - {1}
        if len(wanted) > 1:
            raise ConfigError(f"`params.batch_multiplier` must be the same in all algorithms, got {sorted(wanted)}")
        return wanted.pop() if wanted else 1

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

    def loss(self) -> Tensor:
        """Return the sum of the algorithms' losses, shape []; zero where none has one now."""
        total = self.present_loss()
        if total is not None:
            return total
        first = next(self.network.parameters(), torch.empty(0))
        dtype = first.dtype if first.is_floating_point() else None
        return torch.zeros((), device=first.device, dtype=dtype)

    def present_loss(self) -> Tensor | None:
        """Return `loss`, or nothing if no algorithm has one now."""
        losses = [loss for loss in (algorithm.loss() for algorithm in self.algorithms) if loss is not None]
        return torch.stack([loss.reshape(()) for loss in losses]).sum() if losses else None

    @property
    def stage(self) -> CompressionStage:
        """How far the network is compressed by all algorithms together."""
        if not self.initialized:
            return CompressionStage.UNCOMPRESSED
        return CompressionStage.combine(algorithm.stage for algorithm in self.algorithms)

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Make the optimizers of the network known to the algorithms, which see every step of theirs from now on.

        Hooks on the optimizers let algorithms look at gradients before each step, and restore masked weights after it.
        They stay until `strip` or until other optimizers are attached; one attached twice has them once. Copies and
        pickles of an optimizer lose them, so attach the copy.

        Args:
            optimizers: All optimizers of the training; call this once, before it begins.
        """
        known = list(optimizers)
        self._hooks.attach(known)
        for algorithm in self.algorithms:
            algorithm.attach(known)

    def exportable(self) -> nn.Module:
        """Return a copy of the network as it is exported: what is masked may be physically gone."""
        copied = copy.deepcopy(self.network)
        for algorithm in self.algorithms:
            algorithm.prepare_for_export(copied)
        return copied

    def take_resized(self) -> bool:
        """Tell whether an algorithm changed the sizes of parameters since this was last asked."""
        resized = any(algorithm.resized for algorithm in self.algorithms)
        for algorithm in self.algorithms:
            algorithm.resized = False
        return resized

    def epoch_step(self) -> None:
        """Tell every scheduler that an epoch begins, and initialize what begins with it.

        Raises:
            InitializationError: Something that begins needs data, and there is none.
        """
        for algorithm in self.algorithms:
            algorithm.scheduler.epoch_step()
        waiting = [algorithm for algorithm in self.algorithms if algorithm.wants_data]
        if waiting:
            data = self._require_calibration()
            with self._calibrating(data) as prepared:
                for algorithm in waiting:
                    algorithm.begin(self.network, prepared)
                    algorithm.wants_data = False

    def rest(self) -> None:
        """Let what is inserted act as in evaluation, without the noise of training, until the mode is set again."""
        for _, _, module in inserted(self.network):
            module.eval()

    def step(self) -> None:
        """Tell every scheduler that an optimizer step begins."""
        self.step_is_due = False
        for algorithm in self.algorithms:
            algorithm.scheduler.step()

    def announce_steps(self, steps_per_epoch: int) -> None:
        """Tell every algorithm how many optimizer steps an epoch has."""
        for algorithm in self.algorithms:
            algorithm.announce_steps(steps_per_epoch)

    def before_optimizer_step(self, optimizer: Optimizer | None = None) -> None:
        """Let algorithms look at the gradients, and step parameters that they train themselves.

        Attached optimizers do it at the beginning of their step. Call it earlier where gradients are clipped, before
        that: what algorithms train themselves then counts for nothing in the norm.

        Args:
            optimizer: The one that is about to step; nothing happens if it does not train the network. Default: all
                attached ones are.
        """
        if optimizer is None:
            self._hooks.before_steps()
        elif self._hooks.before_step(optimizer):
            self.step_is_due = True

    def _before_step(self) -> None:
        self.step_is_due = True
        for algorithm in self.algorithms:
            algorithm.before_optimizer_step()

    def _after_step(self) -> None:
        for algorithm in self.algorithms:
            algorithm.after_optimizer_step()

    def statistics(self) -> dict[str, float]:
        """Return all statistics as plain numbers by name."""
        if self._metrics is None:
            return {}
        self._metrics.reset()
        observations: dict[str, Tensor] = {}
        for algorithm in self.algorithms:
            observations.update(algorithm.observations())
        self._metrics.update(**observations)
        return {name: float(value) for name, value in self._metrics.compute().items()}

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

    def strip(self, *, weights: Literal["effective", "latent"] = "effective") -> nn.Module:
        """Take everything out again and return the plain network.

        Args:
            weights: ``effective`` leaves the weights that the compressed network computed with: masked, fake-quantized,
                binary. ``latent`` leaves those that were trained behind them. What acts on activations is gone in both.

        Raises:
            ConfigError: There are no such weights.
        """
        if weights not in ("effective", "latent"):
            raise ConfigError(f"`weights` must be 'effective' or 'latent', got {weights!r}")
        self._hooks.remove()
        for algorithm in self.algorithms:
            algorithm.strip(self.network)
        if weights == "latent":
            strip(self.network)
            return self.network
        lost = acting_on_activations(self.network)
        for name, reason in strip_effective(self.network).items():
            rank_zero_warn(f"`strip()` could not write the compressed values of {name!r}: {reason}")
        if counts := [f"{lost[a.name]} of `{a.name}`" for a in self.algorithms if lost[a.name]]:
            rank_zero_info(
                "The stripped network has the weights of the compressed one, but its activations are in float again: "
                f"modules that acted on them cannot stay ({', '.join(counts)})"
            )
        return self.network

    def _require_calibration(self) -> CalibrationData:
        """Return the data for initializations during training."""
        if self.calibration is None:
            raise InitializationError(
                "ranges are to be initialized now, but there is no data for it; set `calibration` of the compressed "
                "network after restoring or copying it, or give batches"
            )
        return self.calibration

    def _adapts_norms(self) -> bool:
        """Whether statistics of norms may change: not if all algorithms that could change them are told not to."""
        wanted = [algorithm.adaptation_samples for algorithm in self.algorithms]
        given = [samples for samples in wanted if samples is not None]
        return any(given) or not given

    @contextmanager
    def _calibrating(self, data: CalibrationData) -> Iterator[CalibrationData]:
        """Let the network run in evaluation mode, and leave everything else as it was."""
        with isolate_rng(), data.surroundings(), preserved(self.network, batch_norm=False), torch.no_grad():
            frozen = frozen_norms(self.network, data.owner)
            self.network.eval()
            yield replace(data, frozen=frozen)
