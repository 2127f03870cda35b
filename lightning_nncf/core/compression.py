"""Compression of any PyTorch network, without Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.data import extract_batch_size
from torch import Tensor, nn

from lightning_nncf.calibration import CalibrationData, distributed_reduce
from lightning_nncf.capture.trace import trace
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.inputs import Arguments, arguments_of, inputs_from_info
from lightning_nncf.errors import ConfigError, InitializationError

__all__ = ["calibration_from", "compress"]


def compress(
    network: nn.Module,
    config: str | Path | Mapping[str, Any] | NNCFConfig,
    data: Iterable[Any] | None = None,
    *,
    example_inputs: Any = None,
    forward: Callable[[Any], object] | None = None,
    loss: Callable[[Any], object] | None = None,
    evaluate: Callable[[float], float] | None = None,
) -> CompressedNetwork:
    """Compress a network in place, ready to be trained by any loop.

    Args:
        network: The network; it keeps its class, parameters and their names, and gains hooks and ``lnncf_*``
            parameters.
        config: Path of a JSON or YAML file, the same as a mapping, or the model itself. Scopes are relative to the
            network.
        data: Batches to initialize with, iterated more than once. Without it call `CompressedNetwork.initialize`
            later.
        example_inputs: Inputs to capture the network with: a tensor, a tuple of positional or a dict of keyword
            arguments. Default: ``input_info`` of the configuration, else the first batch of ``data``.
        forward: Runs the network on one batch. Default: a tensor or the first element of a list or tuple is the
            argument, a dict holds keyword arguments.
        loss: Computes the training loss of one batch, for algorithms that look at gradients before training (HAWQ,
            learned rankings). Default: what ``forward`` returns.
        evaluate: Judges the network on a share, in (0, 1], of data that it is not trained on; higher is better. Needed
            by AutoQ.

    Returns:
        The network with its algorithms.

    Raises:
        ConfigError: The configuration is wrong, or no inputs are known.
        InitializationError: ``data`` yields nothing.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> data = [torch.rand(2, 3, 8, 8)]
    >>> compressed = compress(network, {"compression": {"algorithm": "quantization"}}, data)
    >>> compressed.stage.name, sorted(name for name, _ in network.named_parameters())[:2]
    ('FULLY_COMPRESSED', ['0.bias', '0.lnncf_in.quantization.scale'])
    """
    settings = NNCFConfig.load(config)
    run = _capture_run(network, settings, data, example_inputs, forward or (lambda batch: _run(network, batch)))
    compressed = CompressedNetwork.build(network, settings, trace(network, run))
    if data is not None:
        compressed.initialize(calibration_from(network, data, forward, loss=loss, evaluate=evaluate))
    return compressed


def calibration_from(
    network: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], object] | None = None,
    *,
    loss: Callable[[Any], object] | None = None,
    evaluate: Callable[[float], float] | None = None,
) -> CalibrationData:
    """Make data for initializations from batches.

    Args:
        network: The network.
        batches: Batches, iterated more than once.
        forward: Runs the network on one batch. Default: as in `compress`.
        loss: Computes the training loss of one batch; as in `compress`.
        evaluate: Judges the network; as in `compress`.
    """
    return CalibrationData(
        batches=batches,
        forward=forward or (lambda batch: _run(network, batch)),
        batch_size=extract_batch_size,
        reduce=distributed_reduce(),
        loss=loss,
        evaluate=None if evaluate is None else lambda share, metric: evaluate(share),
    )


def _run(network: nn.Module, batch: Any) -> object:
    """Run a network on a batch that a loader gave."""
    return _call(network, arguments_of(batch))


def _call(network: nn.Module, arguments: Arguments) -> object:
    """Call a network with arguments that may be on another device."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    args, kwargs = _to(arguments, device)
    return network(*args, **kwargs)


def _capture_run(
    network: nn.Module,
    config: NNCFConfig,
    data: Iterable[Any] | None,
    example_inputs: Any,
    run_batch: Callable[[Any], object],
) -> Callable[[], object]:
    """Choose what runs the network once: given inputs, described inputs, or the first batch."""
    if example_inputs is not None:
        if isinstance(example_inputs, Mapping):
            arguments: Arguments = ((), dict(example_inputs))
        else:
            arguments = (example_inputs if isinstance(example_inputs, tuple) else (example_inputs,), {})
        return lambda: _call(network, arguments)
    if config.input_info:
        described = inputs_from_info(config.input_info, network)
        return lambda: _call(network, described)
    if data is not None:
        for batch in data:
            return lambda: run_batch(batch)
        raise InitializationError("`data` yields no batch, so the network can be neither captured nor initialized")
    raise ConfigError(
        "the inputs of the network are unknown: give `example_inputs`, `data`, or `input_info` in the configuration"
    )


def _to(value: Any, device: torch.device) -> Any:
    """Move all tensors in nested tuples, lists and dicts to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to(item, device) for item in value)
    return value
