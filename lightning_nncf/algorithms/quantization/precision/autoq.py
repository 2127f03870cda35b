"""AutoQ: an agent learns by trial which quantizers need how many bits.

Wang et al., "HAQ: Hardware-Aware Automated Quantization with Mixed Precision", CVPR 2019; Lou et al., "AutoQ: Automated
Kernel-Wise Neural Network Quantization", ICLR 2020.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_nncf.algorithms.quantization.initialization.initializer_config import PrecisionConfig
from lightning_nncf.algorithms.quantization.precision.environment import Decision, PrecisionGame, reward_scale
from lightning_nncf.algorithms.quantization.precision.space import DEFAULT_BITS, SearchSpace, changed
from lightning_nncf.algorithms.quantization.precision.task import SearchTask
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import QuantizationPoint
from lightning_nncf.calibration import CalibrationData, adapt_batch_norm
from lightning_nncf.errors import ConfigError, InitializationError

__all__ = ["agent_player", "search_by_agent"]

_log = logging.getLogger(__name__)

_EPISODES = 300
_WARMUP = 10
_RATIO = 0.15

Player = Callable[[PrecisionGame, int, int, float], None]


def agent_player() -> Player:
    """Return what plays the game.

    Raises:
        ConfigError: The libraries that it needs are not installed.
    """
    try:
        module = importlib.import_module("lightning_nncf.algorithms.quantization.precision.agent")
    except ImportError as error:
        raise ConfigError(
            f"`initializer.precision.type: autoq` needs Stable-Baselines3 and Gymnasium ({error}); install them with "
            "`pip install lightning-nncf[autoq]`"
        ) from error
    return cast("Player", module.play)


def search_by_agent(task: SearchTask) -> tuple[int, ...]:
    """Find the bit widths with the best validation score that an agent comes across.

    Args:
        task: The search, its data with ``evaluate``; the batch-norm statistics of the network are as before at the end.

    Returns:
        Bits of each point.

    Raises:
        ConfigError: There is nothing to evaluate with, or the size cannot be met.
        InitializationError: A score is not finite.
    """
    play = agent_player()
    space, quantizers, config = task.space, task.quantizers, task.config
    if task.data.evaluate is None:
        raise ConfigError(
            "`initializer.precision.type: autoq` judges bit widths by validation: give the Trainer a validation loader "
            "and the module a `validation_step` that logs a metric, or give `compress` an `evaluate`"
        )
    decided = _decided(space, quantizers)
    sizes = task.sizes
    fixed = [index for index in sizes if index not in {each for group in decided for each in group}]
    bits = [quantizer.config.bits for quantizer in quantizers]
    before = [quantizer.config for quantizer in quantizers]

    def assign(chosen: Sequence[int]) -> None:
        for group, each in zip(decided, chosen, strict=True):
            for index in group:
                bits[index] = each
        for index, quantizer in enumerate(quantizers):
            quantizer.config = changed(before[index], space.format(index, bits[index]))
            if index in task.weights:
                task.fit(quantizer)

    def score(chosen: Sequence[int]) -> float:
        assign(chosen)
        with _acting(quantizers), _same_statistics(task.network):
            adapt_batch_norm(task.network, task.data, task.adaptation_samples)
            return _evaluate(task.data, config)

    game = PrecisionGame(
        [_decision(space, task.points, sizes, group) for group in decided],
        config.bits or DEFAULT_BITS,
        fixed_bits=sum(sizes[index] * bits[index] for index in fixed),
        total=sum(sizes.values()),
        target=_RATIO if config.compression_ratio is None else config.compression_ratio,
        score=score,
    )
    _require_reachable(game, config)
    episodes = config.iter_number or _EPISODES
    warmup = _WARMUP if config.warmup_iter_number is None else config.warmup_iter_number
    with torch.no_grad():
        reference = _evaluate(task.data, config)
    with torch.enable_grad():
        play(game, episodes, warmup, reward_scale(reference))
    assert game.best is not None
    _log.info("AutoQ's best of %d episodes scores %.4g; without quantizers %.4g", episodes, game.best[0], reference)
    assign(game.best[1])
    return tuple(bits)


def _decided(space: SearchSpace, quantizers: Sequence[Quantizer]) -> list[list[int]]:
    """Return the positions of each quantizer with a choice, along the data flow."""
    groups: dict[int, list[int]] = {}
    for index, quantizer in enumerate(quantizers):
        if len(space.bits(index)) > 1:
            groups.setdefault(id(quantizer), []).append(index)
    return list(groups.values())


def _decision(
    space: SearchSpace, points: Sequence[QuantizationPoint], sizes: Mapping[int, int], group: Sequence[int]
) -> Decision:
    """Describe a quantizer: what it is, its channels, kernel, size and work."""
    index = group[0]
    point = points[index]
    shape = (*point.shape, 1, 1)
    is_weight = space.is_weight(index)
    features = (
        float(is_weight),
        float(is_weight and shape[1] == 1),
        math.log1p(shape[0] if is_weight else 0),
        math.log1p(shape[1]),
        math.log1p(math.prod(shape[2:])),
        math.log1p(math.prod(point.shape[0 if is_weight else 1 :])),
        math.log1p(space.flops[index]),
        float(index),
    )
    return Decision(bits=space.bits(index), features=features, size=sizes.get(index, 0))


def _evaluate(data: CalibrationData, config: PrecisionConfig) -> float:
    """Return the score of the network as it is, the same in all processes."""
    assert data.evaluate is not None
    with torch.no_grad():
        score = float(data.evaluate(config.eval_subset_ratio, config.metric))
    if data.reduce is not None:
        both = data.reduce(torch.tensor([score, 1.0], dtype=torch.float64), "sum")
        score = float(both[0] / both[1])
    if not math.isfinite(score):
        raise InitializationError(
            f"AutoQ got the validation score {score}; look for NaN or infinite values, or choose another metric with "
            "`initializer.precision.metric`"
        )
    return score


def _require_reachable(game: PrecisionGame, config: PrecisionConfig) -> None:
    target = _RATIO if config.compression_ratio is None else config.compression_ratio
    if game.smallest > target:
        raise ConfigError(
            f"`initializer.precision.compression_ratio` must be at least {game.smallest:.4g} with these `bits` and "
            f"this network, got {target:.4g}; `autoq` takes it as the size of the weights over their size in 32 bits"
        )


@contextmanager
def _acting(quantizers: Sequence[Quantizer]) -> Iterator[None]:
    for quantizer in quantizers:
        quantizer.enabled = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.enabled = False


@contextmanager
def _same_statistics(network: nn.Module) -> Iterator[None]:
    """Restore the statistics of batch norms in the end."""
    norms = [module for module in network.modules() if isinstance(module, _NormBase)]
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)
