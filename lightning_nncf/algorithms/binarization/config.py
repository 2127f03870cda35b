"""Configuration of binarization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lightning_nncf.config.algorithm import AlgorithmConfig
from lightning_nncf.config.registry import register_algorithm_config
from lightning_nncf.config.staged import StagedConfig

__all__ = ["BinarizationConfig"]


class BinarizationConfig(AlgorithmConfig):
    """Binary weights and activations of 2d convolutions.

    >>> BinarizationConfig().params.weights_quant_start_epoch
    1
    """

    algorithm: Literal["binarization"] = "binarization"
    """Name of the algorithm."""

    mode: Literal["xnor", "dorefa"] = "xnor"
    """`xnor` scales the weights of each output channel, `dorefa` those of a layer together."""

    initializer: Mapping[str, Any] | None = None
    """Accepted for configurations of NNCF; without effect."""

    params: StagedConfig = StagedConfig()
    """From which epochs activations and weights are binary, and what learning rate and weight decay do."""


register_algorithm_config("binarization", BinarizationConfig)
