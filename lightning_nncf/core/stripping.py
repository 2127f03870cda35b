"""Taking compression out of a network, and saying what cannot stay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.errors import ConfigError
from lightning_nncf.hooks.effective import acting_on_activations, strip_effective
from lightning_nncf.hooks.insertion import strip

__all__ = ["StrippedWeights", "check_weights", "strip_network"]

StrippedWeights = Literal["effective", "latent"]
"""Which weights a stripped network has; see `CompressedNetwork.strip`."""


def check_weights(weights: str) -> None:
    """Refuse what is none of `StrippedWeights`.

    Raises:
        ConfigError: There are no such weights.
    """
    if weights not in ("effective", "latent"):
        raise ConfigError(f"`weights` must be 'effective' or 'latent', got {weights!r}")


def strip_network(
    network: nn.Module, algorithms: Iterable[Algorithm], weights: StrippedWeights, copies: Iterable[nn.Module] = ()
) -> None:
    """Take everything that algorithms inserted out of a network; tell what is lost, and what could not be written.

    Args:
        network: The network.
        algorithms: Those at work on it.
        weights: The weights to leave.
        copies: Copies of the network, averages of its weights, that are stripped with it.
    """
    known = list(algorithms)
    for copied in copies:
        for algorithm in known:
            algorithm.impose(copied)
        if weights == "latent":
            strip(copied)
        else:
            strip_effective(copied)
    for algorithm in known:
        algorithm.strip(network)
    if weights == "latent":
        strip(network)
        return
    lost = acting_on_activations(network)
    for name, reason in strip_effective(network).items():
        rank_zero_warn(f"`strip()` could not write the compressed values of {name!r}: {reason}")
    if counts := [f"{lost[each.name]} of `{each.name}`" for each in known if lost[each.name]]:
        rank_zero_info(
            "The stripped network has the weights of the compressed one, but its activations are in float again: "
            f"modules that acted on them cannot stay ({', '.join(counts)})"
        )
