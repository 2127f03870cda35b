"""Averages of weights beside compression: Lightning's callbacks, and each `AveragedModel` that the module holds.

Callbacks copy the module in their ``setup``, before it is compressed, and pair its parameters and buffers with the
module's by their order. So they get a new copy once the structure is there, as the averages of the module did, and an
`AveragedNetwork` looks after it: through every update, and before it is validated, saved or written back.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_nncf.callback.neighbours import neighbours
from lightning_nncf.callback.wrappers import BeforeCall, Inside, unwrap, wrap
from lightning_nncf.core.average import AveragedNetwork
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.errors import ConfigError

__all__ = ["Averages", "renew_averages"]

_READERS = {
    "WeightAveraging": ("on_validation_epoch_start", "on_train_end", "on_save_checkpoint"),
    "StochasticWeightAveraging": ("on_train_epoch_start", "on_train_end", "state_dict"),
}
"""The hooks in which each class reads its average."""


class Averages:
    """Looks after the averages of one fit."""

    def __init__(self) -> None:
        self._followed: list[tuple[nn.Module, AveragedNetwork]] = []
        self._wrapped: list[tuple[Any, str, Any]] = []

    def follow(self, trainer: Any, compressed: CompressedNetwork, network_path: str) -> None:
        """Look after all averages there are, from now on; those known already are left alone.

        Args:
            trainer: The Trainer, about to fit.
            compressed: The compressed network.
            network_path: Its path in the module.

        Raises:
            ConfigError: A callback averages something that is no copy of the module.
        """
        for held, copied in compressed.surroundings.copies():
            if all(held is not known for known, _ in self._followed):
                average = AveragedNetwork(compressed, copied)
                self._followed.append((held, average))
                self._wrap(held, "update_parameters", Inside, average.updating)
        for name, readers in _READERS.items():
            for callback in neighbours(trainer, name):
                holder = callback._average_model
                module = _averaged_module(holder)
                if module is None or any(module is known for known, _ in self._followed):
                    continue
                self._check(callback, trainer.lightning_module, module)
                average = AveragedNetwork(compressed, module.get_submodule(network_path))
                self._followed.append((module, average))
                updater = callback if module is holder else holder
                self._wrap(updater, "update_parameters", Inside, average.updating)
                for reader in readers:
                    self._wrap(callback, reader, BeforeCall, _Settle(average))

    def take_over(self, module: nn.Module) -> None:
        """Let all averages begin with what a module has been initialized to.

        Args:
            module: The LightningModule.
        """
        for copied, average in self._followed:
            if not isinstance(copied, AveragedModel):
                _copy(copied, module)
            elif not copied.n_averaged:  # else it has begun with other weights
                _copy(average.network, average.compressed.network)
            average.restart()

    def restart(self) -> None:
        """Begin the averages of ranges anew, which were found again."""
        for _, average in self._followed:
            average.restart()

    def end(self) -> None:
        """Leave all averages to themselves again."""
        for owner, name, action in self._wrapped:
            unwrap(owner, name, action)
        for _, average in self._followed:
            average.release()
        self._wrapped.clear()
        self._followed.clear()

    def _wrap(self, owner: Any, name: str, wrapper: Any, action: Any) -> None:
        wrap(owner, name, wrapper, action)
        self._wrapped.append((owner, name, action))

    def _check(self, callback: Any, module: nn.Module, copied: nn.Module) -> None:
        """Refuse a copy that does not have what the module has."""
        expected, found = (
            {name: tuple(value.shape) for name, value in itertools.chain(each.named_parameters(), each.named_buffers())}
            for each in (module, copied)
        )
        if expected != found:
            different = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
            raise ConfigError(
                f"{type(callback).__name__} averages another module than the one that is trained; they differ in "
                f"{', '.join(map(repr, different[:5]))}. Let it average a copy of the whole module, or remove it"
            )


class _Settle:
    """Settles an average before somebody reads it, whatever the hook is called with."""

    def __init__(self, average: AveragedNetwork) -> None:
        self.average = average

    def __call__(self, *_args: Any, **_kwargs: Any) -> None:
        self.average.settle()


def renew_averages(trainer: Any, module: nn.Module) -> None:
    """Give all callbacks that average the weights of a module a copy of it as it is now.

    Args:
        trainer: The Trainer.
        module: The LightningModule, its structure complete.
    """
    for name in _READERS:
        for callback in neighbours(trainer, name):
            holder = callback._average_model
            earlier = _averaged_module(holder)
            if earlier is None:
                continue
            # The strategy may have made the module one of a half type since, in which averages would stand still.
            like = next(parameter for parameter in earlier.parameters() if parameter.is_floating_point())
            renewed = copy.deepcopy(module).to(like.device, like.dtype)
            if earlier is holder:
                callback._average_model = renewed
            else:
                holder.module = renewed


@torch.no_grad()
def _copy(module: nn.Module, source: nn.Module) -> None:
    """Give a copy of a module the values that this has now."""
    theirs = itertools.chain(source.parameters(), source.buffers())
    for mine, value in zip(itertools.chain(module.parameters(), module.buffers()), theirs, strict=True):
        mine.copy_(value)


def _averaged_module(holder: Any) -> nn.Module | None:
    """Return the averaged copy of a LightningModule that a callback holds, bare or in torch's ``AveragedModel``."""
    inner = getattr(holder, "module", None)
    return inner if hasattr(inner, "training_step") else holder
