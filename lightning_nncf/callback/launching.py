"""Training in processes that the Trainer itself starts: ``ddp_spawn``, ``ddp_fork``, ``ddp_notebook``.

There every hook runs in those processes, and Lightning brings to the main one the weights alone: it loads them into a
module that was never compressed. It has no hook for this moment, so its launchers are taught to give our callbacks what
rank zero sent, before the weights are loaded.
"""

from __future__ import annotations

import functools
import io
import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning.callbacks import Callback
from torch.utils._pytree import tree_map

from lightning_nncf.callback.persistence import section_of, take_up
from lightning_nncf.callback.wrappers import AddEntries, wrap
from lightning_nncf.errors import NetworkNotFoundError

if TYPE_CHECKING:
    from lightning_nncf.callback.adopting import Adopting

__all__ = ["Returning", "receive", "results", "send_back"]

_PREFIX = "lightning_nncf."
_TAUGHT = "_lnncf_taught"


class Returning(Callback):
    """A callback that the main process gets back as rank zero had it after training."""

    def __init__(self) -> None:
        super().__init__()
        self.token = uuid.uuid4().hex
        """What the copies of one callback in several processes have in common."""
        _teach_launchers()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled callback, perhaps in a process that has made none."""
        self.__dict__.update(state)
        _teach_launchers()


def _teach_launchers() -> None:
    """Let the launchers of Lightning, by either of its names, give results to our callbacks."""
    for package in ("pytorch_lightning", "lightning.pytorch"):
        module = sys.modules.get(f"{package}.strategies.launchers.multiprocessing")
        launcher: Any = getattr(module, "_MultiProcessingLauncher", None)
        if launcher is not None and _TAUGHT not in vars(launcher):
            launcher._recover_results_in_main_process = _taught(launcher._recover_results_in_main_process)
            setattr(launcher, _TAUGHT, True)


def _taught(recover: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(recover)
    def recover_compressed(launcher: Any, worker_output: Any, trainer: Any) -> None:
        callbacks = {_key(callback, trainer): callback for callback in _returning(trainer)}
        for key in [key for key in worker_output.extra if key.startswith(_PREFIX)]:
            sent, callback = worker_output.extra.pop(key), callbacks.get(key)
            if callback is None:
                rank_zero_warn(
                    "an NNCFCallback that the module's `configure_callbacks` makes lives in the processes of the "
                    "Trainer alone, so the module of the main process stays plain; give it to the Trainer"
                )
            else:
                receive(callback, trainer.lightning_module, sent)
        recover(launcher, worker_output, trainer)

    return recover_compressed


def _returning(trainer: Any) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Returning)]


def _key(callback: Returning, trainer: Any) -> str:
    """Return the name of a callback's results, of copies of one callback in one Trainer too."""
    position = next(index for index, each in enumerate(_returning(trainer)) if each is callback)
    return f"{_PREFIX}{position}.{callback.token}"


def send_back(callback: Adopting, trainer: Any) -> None:
    """In a process that a launcher started: let it send what the main process needs when the run is over."""
    launcher = trainer.strategy.launcher
    if hasattr(launcher, "get_extra_results"):
        if not hasattr(launcher, _TAUGHT):
            rank_zero_warn(
                "the NNCFCallback was made before Lightning was imported, so the module of the main process stays "
                "plain after `fit`; import Lightning first"
            )
        wrap(launcher, "get_extra_results", AddEntries, functools.partial(results, callback))


def results(callback: Adopting, trainer: Any) -> dict[str, bytes]:
    """Return what the main process needs of a callback, as entry of the launcher's results."""
    if callback.compressed is None:
        return {}
    content = {
        "network": callback.network_path,
        "section": section_of(callback),
        "samples": tree_map(_on_cpu, callback.samples),
        "proof": callback.proof,
    }
    buffer = io.BytesIO()
    # Bytes, as Lightning sends its own: tensors would be shared memory of a process that ends.
    torch.save(content, buffer)
    return {_key(callback, trainer): buffer.getvalue()}


def receive(callback: Adopting, module: Any, sent: bytes) -> None:
    """In the main process: rebuild the network that rank zero trained; the launcher loads its weights next.

    Args:
        callback: The callback of the main process.
        module: The LightningModule there.
        sent: What `results` made.
    """
    content = torch.load(io.BytesIO(sent), map_location="cpu", weights_only=False)
    path = content["network"]
    callback._adopt(module)
    if path not in {name for name, _ in module.named_modules()}:
        module.configure_model()
    try:
        take_up(callback, path, content["section"])
    except NetworkNotFoundError:
        rank_zero_warn(
            f"the network {path!r} was made in the processes of the Trainer and is not in the module of the main "
            "process; make it in `__init__` or `configure_model`, or load a checkpoint with "
            "`lightning_nncf.load_from_checkpoint`"
        )
        return
    callback.samples, callback.proof = content["samples"], content["proof"]


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value
