"""Finding the network inside a module, and naming it."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_nncf.errors import NetworkNotFoundError, near

__all__ = ["find_network"]


def find_network(module: nn.Module, path: str | None = None) -> tuple[str, nn.Module]:
    """Find the network to compress inside a LightningModule or any other module.

    Args:
        module: Where to look.
        path: Dotted path such as ``model.backbone``; ``""`` is the module itself. Without it the network is the only
            child that has parameters, torch's `AveragedModel` aside, else the module itself.

    Returns:
        The path and the network.

    Raises:
        NetworkNotFoundError: The path names nothing, something that is no module, or nothing has parameters.

    >>> module = nn.ModuleDict({"net": nn.Linear(1, 1), "loss": nn.MSELoss()})
    >>> find_network(module)
    ('net', Linear(in_features=1, out_features=1, bias=True))
    """
    if path is None:
        children = [
            name
            for name, child in module.named_children()
            if any(True for _ in child.parameters()) and not isinstance(child, AveragedModel)
        ]
        owned = any(True for _ in module.parameters(recurse=False))
        path = children[0] if len(children) == 1 and not owned else ""
    names = [name for name, _ in module.named_modules()]
    if path not in names:
        raise NetworkNotFoundError(
            f"`network={path!r}` is no module of {type(module).__name__}; {near(path, [n for n in names if n])} "
            f"(an empty string means the module itself)"
        )
    network = module.get_submodule(path)
    if not any(True for _ in network.parameters()):
        where = f"`{path}` of {type(module).__name__}" if path else type(module).__name__
        raise NetworkNotFoundError(
            f"{where} has no parameters, so there is nothing to compress. Create the network in `__init__`, "
            "`setup` or `configure_model`, or name it with `network=...`"
        )
    return path, network
