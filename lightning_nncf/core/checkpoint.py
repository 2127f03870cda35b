"""What a checkpoint holds beside the weights, and making a compressed module from it."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.network import find_network
from lightning_nncf.errors import CheckpointError

__all__ = [
    "SECTION",
    "config_differences",
    "load_from_checkpoint",
    "load_plain",
    "make_section",
    "open_checkpoint",
    "read_section",
    "restore_module",
]

SECTION = "lightning_nncf"
"""Key of our section in a Lightning checkpoint."""
FORMAT = 1
"""Version of the section's layout."""
_COMPARED = ("compression", "target_device", "ignored_scopes", "target_scopes")

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def make_section(compressed: CompressedNetwork, network_path: str, module: nn.Module) -> dict[str, Any]:
    """Make the section of a checkpoint from which `restore_module` rebuilds the compressed network.

    Args:
        compressed: The network with its algorithms.
        network_path: Path of the network in the module.
        module: The module whose state dict the checkpoint holds.
    """
    return {
        "format": FORMAT,
        "version": importlib.metadata.version("lightning_nncf"),
        "config": compressed.config.model_dump(mode="json", exclude_unset=True),
        "network": network_path,
        "module_class": f"{type(module).__module__}.{type(module).__qualname__}",
        "structure": compressed.structure(),
        "state": compressed.state_dict(),
    }


def read_section(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return our section of a checkpoint, or nothing if it was saved without compression.

    Raises:
        CheckpointError: The section was written in a format that this version does not know.
    """
    section: dict[str, Any] | None = checkpoint.get(SECTION)
    if section is not None and section.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint was written by lightning_nncf {section.get('version')} in format {section.get('format')}; "
            f"this version reads format {FORMAT}. Install the version that wrote it"
        )
    return section


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


def restore_module(
    module: nn.Module, checkpoint: Mapping[str, Any], config: NNCFConfig | None = None
) -> tuple[str, CompressedNetwork]:
    """Rebuild the structure of a compressed network in a plain module, before the state dict is loaded.

    Args:
        module: The module, with its plain network.
        checkpoint: The checkpoint.
        config: The configuration in use; it must agree with the one in the checkpoint. Default: that one.

    Returns:
        The network's path in the module, and the compressed network.

    Raises:
        CheckpointError: The checkpoint holds no compression, or another configuration.
    """
    section = read_section(checkpoint)
    if section is None:
        raise CheckpointError(
            "the checkpoint was saved without compression; load it into the plain module before compressing"
        )
    if config is not None and (differences := config_differences(section["config"], config)):
        raise CheckpointError("the checkpoint was saved with another configuration: " + "; ".join(differences))
    path, network = find_network(module, section["network"])
    compressed = CompressedNetwork.restore(network, config or NNCFConfig.load(section["config"]), section["structure"])
    compressed.load_state_dict(section["state"])
    return path, compressed


def load_from_checkpoint(
    module_class: type[ModuleT], checkpoint_path: str | Path, *, map_location: Any = "cpu", **kwargs: Any
) -> ModuleT:
    """Make a compressed LightningModule from a checkpoint, with no Trainer, data or initialization.

    Args:
        module_class: Class of the LightningModule.
        checkpoint_path: Path of a ``.ckpt`` file written while `NNCFCallback` was in use; read with
            ``weights_only=True``.
        map_location: Device for the module.
        **kwargs: Arguments of the module that its hyperparameters in the checkpoint lack.

    Returns:
        The module in evaluation mode, its network compressed.

    Raises:
        CheckpointError: The file was saved without compression or by an unknown version.
    """
    checkpoint = _read(checkpoint_path)
    module = _make_plain(module_class, checkpoint, kwargs)
    _load(module, checkpoint)
    return module.to(map_location)


def open_checkpoint(
    checkpoint_path: str | Path, make_module: Callable[[], nn.Module] | None = None
) -> CompressedNetwork:
    """Make the compressed network of a checkpoint without knowing the class of its module.

    Args:
        checkpoint_path: Path of the ``.ckpt`` file.
        make_module: Makes the plain module. Default: the class that the checkpoint names is imported and made from the
            hyperparameters in the checkpoint.

    Returns:
        The compressed network, in evaluation mode.

    Raises:
        CheckpointError: The file was saved without compression, or the module cannot be made.
    """
    checkpoint = _read(checkpoint_path)
    if make_module is not None:
        return _load(make_module(), checkpoint)
    name: str = checkpoint[SECTION]["module_class"]
    try:
        path, _, attribute = name.rpartition(".")
        module_class = getattr(importlib.import_module(path), attribute)
        module = _make_plain(module_class, checkpoint, {})
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot make {name}, whose state {checkpoint_path} holds: {error}. Call `self.save_hyperparameters()` in "
            "the module before training, or say how to make it (`--module_config`, a LightningCLI file)"
        ) from error
    return _load(module, checkpoint)


def load_plain(module: nn.Module, checkpoint_path: str | Path) -> None:
    """Load the weights of a checkpoint that was saved without compression into a plain module.

    Args:
        module: The module.
        checkpoint_path: Path of the ``.ckpt`` file.

    Raises:
        CheckpointError: The file cannot be read, is compressed already, or holds another module.
    """
    checkpoint = _open(checkpoint_path)
    if read_section(checkpoint) is not None:
        raise CheckpointError(
            f"{checkpoint_path} holds a compressed network already; `lightning-nncf export` writes it as ONNX"
        )
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint_path} does not fit {type(module).__name__}: {error}") from error


def _open(checkpoint_path: str | Path) -> dict[str, Any]:
    """Read a checkpoint."""
    try:
        checkpoint: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, RuntimeError) as error:
        raise CheckpointError(f"cannot read {checkpoint_path} as a checkpoint: {error}") from error
    return checkpoint


def _read(checkpoint_path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that holds our section."""
    checkpoint = _open(checkpoint_path)
    if read_section(checkpoint) is None:
        raise CheckpointError(
            f"{checkpoint_path} was saved without compression; load it with the module's own `load_from_checkpoint`"
        )
    return checkpoint


def _make_plain(module_class: type[ModuleT], checkpoint: Mapping[str, Any], kwargs: Mapping[str, Any]) -> ModuleT:
    """Let Lightning make a module from the hyperparameters in a checkpoint, without weights."""
    file = io.BytesIO()
    torch.save({**checkpoint, "state_dict": {}}, file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load: Any = module_class.load_from_checkpoint  # type: ignore[attr-defined]
        module: ModuleT = load(file, map_location="cpu", strict=False, weights_only=True, **kwargs)
    return module


def _load(module: nn.Module, checkpoint: Mapping[str, Any]) -> CompressedNetwork:
    """Rebuild the structure in a plain module and load the weights of a checkpoint."""
    configure: Callable[[], None] | None = getattr(module, "configure_model", None)
    if configure is not None and checkpoint[SECTION]["network"] not in dict(module.named_modules()):
        configure()
    _, compressed = restore_module(module, checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    module.eval()
    return compressed


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    """List the leaves of nested mappings and lists with their paths; initializers do not shape a network."""
    if isinstance(value, Mapping):
        return [leaf for k, v in value.items() if k != "initializer" for leaf in _flatten(v, f"{path}.{k}")]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in _flatten(item, f"{path}.{index}")]
    return [(path, value)]
