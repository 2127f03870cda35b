"""Algorithms by the name that a configuration gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lightning_nncf.config import NNCFConfig
from lightning_nncf.config.registry import register_algorithm_config
from lightning_nncf.core.algorithm import Algorithm

__all__ = ["create_algorithms", "register"]

AlgorithmT = TypeVar("AlgorithmT", bound=Algorithm)
_ALGORITHMS: dict[str, type[Algorithm]] = {}


def register(config_class: type[Any]) -> Callable[[type[AlgorithmT]], type[AlgorithmT]]:
    """Make an algorithm known under its ``name``, together with the model of its configuration.

    Other packages register theirs in a module named by the entry-point group ``lightning_nncf.algorithms``.

    Args:
        config_class: Model of the algorithm's section in a configuration.

    Raises:
        ValueError: Another class already has this name.
    """

    def decorate(algorithm: type[AlgorithmT]) -> type[AlgorithmT]:
        known = _ALGORITHMS.get(algorithm.name)
        if known is not None and known is not algorithm:
            raise ValueError(
                f"algorithm {algorithm.name!r} is already registered by {known.__module__}.{known.__name__}"
            )
        register_algorithm_config(algorithm.name, config_class)
        _ALGORITHMS[algorithm.name] = algorithm
        return algorithm

    return decorate


def create_algorithms(config: NNCFConfig) -> list[Algorithm]:
    """Create the algorithms of a configuration in the order of their priority."""
    algorithms = [_ALGORITHMS[section.algorithm](section, config) for section in config.compression]
    return sorted(algorithms, key=lambda algorithm: algorithm.priority)
