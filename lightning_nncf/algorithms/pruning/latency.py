"""Latency of a network in ONNX Runtime."""

from __future__ import annotations

import io
import statistics
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lightning_nncf.errors import ConfigError

__all__ = ["latency"]

_WARMUP = 3
_RUNS = 15


def latency(network: nn.Module, inputs: tuple[tuple[Any, ...], Mapping[str, Any]], *, runs: int = _RUNS) -> float:
    """Return the median time of one call in ONNX Runtime on the CPU with one thread, in seconds.

    Args:
        network: The network, on the CPU; it is put into evaluation mode.
        inputs: Positional and keyword arguments of the call.
        runs: How many calls are timed.

    Raises:
        ConfigError: ONNX Runtime is not installed, or the network cannot be exported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("`pruning_latency_target` measures in ONNX Runtime; install onnxruntime") from error
    args, kwargs = tree_map(lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf, inputs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    file: Any = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(network.eval(), args, file, kwargs=dict(kwargs), dynamo=False, verbose=False)
    except Exception as error:
        raise ConfigError(
            f"`pruning_latency_target` needs the network in ONNX, but it cannot be exported: {error}"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feeds = {item.name: tensor.numpy() for item, tensor in zip(session.get_inputs(), tensors, strict=False)}
    times = []
    for _ in range(_WARMUP + runs):
        started = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARMUP:])
