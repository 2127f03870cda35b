"""Other callbacks of the Trainer that change the module, found by their class in either of Lightning's packages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning_nncf.errors import ConfigError

__all__ = ["neighbours", "refuse_neighbours", "renews_statistics"]

_PACKAGES = ("pytorch_lightning.", "lightning.pytorch.")


def neighbours(trainer: Any, name: str) -> Iterator[Any]:
    """Yield the Trainer's callbacks of one of Lightning's own classes or of a subclass.

    Args:
        trainer: The Trainer.
        name: Name of the class, in whichever package: the other one is not imported to ask.
    """
    for callback in trainer.callbacks:
        if any(cls.__name__ == name and cls.__module__.startswith(_PACKAGES) for cls in type(callback).__mro__):
            yield callback


def refuse_neighbours(trainer: Any) -> None:
    """Refuse callbacks that cannot work on a network beside compression.

    Raises:
        ConfigError: There is one; the message names it and what to do.
    """
    for callback in neighbours(trainer, "ModelPruning"):
        name = type(callback).__name__
        raise ConfigError(
            f"the Trainer has {name} beside NNCFCallback: {name} replaces the weights of modules by "
            "`torch.nn.utils.prune` while they are trained, so the compressed network would lose them. Remove it and "
            "let the configuration prune: `magnitude_sparsity` for single weights, `filter_pruning` for channels. "
            "Weights that it pruned earlier stay zero with `const_sparsity`"
        )


def renews_statistics(trainer: Any) -> bool:
    """Whether this epoch is the one that StochasticWeightAveraging adds, in which only batch norms get statistics."""
    return any(
        swa._model_contains_batch_norm and swa._max_epochs != -1 and trainer.current_epoch == swa.swa_end + 1
        for swa in neighbours(trainer, "StochasticWeightAveraging")
    )
