"""The base class of all compression algorithms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lightning_nncf.calibration import CalibrationData
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.schedules.scheduler import Scheduler

__all__ = ["Algorithm"]


class Algorithm(ABC):
    """One way to compress a network.

    The life of an algorithm: `build` on a captured graph (or `restore` from a checkpoint), `initialize` with data,
    then training with `loss` and `scheduler`. Everything that training changes is a parameter or a buffer of the
    modules it inserted, or in `state_dict`; everything that fixes their shape is in `structure`.

    Args:
        config: Settings of this algorithm.
        root: The whole configuration, for keys that all algorithms share.
    """

    name: ClassVar[str]
    """Value of ``algorithm`` in the configuration."""
    priority: ClassVar[int]
    """Order at one weight or activation, ascending: pruning 2, sparsity 3, quantization 11."""
    averages: ClassVar[bool] = True
    """Whether averaged weights want averages of the parameters that this algorithm inserts, not their latest values."""

    def __init__(self, config: Any, root: NNCFConfig) -> None:
        self.config = config
        self.root = root
        self.scheduler = Scheduler()
        self.resized = False
        """Whether parameters changed their sizes since this was last reset; some wrappers must be made anew then."""
        self.wants_data = False
        """Whether something began in this epoch that `begin` has to initialize from data."""
        self.copies: list[nn.Module] = []
        """Copies of the network that are to have the sizes that it has."""

    @property
    def resizes(self) -> bool:
        """Whether parameters are to change their sizes in training."""
        return False

    @property
    def lr_multiplier(self) -> float:
        """Factor on the gradients of the parameters that this algorithm inserts."""
        for multiplier in (self.config.compression_lr_multiplier, self.root.compression_lr_multiplier):
            if multiplier is not None:
                return float(multiplier)
        return 1.0

    @property
    def adaptation_samples(self) -> int | None:
        """Samples that batch norms adapt to; 0 leaves them as they are, ``None`` says nothing about them."""
        return None

    @abstractmethod
    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Insert the modules of this algorithm; deterministic and without data.

        Args:
            network: The network to change in place.
            graph: Its captured graph.
        """

    @abstractmethod
    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Insert the modules again from the `structure` of a checkpoint, without graph or data."""

    @abstractmethod
    def structure(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON-able values."""

    def initialize(self, network: nn.Module, data: CalibrationData) -> None:  # noqa: B027
        """Set parameters from data; called once, not when a checkpoint brings them."""

    def initialize_ranges(self, network: nn.Module, data: CalibrationData) -> None:  # noqa: B027
        """Set all ranges from data again, in whatever state training left the network."""

    def begin(self, network: nn.Module, data: CalibrationData) -> None:  # noqa: B027
        """Initialize what began in this epoch; called after the scheduler's epoch step if `wants_data`."""

    @property
    def batch_multiplier(self) -> int:
        """Number of batches whose gradients are to be accumulated before each optimizer step."""
        return 1

    def activate(self) -> None:  # noqa: B027
        """Let the inserted modules act; called once they are initialized or loaded."""

    def announce_steps(self, steps_per_epoch: int) -> None:
        """Take note of how many optimizer steps an epoch has, before the first one begins."""
        self.scheduler.announce_steps(steps_per_epoch)

    def before_optimizer_step(self) -> None:  # noqa: B027
        """Look at gradients, unscaled and not yet clipped; parameters this algorithm steps itself lose theirs.

        In a training loop of the user's own they may be clipped, or scaled for a fused optimizer.
        """

    def after_optimizer_step(self) -> None:  # noqa: B027
        """Look at the parameters that an optimizer has just stepped."""

    def attach(self, optimizers: Iterable[Optimizer]) -> None:  # noqa: B027
        """Get to know the optimizers of the network, for what follows their steps or changes their state."""

    def impose(self, network: nn.Module) -> None:  # noqa: B027
        """Bring about in a copy of the network, its weights averaged, what this algorithm keeps true of weights."""

    def prepare_for_export(self, network: nn.Module) -> None:  # noqa: B027
        """Change a copy of the network that is about to be exported, its modules still inserted."""

    def strip(self, network: nn.Module) -> None:  # noqa: B027
        """Let go of the network, whose inserted modules are taken out next, and their effect on weights written."""

    def loss(self) -> Tensor | None:
        """Return the term to add to the training loss, or nothing."""
        return None

    @property
    def stage(self) -> CompressionStage:
        """How far this algorithm has compressed the network."""
        return CompressionStage.FULLY_COMPRESSED

    def metrics(self) -> dict[str, Metric]:
        """Return new metrics that describe this algorithm's effect, by name."""
        return {}

    def observations(self) -> dict[str, Tensor]:
        """Return what `metrics` are updated with, by argument name."""
        return {}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row of plain values per compressed place, for tables and artifacts."""
        return []

    def summary(self) -> list[str]:
        """Return short lines for people: what was done and what was left out, and why."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return state that is not in parameters or buffers, as JSON-able values."""
        return {"scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set state from `state_dict`."""
        self.scheduler.load_state_dict(dict(state["scheduler"]))
