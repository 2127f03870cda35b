"""Traces of the Hessian of the training loss, layer by layer, estimated by Hutchinson's method.

For a random vector v of -1 and 1 the expectation of v'Hv is the trace of H, and Hv is the gradient of the product of v
with the loss's gradient: no Hessian is ever built. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of
Neural Networks", NeurIPS 2020.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_nncf.algorithms.quantization.precision.functional import rademacher
from lightning_nncf.calibration import CalibrationData, computing_loss, require_samples, training_loss
from lightning_nncf.errors import ConfigError, InitializationError
from lightning_nncf.files import write_text

__all__ = ["average_traces", "load_traces", "save_traces"]

_DESCRIPTION = "Hessian traces"
_SETTLED = 3
"""So many small changes in a row end the estimation; a single one happens by chance."""


def average_traces(
    network: nn.Module,
    weights: Mapping[str, nn.Parameter],
    data: CalibrationData,
    *,
    num_data_points: int = 100,
    iterations: int = 200,
    tolerance: float = 1e-4,
) -> dict[str, float]:
    """Estimate the trace of the Hessian with respect to each weight, divided by the size of the weight.

    Only the weights need gradients while this runs, and only the graph of one batch is held at a time. The same global
    random state gives the same traces; in several processes all get the mean over their data.

    Args:
        network: The network, its quantizers passing values on unchanged; modes and flags are restored.
        weights: Weights by name.
        data: The data and its training loss.
        num_data_points: Least number of samples per process that the loss is averaged over.
        iterations: Largest number of random vectors.
        tolerance: The estimation ends when the sum of all mean traces changed by less than this share three times in a
            row.

    Raises:
        InitializationError: There is no data or no loss, or the loss does not depend on a weight.
    """
    batches = list(_first(data, num_data_points))
    require_samples(data, sum(data.batch_size(batch) for batch in batches), _DESCRIPTION)
    generator = torch.Generator().manual_seed(_common_seed(data))
    sums = torch.zeros(len(weights), dtype=torch.float64)
    mean, settled = math.nan, 0
    with computing_loss(network), _only_these_train(network, weights), _twice_differentiable():
        for done, _ in enumerate(data.progress(range(iterations), iterations, _DESCRIPTION), start=1):
            sums += _one_estimate(weights, data, batches, generator)
            previous, mean = mean, float(sums.sum()) / done
            # a share of the trace, however small the loss is; traces of nothing are settled
            small = done > 1 and abs(mean - previous) <= tolerance * abs(previous)
            settled = settled + 1 if small else 0
            if settled == _SETTLED:
                break
    sizes = torch.tensor([weight.numel() for weight in weights.values()], dtype=torch.float64)
    return dict(zip(weights, (sums / done / sizes).tolist(), strict=True))


def save_traces(traces: Mapping[str, float], path: Path) -> None:
    """Write traces as JSON, by name of the layer."""
    write_text(path, json.dumps(dict(traces), indent=2) + "\n")


def load_traces(path: Path, names: Sequence[str]) -> dict[str, float]:
    """Read what `save_traces` wrote.

    Args:
        path: The file.
        names: Layers that must be in it.

    Raises:
        ConfigError: The file cannot be read, or lacks a layer.
    """
    key = "`initializer.precision.traces_per_layer_path`"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        traces = {str(name): float(value) for name, value in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{key}: cannot read a JSON object of layers and traces from {str(path)!r}: {error}"
        ) from error
    missing = [name for name in names if not math.isfinite(traces.get(name, math.nan))]
    if missing:
        raise ConfigError(
            f"{key}: {str(path)!r} has no trace for {', '.join(map(repr, missing[:5]))}"
            f"{' and others' if len(missing) > 5 else ''}; it was written for another network or another placement"
        )
    return {name: traces[name] for name in names}


def _one_estimate(
    weights: Mapping[str, nn.Parameter], data: CalibrationData, batches: Sequence[Any], generator: torch.Generator
) -> Tensor:
    """Return v'Hv of each weight for one random v, over all batches of all processes."""
    parameters = list(weights.values())
    vectors = [rademacher(parameter, generator) for parameter in parameters]
    products = torch.zeros(len(parameters), dtype=torch.float64)
    samples = 0
    for batch in batches:
        size = data.batch_size(batch)
        with torch.enable_grad():
            loss = training_loss(data, batch)
            gradients = _gradients(loss, weights)
            # a gradient that does not depend on the weights any more adds nothing: the loss is linear in them
            curved = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
            product = sum(((g * v).sum() for g, v in curved), torch.zeros((), device=loss.device))
            second = (
                torch.autograd.grad(product, parameters, allow_unused=True) if curved else (None,) * len(parameters)
            )
        values = [0.0 if h is None else float((v * h).double().sum()) for v, h in zip(vectors, second, strict=True)]
        products += size * torch.tensor(values, dtype=torch.float64)
        samples += size
    totals = torch.cat([products, torch.tensor([samples], dtype=torch.float64)])
    if data.reduce is not None:
        totals = data.reduce(totals, "sum")
    result = totals[:-1] / totals[-1]
    if not bool(torch.isfinite(result).all()):
        bad = [name for name, value in zip(weights, result.tolist(), strict=True) if not math.isfinite(value)]
        raise InitializationError(
            f"{_DESCRIPTION}: the curvature of the loss at {bad[0]!r} is not finite; look for NaN or infinite values "
            "in the data, the weights or the loss"
        )
    return result


def _gradients(loss: Tensor, weights: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """Return the gradients of a loss, which have gradients themselves."""
    found: Sequence[Tensor | None] = (None,) * len(weights)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
    gradients = []
    for name, gradient in zip(weights, found, strict=True):
        if gradient is None:
            raise InitializationError(
                f"{_DESCRIPTION}: the training loss does not depend on {name!r}; put it in `ignored_scopes`, or check "
                "that the step that returns the loss uses the whole network"
            )
        gradients.append(gradient)
    return gradients


def _first(data: CalibrationData, samples: int) -> Iterator[Any]:
    """Yield batches until enough samples were seen."""
    seen = 0
    for batch in data.batches:
        yield batch
        seen += data.batch_size(batch)
        if seen >= samples:
            return


def _common_seed(data: CalibrationData) -> int:
    """Draw a seed from the global generator that all processes agree on."""
    drawn = torch.randint(2**31, (1,))
    return int(drawn if data.reduce is None else data.reduce(drawn, "max"))


@contextmanager
def _only_these_train(network: nn.Module, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Let gradients reach these weights and no other parameter, also where a weight is frozen."""
    flags = {parameter: parameter.requires_grad for parameter in network.parameters()}
    try:
        for parameter in flags:
            parameter.requires_grad_(False)
        for parameter in weights.values():
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Use kernels whose gradients have gradients: fused attention and cuDNN's recurrent layers have none."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        yield
