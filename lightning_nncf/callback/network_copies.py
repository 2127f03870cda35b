"""What is said about copies of the network that a LightningModule holds beside it."""

from __future__ import annotations

from collections.abc import Collection

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_nncf.core.compressed import CompressedNetwork

__all__ = ["warn_of_copies"]


def warn_of_copies(module: nn.Module, path: str, compressed: CompressedNetwork, copies: Collection[str]) -> None:
    """Say which copies of a compressed network, plain themselves, cannot be averages of it.

    Args:
        module: The LightningModule.
        path: Path of the network in it.
        compressed: The network.
        copies: Paths of copies that stay plain.
    """
    if copies and any(algorithm.resizes for algorithm in compressed.algorithms):
        rank_zero_warn(
            f"the module holds {_quoted(copies)}, built as the network {path!r} is, which keeps its size when filters "
            "are removed: what pairs the parameters of both then, as a mean teacher does, fails. Hold the average as "
            "`torch.optim.swa_utils.AveragedModel`, which is compressed with the network, average with Lightning's "
            "`EMAWeightAveraging`, or remove the filters at export only, without `shrink_at`"
        )
    inside = [
        f"{path}.{name}" if path else name
        for name, part in compressed.network.named_modules()
        if isinstance(part, AveragedModel)
    ]
    if inside:
        rank_zero_warn(
            f"the network that is compressed, {path!r} of {type(module).__name__}, holds the average {_quoted(inside)} "
            "of a part of it, which stays plain: an `AveragedModel` fails where compression adds buffers. Name the "
            "part that is averaged, `NNCFCallback(network=...)`: its average is compressed with it then"
        )


def _quoted(names: Collection[str], most: int = 3) -> str:
    return ", ".join(map(repr, list(names)[:most]))
