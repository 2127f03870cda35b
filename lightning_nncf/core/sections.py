"""Our section of a checkpoint: what rebuilds the compressed networks of a module beside its state dict."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_nncf.config import NNCFConfig
from lightning_nncf.errors import CheckpointError
from lightning_nncf.files import replacing
from lightning_nncf.hooks.notices import HINT

__all__ = [
    "SECTION",
    "add_section",
    "config_differences",
    "read_sections",
    "same_structure",
    "write_network",
]

SECTION = "lightning_nncf"
"""Key of our section in a checkpoint."""
FORMAT = 3
"""Version of its layout: networks list what was inserted last since 3, so that optimizers know parameters by other
positions; one section per network since 2, the section of the only network itself in 1."""
_COMPARED = ("compression", "target_device", "ignored_scopes", "target_scopes")


def add_section(checkpoint: dict[str, Any], path: str, section: Mapping[str, Any], module: nn.Module) -> None:
    """Add the section of one network to a checkpoint, beside those of other networks.

    Args:
        checkpoint: The checkpoint; its ``state_dict`` is that of the module.
        path: Path of the network in the module.
        section: What rebuilds the network, see `CompressedNetwork.section`.
        module: The module.
    """
    ours = checkpoint.setdefault(
        SECTION,
        {
            "format": FORMAT,
            "version": importlib.metadata.version("lightning_nncf"),
            "module_class": f"{type(module).__module__}.{type(module).__qualname__}",
            "networks": {},
        },
    )
    ours["networks"][path] = dict(section)
    weights = checkpoint.get("state_dict")
    if isinstance(weights, dict):
        name = f"{path}.{HINT}" if path else HINT
        weights[name] = torch.empty(0)
        if hasattr(weights, "move_to_end"):
            weights.move_to_end(name, last=False)


def write_network(path: Path, network: nn.Module, section: Mapping[str, Any]) -> None:
    """Write the weights of a network and its section to a file, which appears only once it is complete.

    Args:
        path: The file; missing directories are created.
        network: The network.
        section: What rebuilds it, see `CompressedNetwork.section`.
    """
    content: dict[str, Any] = {"state_dict": network.state_dict()}
    add_section(content, "", section, network)
    with replacing(path) as temporary:
        torch.save(content, temporary)


def read_sections(checkpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the section of each network in a checkpoint by its path; none if it was saved without compression.

    Raises:
        CheckpointError: They were written in a format that this version does not know.
    """
    ours: dict[str, Any] | None = checkpoint.get(SECTION)
    if ours is None:
        return {}
    if ours.get("format") == 1:
        return {ours["network"]: ours}
    if ours.get("format") not in (2, FORMAT):
        raise CheckpointError(
            f"the checkpoint was written by lightning_nncf {ours.get('version')} in format {ours.get('format')}; "
            f"this version reads formats 1 to {FORMAT}. Install the version that wrote it"
        )
    networks: dict[str, dict[str, Any]] = ours["networks"]
    return networks


def same_structure(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two structures make the same compressed network; what its inputs held does not shape it."""
    return {**first, "inputs": None} == {**second, "inputs": None}


def config_differences(saved: Mapping[str, Any], config: NNCFConfig) -> list[str]:
    """List where the configuration of a checkpoint differs from another one, as far as it shapes the network.

    Args:
        saved: The configuration in the checkpoint.
        config: The configuration in use.
    """
    old = NNCFConfig.load(saved).model_dump(mode="json")
    new = config.model_dump(mode="json")
    flat_old, flat_new = ({p: v for k in _COMPARED for p, v in _flatten(values.get(k), k)} for values in (old, new))
    return [
        f"`{path}` is {flat_old.get(path)!r} in the checkpoint and {flat_new.get(path)!r} here"
        for path in dict.fromkeys([*flat_old, *flat_new])
        if flat_old.get(path) != flat_new.get(path)
    ]


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    """List the leaves of nested mappings and lists with their paths; initializers do not shape a network."""
    if isinstance(value, Mapping):
        return [leaf for k, v in value.items() if k != "initializer" for leaf in _flatten(v, f"{path}.{k}")]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in _flatten(item, f"{path}.{index}")]
    return [(path, value)]
