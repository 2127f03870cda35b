"""What the callback adds to Lightning's checkpoints, and how it takes it up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any

from lightning_nncf.callback.peers import refuse_overlap
from lightning_nncf.callback.wrappers import actions
from lightning_nncf.core.checkpoint import restore_network
from lightning_nncf.core.network import find_network
from lightning_nncf.core.sections import add_section, config_differences, read_sections, same_structure
from lightning_nncf.errors import CheckpointError

if TYPE_CHECKING:
    from lightning_nncf.callback.adopting import Adopting

__all__ = ["restore", "save", "section_of", "take_up"]


def section_of(callback: Adopting) -> dict[str, Any]:
    """Return the section of the callback's network, with what the callback itself counts."""
    assert callback.compressed is not None
    accuracy = {} if callback.accuracy is None else callback.accuracy.state_dict()
    return {**callback.compressed.section(), "step_is_due": callback.compressed.step_is_due, "accuracy": accuracy}


def save(callback: Adopting, checkpoint: dict[str, Any]) -> None:
    """Add the section of the callback's network to a checkpoint that Lightning is about to write."""
    if callback.compressed is not None:
        add_section(checkpoint, callback.network_path or "", section_of(callback), callback._module)


def restore(callback: Adopting, checkpoint: Mapping[str, Any], peers: Sequence[Adopting]) -> None:
    """Bring the structure of a checkpoint about before Lightning loads its weights.

    Args:
        callback: The callback, which knows its module.
        checkpoint: The checkpoint.
        peers: The callbacks of the Trainer that loads it; this one may be of an earlier Trainer of the module.

    Raises:
        CheckpointError: The checkpoint does not fit what the callback and the others do.
    """
    if callback.compressed is None and all(peer is not callback for peer in peers):
        return
    module = callback._module
    sections = read_sections(checkpoint)
    if not sections:
        _refuse_plain(callback)
        return
    refuse_overlap(module, peers)
    if callback.network_path is None and len(sections) == len(peers) == 1:
        callback.network_path = next(iter(sections))
    path, _ = find_network(module, callback.network_path)
    earlier: list[Any] = [
        action.__self__ for action in actions(module, "on_load_checkpoint") if isinstance(action, MethodType)
    ]
    handled = {find_network(module, each.network_path)[0] for each in (*peers, *earlier)}
    if unknown := sorted(set(sections) - handled):
        raise CheckpointError(
            f"the checkpoint holds the compressed network {unknown[0]!r} of {type(module).__name__}, but no "
            f"NNCFCallback in this Trainer is for it; add one with `network={unknown[0]!r}`"
        )
    if path not in sections:
        raise CheckpointError(
            f"the checkpoint holds no compressed network {path!r}, only {', '.join(map(repr, sections))}; leave the "
            f"NNCFCallback for {path!r} out, or begin with `lightning_nncf.load_weights` and no `ckpt_path`"
        )
    take_up(callback, path, sections[path])


def take_up(callback: Adopting, path: str, section: Mapping[str, Any]) -> None:
    """Give the callback's module the compressed network that a section describes; its weights are not loaded yet.

    Args:
        callback: The callback, which knows its module.
        path: Path of the network.
        section: Its section.

    Raises:
        CheckpointError: The section was written with another configuration.
    """
    if callback.compressed is not None and same_structure(callback.compressed.structure(), section["structure"]):
        callback.compressed.load_state_dict(section["state"])
    else:
        if differences := config_differences(section["config"], callback.config):
            raise CheckpointError("the checkpoint was saved with another configuration: " + "; ".join(differences))
        if callback.compressed is not None:
            callback.compressed.strip(weights="latent")
        callback.compressed = restore_network(callback._module, path, section, callback.config)
    callback.network_path = path
    if callback.accuracy is not None:
        callback.accuracy.load_state_dict(section.get("accuracy", {}))
    callback.compressed.step_is_due = bool(section.get("step_is_due", True))


def _refuse_plain(callback: Adopting) -> None:
    """Refuse a checkpoint without compression where the network is, or would become, compressed.

    Raises:
        CheckpointError: It is so; a Trainer that only evaluates the plain network goes on.
    """
    if callback.compressed is not None:
        raise CheckpointError(
            "the checkpoint was saved without compression, but the network is compressed already; load it "
            "before the first `fit` with this callback, or use a new module and callback"
        )
    if callback._module.trainer.state.fn == "fit":
        raise CheckpointError(
            "the checkpoint of `fit(ckpt_path=...)` was saved without compression, so there is no compressed training "
            "to go on with; load its weights first, `lightning_nncf.load_weights(module, path)`, and call `fit` "
            "without `ckpt_path`"
        )
