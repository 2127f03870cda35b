"""Configuration of distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from lightning_nncf.config.algorithm import AlgorithmConfig
from lightning_nncf.config.base import StrictModel, as_tuple
from lightning_nncf.config.problems import ConfigProblemsError, Problem
from lightning_nncf.config.registry import register_algorithm_config

__all__ = ["DistillationConfig", "FeatureConfig", "TeacherConfig"]


class TeacherConfig(StrictModel):
    """Which network teaches; without any key it is the network as it was before compression."""

    checkpoint: str | None = None
    """Checkpoint or state dict with the weights of the teacher, saved without compression."""

    class_path: str | None = None
    """Import path of the teacher's class, a LightningModule or any module; absent means the network's own."""

    init_args: Mapping[str, Any] = {}
    """Arguments of that class."""

    network: str | None = None
    """Path of the teacher's network in its module; an empty string is the module itself. Absent means the module's only
    child with parameters, else the module itself."""

    mode: Literal["eval", "train"] = "eval"
    """Mode in which it runs. In `train`, as in NNCF, its dropout and batch norms act as in training; networks that
    return something else in training need it."""

    dtype: Literal["bfloat16"] | None = None
    """Type that its weights are converted to; absent leaves them in the type of the network."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        own = self.class_path is None
        wrong = [key for key in ("init_args", "network") if own and key in self.model_fields_set]
        if wrong:
            text = "belongs to a teacher of its own class, but there is no `class_path`"
            raise ConfigProblemsError([Problem((key,), text) for key in wrong])
        return self


class FeatureConfig(StrictModel):
    """One tensor inside the network that is to be as it is in the teacher."""

    student: str
    """Address of the operation in the network whose output it is, as in `layer1.0.conv1/conv2d:0`."""

    teacher: str | None = None
    """Address in the teacher; absent means the same."""

    projection: bool = False
    """Whether a learned 1x1 projection maps the channels of the network to those of the teacher, for the loss alone."""

    scale: float = Field(1.0, ge=0)
    """Factor on its mean squared error."""


class DistillationConfig(AlgorithmConfig):
    """Loss of the network's outputs against those of a teacher.

    >>> DistillationConfig(type="softmax").temperature
    1.0
    """

    algorithm: Literal["knowledge_distillation"] = "knowledge_distillation"
    """Name of the algorithm."""

    type: Literal["mse", "softmax"]
    """`softmax` is the cross entropy of the classes' probabilities, for outputs of shape [samples, classes]; `mse` the
    mean squared error of outputs with at least two dimensions. Other outputs are left out."""

    scale: float = Field(1.0, ge=0)
    """Factor on the loss of the outputs."""

    temperature: float = Field(1.0, gt=0)
    """What both networks' logits are divided by before the softmax; the loss is multiplied by its square."""

    teacher: TeacherConfig = TeacherConfig()
    """The teacher."""

    features: Annotated[
        tuple[FeatureConfig, ...],
        BeforeValidator(as_tuple, json_schema_input_type=FeatureConfig | list[FeatureConfig]),
    ] = ()
    """Tensors inside the network that are to be as in the teacher."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [feature.student for feature in self.features]
        twice = [index for index, name in enumerate(names) if name in names[:index]]
        if twice:
            text = f"repeats {names[twice[0]]!r}; each address is given at most once"
            raise ConfigProblemsError([Problem(("features", twice[0], "student"), text)])
        return self


register_algorithm_config("knowledge_distillation", DistillationConfig)
