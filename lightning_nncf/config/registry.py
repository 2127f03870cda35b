"""Which configuration model belongs to which value of ``algorithm``."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from lightning_nncf.config.algorithm import AlgorithmConfig
from lightning_nncf.errors import ConfigError, near

__all__ = ["ENTRY_POINT_GROUP", "algorithm_config", "algorithm_names", "register_algorithm_config"]

ENTRY_POINT_GROUP = "lightning_nncf.algorithms"
"""Entry points of this group are modules that register their algorithm when imported."""

NOT_YET_BUILT = frozenset({"experimental_quantization"})
"""Algorithms of NNCF that a configuration may name, but that this version does not have."""

Config = TypeVar("Config", bound=AlgorithmConfig)

_registered: dict[str, type[AlgorithmConfig]] = {}


def register_algorithm_config(name: str, cls: type[Config]) -> type[Config]:
    """Make an algorithm's configuration known under its name.

    Args:
        name: Value of the key ``algorithm``.
        cls: Its configuration model.

    Returns:
        ``cls``, unchanged.

    Raises:
        ConfigError: If another class has the name already.
    """
    present = _registered.setdefault(name, cls)
    if present is not cls:
        raise ConfigError(
            f"algorithm {name!r} is already registered with {present.__module__}.{present.__qualname__}, "
            f"so {cls.__module__}.{cls.__qualname__} cannot take the name"
        )
    return cls


def algorithm_config(name: str) -> type[AlgorithmConfig]:
    """Find the configuration model of an algorithm, importing the package that registers it when needed.

    Raises:
        ConfigError: If no such algorithm exists, it is one of NNCF's that this version lacks, or its package fails.
    """
    if name not in _registered:
        _import_own()
    if name not in _registered:
        for entry in _entries(name):
            _load(entry)
    if name in _registered:
        return _registered[name]
    known = algorithm_names()
    if name in NOT_YET_BUILT:
        raise ConfigError(
            f"names {name!r}, an algorithm of NNCF that this version of lightning_nncf does not have; "
            f"available: {', '.join(map(repr, known))}"
        )
    hint = near(name, known)
    raise ConfigError(f"must name an algorithm, got {name!r}{'; ' + hint if hint else ''}")


def algorithm_names() -> list[str]:
    """List every algorithm that can be named, without importing other packages."""
    _import_own()
    return sorted({*_registered, *(entry.name for entry in _entries())})


def _load(entry: EntryPoint) -> None:
    try:
        entry.load()
    except Exception as error:
        raise ConfigError(
            f"names {entry.name!r}, but the package that provides it cannot be imported ({entry.value}): {error}"
        ) from error


def _entries(name: str | None = None) -> list[EntryPoint]:
    return [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if name in (None, entry.name)]


def _import_own() -> None:
    """Import each folder in ``lightning_nncf.algorithms``; importing it registers its algorithms."""
    package = importlib.import_module("lightning_nncf.algorithms")
    for folder in pkgutil.iter_modules(package.__path__):
        if folder.ispkg:
            importlib.import_module(f"{package.__name__}.{folder.name}")
