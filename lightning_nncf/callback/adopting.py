"""A callback's hold on a module: the one network that it compresses there, by hand and in the module's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_nncf.callback.accuracy import AccuracyAware
from lightning_nncf.callback.averaging import renew_averages
from lightning_nncf.callback.launching import Returning
from lightning_nncf.callback.persistence import restore, save
from lightning_nncf.callback.wrappers import AfterCall, BeforeCall, unwrap, wrap
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.inputs import Arguments
from lightning_nncf.core.stripping import StrippedWeights
from lightning_nncf.errors import ConfigError
from lightning_nncf.proof import Proof

__all__ = ["Adopting"]


class Adopting(Returning):
    """A callback with a module of its own and a compressed network in it.

    This is what the callbacks of one Trainer know of each other, and what checkpoints and processes bring back.

    Args:
        config: The configuration.
        network: Path of the network in the module; found in the module where there is none.
        export_path: File to write after ``fit``; none writes nothing.
    """

    def __init__(self, config: NNCFConfig, network: str | None, export_path: Path | None) -> None:
        super().__init__()
        self.config = config
        self.network_path = network
        self.export_path = export_path
        self.compressed: CompressedNetwork | None = None
        self.proof: Proof | None = None
        self.samples: Arguments | None = None
        self.accuracy = (
            None if config.accuracy_aware_training is None else AccuracyAware(config.accuracy_aware_training)
        )
        self._module: Any = None
        self._loss_taken = False

    def compression_loss(self) -> Tensor:
        """Return the algorithms' loss, for modules that optimize manually; zero if there is none."""
        self._loss_taken = True
        return torch.zeros(()) if self.compressed is None else self.compressed.loss()

    def target(self, trainer: Any) -> Path:
        """Return where the ONNX file of a Trainer goes.

        Args:
            trainer: The Trainer.

        Raises:
            ConfigError: ``export_path`` is ``null``, so no file is written.
        """
        if self.export_path is None:
            raise ConfigError("`export_path` is null, so no ONNX file is written; give a path")
        return Path(trainer.default_root_dir) / self.export_path

    def strip(self, *, weights: StrippedWeights = "effective") -> None:
        """Take everything out of the module again: it becomes the plain module.

        Args:
            weights: ``effective`` leaves the weights that the compressed network computed with: masked, fake-quantized,
                binary. ``latent`` leaves those that were trained behind them. Quantizers of activations are gone in
                both.
        """
        if self.compressed is not None:
            self.compressed.strip(weights=weights)
        self._release()

    def _require_compressed(self) -> CompressedNetwork:
        if self.compressed is None:
            raise ConfigError("there is no compressed network yet; call `trainer.fit` first")
        return self.compressed

    def _peers(self, trainer: Any) -> list[Adopting]:
        """Return all callbacks of a Trainer that compress, this one among them if the Trainer has it."""
        return [callback for callback in trainer.callbacks if isinstance(callback, Adopting)]

    def _adopt(self, module: Any) -> None:
        """Be the callback of a module, and of no other."""
        if self._module is module:
            return
        self._release()
        self._module = module
        wrap(module, "on_load_checkpoint", BeforeCall, self._restore)
        wrap(module, "on_save_checkpoint", AfterCall, self._save)

    def _release(self) -> None:
        """Forget the module and restore its methods."""
        if self._module is not None:
            unwrap(self._module, "on_load_checkpoint", self._restore)
            unwrap(self._module, "on_save_checkpoint", self._save)
            unwrap(self._module, "training_step", self._take_loss)
        self._module = None
        self.compressed = None
        self.samples = None

    def _save(self, checkpoint: dict[str, Any]) -> None:
        """Add our section to a checkpoint that Lightning is about to write."""
        save(self, checkpoint)

    def _restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Bring the structure of a checkpoint about before Lightning loads its weights."""
        before = self.compressed
        restore(self, checkpoint, self._peers(self._module.trainer))
        if self.compressed is not before:
            renew_averages(self._module.trainer, self._module)

    def _take_loss(self, task: Tensor | None) -> Tensor | None:
        """Return what is added to the loss of the module's training step; modules that optimize manually add it."""
        if self.compressed is None:
            return None
        if task is not None:
            self.compressed.losses.add("task", task)
        return self.compressed.present_loss() if self._module.automatic_optimization else None
