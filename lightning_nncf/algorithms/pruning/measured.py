"""What has to be tried out before the first filter goes: rankings that are learned, and rates that meet a latency."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_nncf.algorithms.pruning.config import PruningParams
from lightning_nncf.algorithms.pruning.latency import latency
from lightning_nncf.algorithms.pruning.legr import Candidate, evolve, load_coefficients, save_coefficients
from lightning_nncf.algorithms.pruning.masks import WeightMasks
from lightning_nncf.algorithms.pruning.ranking import Ranking
from lightning_nncf.algorithms.pruning.removal import shrink
from lightning_nncf.algorithms.pruning.selection import bisect_rate
from lightning_nncf.algorithms.pruning.trials import Trial
from lightning_nncf.calibration import CalibrationData, ensure_statistics
from lightning_nncf.core.inputs import limit_batch
from lightning_nncf.errors import ConfigError

__all__ = ["learn_ranking", "rate_for_latency"]

_DEFAULT_PRUNING = 0.8
_HIGHEST_RATE = 0.95


def learn_ranking(
    network: nn.Module, ranking: Ranking, weights: WeightMasks, present: Sequence[Tensor], data: CalibrationData
) -> None:
    """Give a ranking the coefficients that it learns, or that a file holds.

    Args:
        network: The network; it is trained for some steps in each trial and restored.
        ranking: The ranking.
        weights: Masks of the network.
        present: Which units the network physically has.
        data: Batches to train on and to judge by.

    Raises:
        ConfigError: The file with coefficients cannot be read.
        InitializationError: Running a batch returns no loss.
    """
    params: PruningParams = ranking.params
    settings = params.legr_params

    def parameters() -> dict[str, Tensor]:
        return dict(network.named_parameters(remove_duplicate=False))

    spreads = ranking.spreads(parameters(), present)
    if params.load_ranking_coeffs_path is not None:
        ranking.coefficients = load_coefficients(params.load_ranking_coeffs_path, spreads)
        return
    level = settings.max_pruning or params.target or _DEFAULT_PRUNING
    ensure_statistics(data)
    trial = Trial(network, data, settings.train_steps, weights.apply)

    def reward(candidate: Candidate) -> float:
        ranking.coefficients = candidate
        masks = ranking.masks_for_flops(level, ranking.importance(parameters(), present))
        return trial.run(lambda: weights.set(masks, present))

    generations = iter(data.progress(range(settings.generations), settings.generations, "Learned ranking"))
    ranking.coefficients = evolve(spreads, settings, reward, lambda _: next(generations, None))
    if params.save_ranking_coeffs_path is not None and data.directory is not None:
        save_coefficients(ranking.coefficients, params.save_ranking_coeffs_path)


def rate_for_latency(
    target: float,
    network: nn.Module,
    ranking: Ranking,
    present: Sequence[Tensor],
    inputs: tuple[tuple[Any, ...], Mapping[str, Any]] | None,
    measure: Callable[[nn.Module, Any], float] = latency,
) -> float:
    """Find the share of filters without which the network is as much faster as asked for.

    Args:
        target: Share of the latency to remove.
        network: The network.
        ranking: Chooses the filters.
        present: Which units the network physically has.
        inputs: Positional and keyword arguments of a call; of a batch one sample is used.
        measure: Returns the latency of a network.

    Raises:
        ConfigError: The target cannot be met, or the inputs are unknown.
    """
    if inputs is None:
        raise ConfigError("`pruning_latency_target` needs the inputs of the network, which was never called itself")
    if inputs[0] and isinstance(inputs[0][0], Tensor):
        inputs = limit_batch((inputs[0], dict(inputs[1])), 1)
    importance = ranking.importance(dict(network.named_parameters(remove_duplicate=False)), present)

    def seconds(rate: float) -> float:
        small = copy.deepcopy(network).cpu().float()
        shrink(small, ranking.structure, ranking.at_rate(rate, importance), present=present)
        return measure(small, inputs)

    full = seconds(0.0)
    rate = bisect_rate(lambda rate: seconds(rate) <= (1 - target) * full, _HIGHEST_RATE, tolerance=0.02)
    if rate is None:
        raise ConfigError(
            f"`pruning_latency_target`: the network takes {1e3 * full:.2f} ms in ONNX Runtime and cannot be made "
            f"{target:.0%} faster by pruning {_HIGHEST_RATE:.0%} of its filters; lower the target, or allow more "
            "layers (`prune_downsample_convs`, `grouping: full`)"
        )
    return rate
