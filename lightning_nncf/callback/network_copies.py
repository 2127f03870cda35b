"""Copies of the network that a LightningModule holds beside it, such as a mean teacher."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn

__all__ = ["network_copies", "warn_of_order"]


def network_copies(module: nn.Module, network: nn.Module, but: Collection[str | None] = ()) -> dict[str, nn.Module]:
    """Return the parts of a module that are built as a network is and share nothing with it, by their path.

    A network that is a single layer has no copies: layers of one size are everywhere.

    Args:
        module: The LightningModule.
        network: The network inside it, not compressed yet.
        but: Paths of parts that are left out, as those that are compressed too.

    >>> student, teacher = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    >>> module = nn.ModuleDict({"student": student, "teacher": teacher, "head": nn.Sequential(nn.Linear(2, 1))})
    >>> list(network_copies(module, module["student"]))
    ['teacher']
    """
    if not any(True for _ in network.children()):
        return {}
    inside = {id(part) for part in network.modules()}
    shapes = _shapes(network)
    own = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    return {
        path: part
        for path, part in module.named_modules()
        if type(part) is type(network)
        and path not in but
        and id(part) not in inside
        and shapes == _shapes(part)
        and own.isdisjoint(id(tensor) for tensor in (*part.parameters(), *part.buffers()))
    }


def warn_of_order(network: nn.Module, path: str, copies: dict[str, nn.Module]) -> None:
    """Say that a copy and the compressed network no longer have the same order, by which averages often pair them.

    Args:
        network: The network, compressed.
        path: Its path in the module.
        copies: What `network_copies` found before.
    """
    moved = [name for name, part in copies.items() if not _leads(_names(part), _names(network))]
    if moved:
        rank_zero_warn(
            f"the module holds {', '.join(map(repr, moved[:3]))}, built as the network {path!r} is, which stays plain. "
            "Compression adds parameters and buffers among those of the network, so what pairs both by their order, "
            "as `zip(a.parameters(), b.parameters())`, `AveragedModel` or most code for mean teachers, pairs wrong "
            f"ones: pair them by name, `dict(self.{path}.named_parameters())[name]`, or average with Lightning's "
            "`EMAWeightAveraging`"
        )


def _shapes(network: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    tensors = (*network.named_parameters(), *network.named_buffers())
    return [
        (name, tuple(tensor.shape)) for name, tensor in tensors if not isinstance(tensor, nn.UninitializedParameter)
    ]


def _names(network: nn.Module) -> tuple[list[str], ...]:
    return [name for name, _ in network.named_parameters()], [name for name, _ in network.named_buffers()]


def _leads(first: Iterable[list[str]], second: Iterable[list[str]]) -> bool:
    """Whether each list begins a longer one."""
    return all(after[: len(before)] == before for before, after in zip(first, second, strict=True))
