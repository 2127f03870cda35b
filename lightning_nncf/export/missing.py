"""Quantizers that act when the network runs, but that the exporter's trace did not meet."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

from torch import nn

from lightning_nncf.export.lowering import label
from lightning_nncf.export.marker import Marked, calls_of
from lightning_nncf.hooks.insertion import inserted

__all__ = ["missing_quantizers"]

_NAMED = 10


def missing_quantizers(
    network: nn.Module, quantizers: Mapping[str, Marked], labels: Collection[str]
) -> tuple[str, ...]:
    """Return the quantizers that are not in a file, and warn about them by name.

    Args:
        network: The copy that was exported, after it ran once.
        quantizers: Its marked quantizers by address.
        labels: Labels of the quantizers that are in the file.

    Returns:
        Labels of single calls; of a weight's quantizer the address, as not every reading of a weight is used.
    """
    weights = {id(module) for site, _, module in inserted(network) if site.kind == "weight"}
    missing: list[str] = []
    for address, quantizer in quantizers.items():
        calls = [label(address, call) for call in range(calls_of(quantizer))] or [address]
        absent = [name for name in calls if name not in labels]
        if id(quantizer) not in weights:
            missing += absent
        elif len(absent) == len(calls):
            missing.append(address)
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        warnings.warn(
            f"{len(missing)} quantizers of the network are not in the exported file, which computes these places in "
            f"floating point: {', '.join(missing[:_NAMED])}{more}. The example input does not reach them, or the "
            "exporter takes another path than the network; name the places in `ignored_scopes` to train without them",
            stacklevel=3,
        )
    return tuple(missing)
