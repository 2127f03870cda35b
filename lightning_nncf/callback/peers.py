"""Several callbacks in one Trainer: each has a network of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_nncf.core.network import find_network
from lightning_nncf.errors import ConfigError

if TYPE_CHECKING:
    from lightning_nncf.callback.adopting import Adopting

__all__ = ["refuse_overlap", "refuse_same_file", "refuse_twice", "statistics_prefix"]


def refuse_twice(peers: Sequence[Adopting]) -> None:
    """Refuse one callback that a Trainer was given more than once, by whose hooks everything would happen as often.

    Raises:
        ConfigError: It is so.
    """
    for one, other in combinations(peers, 2):
        if one is other:
            raise ConfigError("the Trainer's `callbacks` hold the same NNCFCallback more than once; give it once")
        if one.network_path == other.network_path:
            raise _same(one.network_path)


def refuse_overlap(module: nn.Module, peers: Sequence[Adopting]) -> None:
    """Refuse networks that have a parameter in common, as one inside another does.

    Args:
        module: The LightningModule, its networks made.
        peers: All callbacks of the Trainer.

    Raises:
        ConfigError: It is so.
        NetworkNotFoundError: A network is not in the module.
    """
    if len(peers) < 2:
        return
    for one, other in combinations([find_network(module, peer.network_path) for peer in peers], 2):
        if one[0] == other[0]:
            raise _same(one[0])
        names = {id(parameter): name for name, parameter in one[1].named_parameters(remove_duplicate=False)}
        shared = [names[id(parameter)] for parameter in other[1].parameters() if id(parameter) in names]
        if shared:
            raise ConfigError(
                f"two NNCFCallbacks compress {one[0]!r} and {other[0]!r}, which share {len(shared)} parameters, as "
                f"{shared[0]!r} of the first; a parameter is compressed once: give networks that have nothing in "
                "common, or one callback for what holds both"
            )


def refuse_same_file(peers: Sequence[Adopting], trainer: Any) -> None:
    """Refuse callbacks that would write one file, or tables beside it, over another.

    Raises:
        ConfigError: It is so.
    """
    writing = [peer for peer in peers if peer.export_path is not None]
    for one, other in combinations(writing, 2):
        if one.target(trainer).with_suffix("") == other.target(trainer).with_suffix(""):
            raise ConfigError(
                f"two NNCFCallbacks would write {one.target(trainer)}; give each its own `export_path`, or `null` to "
                "write none"
            )


def statistics_prefix(callback: Adopting, peers: Sequence[Adopting]) -> str:
    """Return what the names of a callback's statistics begin with: its network tells those of several apart."""
    return "compression/" if len(peers) < 2 else f"compression/{callback.network_path}/"


def _same(path: str | None) -> ConfigError:
    named = "without `network`" if path is None else f"for `network={path!r}`"
    return ConfigError(
        f"the Trainer's `callbacks` hold two NNCFCallbacks {named}; give one callback a list of algorithms to apply "
        "several to one network, or each its own `network`"
    )
