"""A picture of the bit widths of all quantizers along the data flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_nncf.files import replacing

__all__ = ["is_mixed", "plot_bits"]

_KINDS = ("weight", "activation")
_INCHES_PER_PLACE = 0.16


def is_mixed(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether quantizers of one kind have different bit widths.

    >>> is_mixed([{"kind": "weight", "bits": 8}, {"kind": "weight", "bits": 4}, {"kind": "mask"}])
    True
    >>> is_mixed([{"kind": "weight", "bits": 4}, {"kind": "activation", "bits": 8}])
    False
    """
    return any(len({row["bits"] for row in rows if "bits" in row and row["kind"] == kind}) > 1 for kind in _KINDS)


def plot_bits(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw one bar per quantizer, weights above activations, as a PNG file that is complete or absent.

    Args:
        rows: Rows of the table of layers; those without ``bits`` are left out.
        path: File to write.
    """
    groups = {kind: [row for row in rows if "bits" in row and row["kind"] == kind] for kind in _KINDS}
    groups = {kind: found for kind, found in groups.items() if found}
    widest = max(map(len, groups.values()))
    figure = Figure(figsize=(max(6.0, _INCHES_PER_PLACE * widest), 4.0 * len(groups)), layout="constrained")
    for axes, (kind, found) in zip(figure.subplots(len(groups), 1, squeeze=False).flat, groups.items(), strict=True):
        bits = [row["bits"] for row in found]
        axes.bar(range(len(found)), bits, color=[f"C{each % 10}" for each in bits])
        axes.set_xticks(range(len(found)), [row["place"] for row in found], rotation=90, fontsize=6)
        axes.set_xlim(-0.6, len(found) - 0.4)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("bits")
        axes.set_title(f"{kind}s: " + ", ".join(f"{bits.count(each)} of {each} bits" for each in sorted(set(bits))))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
