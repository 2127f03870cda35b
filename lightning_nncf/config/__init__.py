"""Configuration: models that check themselves, reading of JSON and YAML, JSON Schema.

Algorithms derive their section from `AlgorithmConfig`; all others take a checked `NNCFConfig`. Nothing here knows a
network or a tensor, and no algorithm's own keys are listed here.
"""

from __future__ import annotations

from lightning_nncf.config.algorithm import AlgorithmConfig, BatchNormAdaptationConfig, RootSettings
from lightning_nncf.config.base import StrictModel
from lightning_nncf.config.registry import algorithm_config, algorithm_names, register_algorithm_config
from lightning_nncf.config.root import InputInfo, NNCFConfig
from lightning_nncf.config.schema import json_schema

__all__ = [
    "AlgorithmConfig",
    "BatchNormAdaptationConfig",
    "InputInfo",
    "NNCFConfig",
    "RootSettings",
    "StrictModel",
    "algorithm_config",
    "algorithm_names",
    "json_schema",
    "register_algorithm_config",
]
