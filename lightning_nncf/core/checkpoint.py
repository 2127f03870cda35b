"""Making compressed modules and networks from what training saved."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.insertion import refuse_compressed
from lightning_nncf.core.network import find_network
from lightning_nncf.core.sections import SECTION, config_differences, read_sections
from lightning_nncf.errors import CheckpointError, ConfigError, HookError, near
from lightning_nncf.hooks.insertion import inserted, strip
from lightning_nncf.hooks.notices import HINT

__all__ = ["load", "load_from_checkpoint", "load_weights", "open_checkpoint", "read_weights", "restore_network"]

_LIGHTNING = "pytorch-lightning_version"
"""Key that every checkpoint of Lightning has."""

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def restore_network(
    module: nn.Module, path: str, section: Mapping[str, Any], config: NNCFConfig | None = None
) -> CompressedNetwork:
    """Rebuild the structure of a compressed network in a plain module, before the state dict is loaded.

    Args:
        module: The module, with its plain network.
        path: Path of the network in the module.
        section: Section of the network in a checkpoint, see `lightning_nncf.core.sections`.
        config: The configuration in use; it must agree with the one in the checkpoint. Default: that one.

    Raises:
        CheckpointError: The checkpoint was saved with another configuration.
    """
    if config is not None and (differences := config_differences(section["config"], config)):
        raise CheckpointError("the checkpoint was saved with another configuration: " + "; ".join(differences))
    _, network = find_network(module, path)
    compressed = CompressedNetwork.restore(network, config or NNCFConfig.load(section["config"]), section["structure"])
    compressed.load_state_dict(section["state"])
    compressed.place(module, path, section["structure"].get("averages", {}))
    return compressed


def load(network: nn.Module, path: str | Path) -> CompressedNetwork:
    """Restore a compressed network from a file that `CompressedNetwork.save` wrote, without Lightning.

    Args:
        network: The plain network, as it was before it was compressed; it is changed in place, on its device.
        path: The file; read with ``weights_only=True``.

    Returns:
        The compressed network, at the point of training where it was saved.

    Raises:
        CheckpointError: The file cannot be read, was written by something else, or holds another network.
        HookError: The network is compressed already.

    >>> import tempfile
    >>> from lightning_nncf import compress
    >>> data = [torch.rand(2, 3, 8, 8)]
    >>> config = {"compression": {"algorithm": "quantization"}}
    >>> compressed = compress(nn.Sequential(nn.Conv2d(3, 4, 3)), config, data)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     compressed.save(f"{folder}/small.pt")
    ...     restored = load(nn.Sequential(nn.Conv2d(3, 4, 3)), f"{folder}/small.pt")
    >>> torch.equal(restored.network(data[0]), compressed.network(data[0]))
    True
    """
    content = _open(path)
    sections = read_sections(content)
    if _LIGHTNING in content:
        call = "load_from_checkpoint(ModuleClass, path)" if sections else "load_weights(module, path)"
        raise CheckpointError(f"{path} is a checkpoint of Lightning; load it with `lightning_nncf.{call}`")
    if set(sections) != {""}:
        raise CheckpointError(f"{path} holds no compressed network; `load` reads what `CompressedNetwork.save` wrote")
    refuse_compressed(network, "`load` takes the plain network, so call `strip()` first")
    _check_names(network, content["state_dict"], path)
    try:
        compressed = restore_network(network, "", sections[""])
        if wrong := _other_shape(network, content["state_dict"]):
            raise CheckpointError(wrong)
        network.load_state_dict(content["state_dict"])
    except (HookError, RuntimeError) as error:
        strip(network)
        raise CheckpointError(f"{path} does not fit {type(network).__name__}: {error}") from error
    return compressed


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
    if _LIGHTNING not in checkpoint:
        raise CheckpointError(
            f"{checkpoint_path} was written by `CompressedNetwork.save`; `lightning_nncf.load(network, path)` reads it"
        )
    module = _make_plain(module_class, checkpoint, kwargs)
    _load(module, checkpoint)
    return module.to(map_location)


def open_checkpoint(
    checkpoint_path: str | Path, make_module: Callable[[], nn.Module] | None = None, *, network: str | None = None
) -> CompressedNetwork:
    """Make the compressed network of a checkpoint without knowing the class of its module.

    Args:
        checkpoint_path: Path of the ``.ckpt`` file, or of a file that `CompressedNetwork.save` wrote.
        make_module: Makes the plain module. Default: the class that the checkpoint names is imported and made from the
            hyperparameters in the checkpoint.
        network: Path of the network in the module, where several are compressed. Default: the only one.

    Returns:
        The compressed network, in evaluation mode.

    Raises:
        CheckpointError: The file was saved without compression, or the module cannot be made.
        ConfigError: It is not clear which network is meant.
    """
    checkpoint = _read(checkpoint_path)
    sections = read_sections(checkpoint)
    if network is None and len(sections) > 1:
        raise ConfigError(
            f"{checkpoint_path} holds {len(sections)} compressed networks, {_quoted(sections)}; say which with "
            "`network`"
        )
    if network is not None and network not in sections:
        raise ConfigError(f"{checkpoint_path} holds no compressed network {network!r}; {near(network, sections)}")
    chosen = next(iter(sections)) if network is None else network
    if make_module is not None:
        return _load(make_module(), checkpoint)[chosen]
    name: str = checkpoint[SECTION]["module_class"]
    try:
        path, _, attribute = name.rpartition(".")
        module_class = getattr(importlib.import_module(path), attribute)
        module = _make_plain(module_class, checkpoint, {}) if _LIGHTNING in checkpoint else module_class()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot make {name}, whose state {checkpoint_path} holds: {error}. Call `self.save_hyperparameters()` in "
            "the module before training, or say how to make it (`--module_config`, a LightningCLI file)"
        ) from error
    return _load(module, checkpoint)[chosen]


def load_weights(module: ModuleT, checkpoint_path: str | Path) -> ModuleT:
    """Load the weights of a checkpoint that was saved without compression into a plain module, to compress it then.

    Args:
        module: The module; its ``configure_model`` is called where it makes the network.
        checkpoint_path: Path of the ``.ckpt`` file, or of a saved state dict; read with ``weights_only=True``.

    Returns:
        The module.

    Raises:
        CheckpointError: The file cannot be read, is compressed already, or holds another module.
    """
    weights = read_weights(checkpoint_path)
    if any(True for _ in inserted(module)):
        raise CheckpointError(
            f"{type(module).__name__} is compressed already; load the weights before it is, or call `strip()` first"
        )
    if not set(weights) <= set(module.state_dict()):
        _configure(module)
    try:
        module.load_state_dict(weights)
    except (AttributeError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint_path} does not fit {type(module).__name__}: {error}") from error
    return module


def read_weights(checkpoint_path: str | Path) -> Mapping[str, Any]:
    """Read the state dict of a checkpoint that was saved without compression.

    Raises:
        CheckpointError: The file cannot be read, or is compressed.
    """
    checkpoint = _open(checkpoint_path)
    if read_sections(checkpoint):
        raise CheckpointError(
            f"{checkpoint_path} holds a compressed network already; `lightning_nncf.load_from_checkpoint` loads it, "
            "`fit(ckpt_path=...)` goes on with it and `lightning-nncf export` writes it as ONNX"
        )
    weights: Mapping[str, Any] = checkpoint.get("state_dict", checkpoint)
    return weights


def _open(checkpoint_path: str | Path) -> dict[str, Any]:
    """Read a checkpoint."""
    try:
        checkpoint: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {checkpoint_path}: {error}") from error
    except Exception as error:  # bytes that are no pickle make its reader fail in any way
        raise CheckpointError(
            f"cannot read {checkpoint_path} as a checkpoint ({type(error).__name__}): it is damaged, or holds more "
            "than weights and plain values, as a pickled module does"
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{checkpoint_path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _read(checkpoint_path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that holds our section."""
    checkpoint = _open(checkpoint_path)
    if not read_sections(checkpoint):
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


def _load(module: nn.Module, checkpoint: Mapping[str, Any]) -> dict[str, CompressedNetwork]:
    """Rebuild the structure in a plain module and load the weights of a checkpoint; return the networks by path."""
    sections = read_sections(checkpoint)
    if not set(sections) <= {name for name, _ in module.named_modules()}:
        _configure(module)
    networks = {path: restore_network(module, path, section) for path, section in sections.items()}
    module.load_state_dict(checkpoint["state_dict"])
    module.eval()
    return networks


def _configure(module: nn.Module) -> None:
    """Let a LightningModule make what it makes in `configure_model`."""
    configure: Callable[[], None] | None = getattr(module, "configure_model", None)
    if configure is not None:
        configure()


def _check_names(network: nn.Module, weights: Mapping[str, Any], path: str | Path) -> None:
    """Refuse weights of another network before anything is changed."""
    plain = {name for name in weights if name != HINT and not any(p.startswith("lnncf_") for p in name.split("."))}
    own = set(network.state_dict())
    if plain != own:
        raise CheckpointError(
            f"{path} does not fit {type(network).__name__}: the file lacks {_quoted(own - plain) or 'nothing'}, the "
            f"network lacks {_quoted(plain - own) or 'nothing'}"
        )


def _other_shape(network: nn.Module, weights: Mapping[str, Any]) -> str:
    """Describe a tensor that has another shape in the file: PyTorch would tell after it copied all others."""
    for name, value in network.state_dict().items():
        if name in weights and weights[name].shape != value.shape:
            return f"{name!r} is {list(weights[name].shape)} in the file and {list(value.shape)} in the network"
    return ""


def _quoted(names: Iterable[str], most: int = 5) -> str:
    """List names, in order, up to a number."""
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(map(repr, ordered[:most])) + more
