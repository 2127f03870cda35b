"""What the configurations of all algorithms have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from pydantic import Field

from lightning_nncf.config.base import Scopes, StrictModel
from lightning_nncf.config.problems import Problem

__all__ = ["AlgorithmConfig", "BatchNormAdaptationConfig", "RootSettings"]


class RootSettings(Protocol):
    """What a section may ask of the root of its configuration."""

    @property
    def compression(self) -> tuple[AlgorithmConfig, ...]:
        """All sections, in the order given."""

    @property
    def target_device(self) -> str:
        """Hardware that will run the model."""


class BatchNormAdaptationConfig(StrictModel):
    """How the statistics of batch normalization are recomputed once the network is compressed."""

    num_bn_adaptation_samples: int = Field(2000, ge=0)
    """Samples of the training data to run through the network; 0 leaves the statistics as they are."""


class AlgorithmConfig(StrictModel):
    """Base of every algorithm's configuration; a subclass fixes ``algorithm`` to its name."""

    algorithm: str
    """Name of the algorithm."""

    ignored_scopes: Scopes = ()
    """Where not to apply the algorithm: addresses, module paths, or `{re}` and a regular expression, relative to the
    network (`layer1` and not `model.layer1` where `model` is the network)."""

    target_scopes: Scopes | None = None
    """Where to apply it, and nowhere else, relative to the network; absent means everywhere."""

    validate_scopes: bool = True
    """Whether a scope that matches nothing in the network is an error."""

    compression_lr_multiplier: float | None = Field(None, ge=0)
    """Factor on the gradients of the parameters this algorithm adds; overrides the root's."""

    def __init__(self, /, **values: Any) -> None:
        super().__init__(**values)
        # A section without its name cannot be read back, so it counts as set even when it came from the default.
        self.model_fields_set.add("algorithm")

    def problems_in(self, root: RootSettings) -> Iterable[Problem]:
        """Yield what is wrong with this section given the settings at the root, paths relative to the root."""
        return ()
