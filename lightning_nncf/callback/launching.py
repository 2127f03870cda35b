"""Training in processes that the Trainer itself starts: ``ddp_spawn``, ``ddp_fork``, ``ddp_notebook``.

There every hook runs in those processes, and Lightning brings to the main one the weights alone: it loads them into a
module that was never compressed. It has no hook for this moment, so its launchers are taught to give our callbacks what
rank zero sent, before the weights are loaded.
"""

from __future__ import annotations

import functools
import io
import sys
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch.utils._pytree import tree_map

from lightning_nncf.callback.persistence import section_of, take_up
from lightning_nncf.callback.wrappers import AddEntries, wrap
from lightning_nncf.errors import NetworkNotFoundError

if TYPE_CHECKING:
    from lightning_nncf.callback.callback import NNCFCallback

__all__ = ["receive", "results", "send_back", "teach_launchers"]

_PREFIX = "lightning_nncf."
_TAUGHT = "_lnncf_taught"


def teach_launchers() -> None:
    """Let the launchers of Lightning, by either of its names, give results to our callbacks."""
    for package in ("pytorch_lightning", "lightning.pytorch"):
        module = sys.modules.get(f"{package}.strategies.launchers.multiprocessing")
        launcher: Any = getattr(module, "_MultiProcessingLauncher", None)
        if launcher is not None and _TAUGHT not in vars(launcher):
            launcher._recover_results_in_main_process = _taught(launcher._recover_results_in_main_process)
            setattr(launcher, _TAUGHT, True)


def _taught(recover: Any) -> Any:
    @functools.wraps(recover)
    def recover_compressed(self: Any, worker_output: Any, trainer: Any) -> None:
        for index, callback in enumerate(trainer.callbacks):
            sent = worker_output.extra.pop(f"{_PREFIX}{index}", None)
            if sent is not None:
                callback.receive(trainer.lightning_module, sent)
        recover(self, worker_output, trainer)

    return recover_compressed


def send_back(callback: NNCFCallback, trainer: Any) -> None:
    """In a process that a launcher started: let it send what the main process needs when the run is over."""
    launcher = trainer.strategy.launcher
    if hasattr(launcher, "get_extra_results"):
        wrap(launcher, "get_extra_results", AddEntries, callback.results)


def results(callback: NNCFCallback, trainer: Any) -> dict[str, bytes]:
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
    index = next(index for index, each in enumerate(trainer.callbacks) if each is callback)
    return {f"{_PREFIX}{index}": buffer.getvalue()}


def receive(callback: NNCFCallback, sent: bytes) -> None:
    """In the main process: rebuild the network that rank zero trained; the launcher loads its weights next.

    Args:
        callback: The callback, which knows the module of the main process.
        sent: What `results` made.
    """
    content = torch.load(io.BytesIO(sent), map_location="cpu", weights_only=False)
    module, path = callback._module, content["network"]
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
