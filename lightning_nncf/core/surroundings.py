"""The module that a compressed network is in, as far as compression reaches it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_nncf.core.copies import renew_averages
from lightning_nncf.hooks.insertion import inserted
from lightning_nncf.hooks.order import as_built, own_first

__all__ = ["Surroundings"]


class Surroundings:
    """Lists what was inserted behind all that a module has itself, and compresses the averages that it holds.

    Args:
        module: The module.
        path: Path of the compressed network in it; empty if it is the network.
        averages: The path of each average in it, and that of what is averaged, see `held_averages`.
        ordered: Whether what was inserted is to be listed last.

    Raises:
        CheckpointError: The module has no such averages.
    """

    def __init__(
        self, module: nn.Module, path: str = "", averages: Mapping[str, str] | None = None, *, ordered: bool = True
    ) -> None:
        self.averages = dict(averages or {})
        self._around = own_first(module, path) if ordered else []
        renew_averages(module, self.averages)
        self._held = [(_average(module, name), path[len(part) + 1 :]) for name, part in self.averages.items()]

    def copies(self) -> Iterator[tuple[AveragedModel, nn.Module]]:
        """Yield each average with the copy of the network in it."""
        for holder, path in self._held:
            yield holder, holder.module.get_submodule(path)

    def leave(self) -> None:
        """Let everything around the network, which is plain again, be as it was; another one in it may not be."""
        for around in (self._around, *(_along(holder.module, path) for holder, path in self._held)):
            for module in around:
                if not any(True for _ in inserted(module)):
                    as_built(module)


def _average(module: nn.Module, name: str) -> AveragedModel:
    found = module.get_submodule(name)
    assert isinstance(found, AveragedModel)  # as `renew_averages` made sure
    return found


def _along(module: nn.Module, path: str) -> list[nn.Module]:
    names = path.split(".") if path else []
    return [module.get_submodule(".".join(names[:end])) for end in range(len(names))]
