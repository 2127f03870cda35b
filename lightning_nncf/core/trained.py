"""What a training loop tells the algorithms at work on a network, and asks of them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_nncf.calibration import CalibrationData
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.initializing import begin_waiting
from lightning_nncf.core.joint import joint_batch_multiplier, joint_loss, no_loss
from lightning_nncf.core.losses import LossRecord
from lightning_nncf.core.optimizer_hooks import OptimizerHooks
from lightning_nncf.hooks.insertion import inserted

__all__ = ["TrainedNetwork"]


class TrainedNetwork:
    """A network whose algorithms follow its training: epochs, optimizer steps and losses.

    Args:
        network: The network.
        algorithms: The algorithms, already inserted.
    """

    def __init__(self, network: nn.Module, algorithms: list[Algorithm]) -> None:
        self.network = network
        self.algorithms = algorithms
        self.step_is_due = True
        """Whether the next batch begins an optimizer step: it is the first, or an optimizer of the network stepped."""
        self.calibration: CalibrationData | None = None
        """Data for what has to be initialized later in training; kept by `initialize`, needed again after `restore`."""
        self.losses = LossRecord()
        """What was added to the loss since the epoch began, by algorithm; whoever trains adds that of the ``task``."""
        self._hooks = OptimizerHooks(network, self._before_step, self._after_step)

    @property
    def batch_multiplier(self) -> int:
        """Number of batches whose gradients are to be accumulated before each optimizer step.

        Raises:
            ConfigError: The algorithms disagree.
        """
        return joint_batch_multiplier(self.algorithms)

    def loss(self) -> Tensor:
        """Return the sum of the algorithms' losses, shape []; zero where none has one now."""
        total = self.present_loss()
        return no_loss(self.network) if total is None else total

    def present_loss(self) -> Tensor | None:
        """Return `loss`, or nothing if no algorithm has one now."""
        losses = {a.name: loss for a in self.algorithms if (loss := a.loss()) is not None}
        for name, loss in losses.items():
            self.losses.add(name, loss)
        return joint_loss(losses)

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Make the optimizers of the network known to the algorithms, which see every step of theirs from now on.

        Hooks on the optimizers let algorithms look at gradients before each step, and restore masked weights after it.
        They stay until `strip` or until other optimizers are attached; one attached twice has them once. Copies and
        pickles of an optimizer lose them, so attach the copy.

        Args:
            optimizers: All optimizers of the training; call this once, before it begins.
        """
        self._hooks.attach(known := list(optimizers))
        for algorithm in self.algorithms:
            algorithm.attach(known)

    def epoch_step(self) -> None:
        """Tell every scheduler that an epoch begins, and initialize what begins with it.

        Raises:
            InitializationError: Something that begins needs data, and there is none.
        """
        self.losses.clear()
        for algorithm in self.algorithms:
            algorithm.scheduler.epoch_step()
        if waiting := [algorithm for algorithm in self.algorithms if algorithm.wants_data]:
            begin_waiting(self.network, waiting, self.calibration)

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
