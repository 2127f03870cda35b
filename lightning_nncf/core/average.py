"""The average that training's weights make over time, for a network that is compressed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import is_dataclass

import torch
from torch import nn

from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.idle import acts
from lightning_nncf.hooks.insertion import inserted

__all__ = ["AveragedNetwork"]

_PLAIN = (bool, int, float, str, type(None))


class AveragedNetwork:
    """A copy of a compressed network into which somebody averages the weights of training.

    Weights, statistics and ranges are averaged. What decides about masks is not, since an average of masks is no mask:
    the average has the masks that the network has now, and so the level that the schedule asks for. Nor is what has not
    begun: a range that is found in a later epoch starts its average there. Filters that are pruned are zero in the
    average too, and it loses them when the network does.

    Args:
        compressed: The network that is trained.
        network: The copy, of the same structure.
    """

    def __init__(self, compressed: CompressedNetwork, network: nn.Module) -> None:
        self.compressed = compressed
        self.network = network
        # What a checkpoint brought has begun, and its average came with it.
        self._begun = {name for name, _, current in self._pairs() if compressed.initialized and acts(current)}
        compressed.copies.append(network)

    def release(self) -> None:
        """Let the copy no longer follow the network in size."""
        self.compressed.copies[:] = [copy for copy in self.compressed.copies if copy is not self.network]

    def restart(self) -> None:
        """Begin the averages of all ranges anew with what they are now."""
        self._begun.clear()
        self.settle()

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Hide what is not averaged while somebody averages all that the networks show, then take that over."""
        with ExitStack() as stack:
            for name, own, current in self._pairs():
                averaged = () if self._copied(name) else tuple(current._parameters)
                for module in (own, current):
                    stack.enter_context(_showing(module, averaged))
            yield
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Take over what is not averaged, and bring the average into the form that the algorithms demand."""
        for name, own, current in self._pairs():
            taken = [(own._buffers, current._buffers)]
            if self._copied(name):
                taken.append((own._parameters, current._parameters))  # type: ignore[arg-type]
            _take_settings(own, current)
            for ours, theirs in taken:
                for key, value in theirs.items():
                    mine = ours[key]
                    if mine is not None and value is not None:
                        mine.copy_(value)
            if acts(current):
                self._begun.add(name)
        for algorithm in self.compressed.algorithms:
            algorithm.impose(self.network)

    def _copied(self, name: str) -> bool:
        """Whether the parameters of an inserted module are taken over instead of averaged."""
        averaged = {algorithm.name: algorithm.averages for algorithm in self.compressed.algorithms}
        return name not in self._begun or not averaged[name.rpartition(".")[2]]

    def _pairs(self) -> Iterator[tuple[str, nn.Module, nn.Module]]:
        """Yield the inserted modules of copy and network, each once, with a name that ends in the algorithm's."""
        seen: set[int] = set()
        for (site, algorithm, own), (_, _, current) in zip(
            inserted(self.network), inserted(self.compressed.network), strict=True
        ):
            if id(own) not in seen:
                seen.add(id(own))
                yield f"{site.key}.{algorithm}", own, current


def _take_settings(own: nn.Module, current: nn.Module) -> None:
    """Take over the plain values of an inserted module: whether it acts, the form of its numbers."""
    for name, value in vars(current).items():
        if name != "training" and (isinstance(value, _PLAIN) or is_dataclass(value)):
            own.__dict__[name] = value


@contextmanager
def _showing(module: nn.Module, parameters: tuple[str, ...]) -> Iterator[None]:
    """Let a module have some of its parameters and no buffers for a while."""
    earlier = module._parameters, module._buffers
    module._parameters = {name: earlier[0][name] for name in parameters}
    module._buffers = {}
    try:
        yield
    finally:
        module._parameters, module._buffers = earlier
