"""HAWQ-v2: few bits where the curvature of the loss is small and quantization changes the weights little.

Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", NeurIPS 2020.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning_utilities.core.rank_zero import rank_zero_only

from lightning_nncf.algorithms.quantization.precision.choices import Choices, evaluate_choices, pick
from lightning_nncf.algorithms.quantization.precision.functional import perturbation
from lightning_nncf.algorithms.quantization.precision.space import changed
from lightning_nncf.algorithms.quantization.precision.task import SearchTask
from lightning_nncf.algorithms.quantization.precision.traces import average_traces, load_traces, save_traces
from lightning_nncf.errors import ConfigError
from lightning_nncf.files import replacing, write_text

__all__ = ["search_by_traces"]

_log = logging.getLogger(__name__)

_RATIO = 1.5
_ITERATIONS = 200


def search_by_traces(task: SearchTask) -> tuple[int, ...]:
    """Find the bit widths with the smallest sum of traces times perturbations that reach the compression ratio.

    Args:
        task: The search, its data with a training loss; not touched when traces are read from a file.

    Returns:
        Bits of each point.

    Raises:
        ConfigError: No weight has a choice, the ratio cannot be met, or the file with traces is wrong.
        InitializationError: There is no data or no training loss.
    """
    space, weights, config = task.space, task.weights, task.config
    names = [str(point.point) for point in task.points]
    layers = [index for index in weights if len(space.bits(index)) > 1]
    if not layers:
        raise ConfigError("`initializer.precision.type: hawq` chooses bits by weights, but no weight has a choice")
    if config.compression_ratio_of == "flops" and not any(space.flops):
        raise ConfigError(
            "`initializer.precision.compression_ratio_of: flops` needs convolutions or linear layers, but no quantized "
            "weight belongs to one; write `size`"
        )
    if config.traces_per_layer_path is None:
        found = average_traces(
            task.network,
            {names[index]: weights[index] for index in layers},
            task.data,
            num_data_points=config.num_data_points,
            iterations=_ITERATIONS if config.iter_number is None else config.iter_number,
            tolerance=config.tolerance,
        )
    else:
        found = load_traces(Path(config.traces_per_layer_path).expanduser(), [names[index] for index in layers])
    traces = {index: found[names[index]] for index in layers}
    perturbations = {index: _perturbations(task, index) for index in layers}
    choices = evaluate_choices(space, traces, perturbations, task.sizes, config)
    chosen = pick(choices, _RATIO if config.compression_ratio is None else config.compression_ratio)
    _log.info(
        "HAWQ looked at %d assignments with compression ratios from %.3f to %.3f and chose one of %.3f",
        len(choices.ratios),
        choices.ratios.min(),
        choices.ratios.max(),
        choices.ratios[chosen],
    )
    bits = tuple(int(each) for each in choices.bits[chosen])
    if config.dump_init_precision_data and task.data.directory is not None:
        changes = {names[index]: each for index, each in perturbations.items()}
        _dump(task.data.directory / "hawq", dict(zip(names, bits, strict=True)), found, changes, choices)
    return bits


@torch.no_grad()
def _perturbations(task: SearchTask, index: int) -> dict[int, float]:
    """Return how much each bit width changes a weight; its quantizer is left as it was."""
    quantizer, weight = task.quantizers[index], task.weights[index]
    before, enabled = quantizer.config, quantizer.enabled
    found = {}
    try:
        quantizer.enabled = True
        for target in task.space.options[index]:
            quantizer.config = changed(before, target)
            task.fit(quantizer)
            found[target.bits] = perturbation(weight, quantizer(weight))
    finally:
        quantizer.config, quantizer.enabled = before, enabled
        task.fit(quantizer)
    return found


@rank_zero_only
def _dump(
    folder: Path,
    bits: Mapping[str, int],
    traces: Mapping[str, float],
    perturbations: Mapping[str, Mapping[int, float]],
    choices: Choices,
) -> None:
    """Write what the search saw and chose, in forms that the configuration reads again."""
    save_traces(traces, folder / "traces.json")
    write_text(folder / "perturbations.json", json.dumps(perturbations, indent=2) + "\n")
    groups: dict[int, list[str]] = {}
    for name, each in bits.items():
        groups.setdefault(each, []).append(name)
    write_text(folder / "bitwidth_per_scope.json", json.dumps(groups, indent=2) + "\n")
    with replacing(folder / "choices.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["compression_ratio", "metric"])
        writer.writerows(zip(choices.ratios.tolist(), choices.metrics.tolist(), strict=True))
