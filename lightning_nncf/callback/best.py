"""Which checkpoint is best: what is less compressed never wins, however well it does."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_nncf.callback.adopting import Adopting
from lightning_nncf.callback.neighbours import neighbours
from lightning_nncf.callback.packages import join_packages
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.sections import read_sections
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.hooks.insertion import strip

__all__ = ["CompressionCheckpoint", "best_network", "warn_of_monitors"]


class CompressionCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint`` whose order is first how far the network is compressed, then the metric.

    Early in training, while a schedule still rises, a network is less compressed and often does better. Once a further
    stage is reached, checkpoints of earlier ones are forgotten, and their files removed unless ``save_top_k`` is -1.
    Without an NNCFCallback it is a ``ModelCheckpoint``.

    Args:
        *args: Those of ``ModelCheckpoint``.
        **kwargs: Those of ``ModelCheckpoint``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        join_packages(CompressionCheckpoint, "ModelCheckpoint")
        super().__init__(*args, **kwargs)
        self.stage = CompressionStage.UNCOMPRESSED
        """The furthest stage of a checkpoint so far."""
        self._outdated: list[str] = []

    def check_monitor_top_k(self, trainer: Any, current: Tensor | None = None) -> bool:
        """Tell whether a checkpoint is to be kept now: of an earlier stage none is, of a further one the first."""
        stage = stage_of(trainer)
        if stage < self.stage:
            return False
        if stage > self.stage:
            self.stage = stage
            self._outdated = list(self.best_k_models)
            self.best_k_models = {}
            self.best_model_path, self.kth_best_model_path = "", ""
            self.best_model_score = None
        return bool(super().check_monitor_top_k(trainer, current))

    def _update_best_and_save(self, current: Tensor, trainer: Any, monitor_candidates: dict[str, Tensor]) -> None:
        super()._update_best_and_save(current, trainer, monitor_candidates)
        outdated, self._outdated = self._outdated, []
        for path in outdated if self.save_top_k > 0 else ():
            if path not in self.best_k_models:
                self._remove_checkpoint(trainer, path)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the stage."""
        return {**super().state_dict(), "stage": int(self.stage)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the state from `state_dict`."""
        super().load_state_dict(state_dict)
        self.stage = CompressionStage(state_dict.get("stage", CompressionStage.UNCOMPRESSED))


def stage_of(trainer: Any) -> CompressionStage:
    """Return how far all compressed networks of a Trainer are compressed at least."""
    found = [each.compressed.stage for each in _compressing(trainer) if each.compressed is not None]
    return min(found, default=CompressionStage.UNCOMPRESSED)


def best_network(callback: Adopting, trainer: Any) -> tuple[CompressedNetwork | None, str]:
    """Return the network of the best checkpoint, beside the one that was trained on.

    Args:
        callback: The callback whose network it is.
        trainer: The Trainer, its fit over.

    Returns:
        The network, or nothing where the last one is to be taken; and what was taken, for people.
    """
    assert callback.compressed is not None
    monitored = [each for each in neighbours(trainer, "ModelCheckpoint") if each.monitor is not None]
    if not monitored:
        return None, "the last state: no checkpoint callback monitors a metric"
    path = monitored[0].best_model_path
    if not path or not Path(path).is_file():
        return None, f"the last state: {type(monitored[0]).__name__} kept no file to read"
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    section = read_sections(checkpoint).get(callback.network_path or "")
    if section is None:
        return None, f"the last state: {path} holds no compressed network"
    network = copy.deepcopy(callback.compressed.network).cpu()
    strip(network)
    compressed = CompressedNetwork.restore(network, callback.config, section["structure"])
    compressed.load_state_dict(section["state"])
    prefix = f"{callback.network_path}." if callback.network_path else ""
    weights = checkpoint["state_dict"]
    network.load_state_dict({name[len(prefix) :]: weights[name] for name in weights if name.startswith(prefix)})
    if compressed.stage < callback.compressed.stage:
        return None, (
            f"the last state: the best checkpoint, {path}, is {compressed.stage.name} and the last state "
            f"{callback.compressed.stage.name}; `CompressionCheckpoint` keeps the best of the most compressed"
        )
    return compressed, f"the best checkpoint: {path}, {monitored[0].monitor} {float(monitored[0].best_model_score):.4g}"


def warn_of_monitors(trainer: Any) -> None:
    """Say once what is wrong with choosing by a metric alone while the network is not fully compressed yet."""
    if stage_of(trainer) is CompressionStage.FULLY_COMPRESSED or not _compressing(trainer):
        return
    for name, remedy in (
        ("ModelCheckpoint", "use `lightning_nncf.CompressionCheckpoint`, which takes the same arguments"),
        ("EarlyStopping", "give it a `patience` that lasts beyond the epoch in which the target is reached"),
    ):
        for callback in neighbours(trainer, name):
            if callback.monitor is not None and not isinstance(callback, CompressionCheckpoint):
                rank_zero_warn(
                    f"{type(callback).__name__} monitors {callback.monitor!r} while compression has not reached its "
                    f"target yet: less compressed epochs tend to be better, so that it may choose one of them; {remedy}"
                )


def _compressing(trainer: Any) -> list[Adopting]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Adopting)]
