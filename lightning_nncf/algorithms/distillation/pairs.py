"""Whether a teacher fits a network, and which tensors inside both belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_nncf.algorithms.distillation.config import DistillationConfig, FeatureConfig
from lightning_nncf.algorithms.distillation.features import channel_axis
from lightning_nncf.algorithms.distillation.outputs import paired
from lightning_nncf.capture.preserve import preserved
from lightning_nncf.capture.trace import trace
from lightning_nncf.core.inputs import Arguments
from lightning_nncf.errors import CaptureError, ConfigError, HookError
from lightning_nncf.graph.graph import InsertionPoint, NetworkGraph
from lightning_nncf.hooks.hook_site import HookSite
from lightning_nncf.hooks.sites import sites

__all__ = ["FeaturePair", "check_outputs", "find_pairs", "teacher_graph"]


@dataclass(frozen=True, kw_only=True)
class FeaturePair:
    """One tensor in the network and one in the teacher that are to be alike.

    Args:
        student: Where it is in the network.
        teacher: Where it is in the teacher.
        shape: Its shape in the network, samples first.
        out: Its channels in the teacher.
        projection: Whether channels are mapped.
    """

    student: tuple[HookSite, ...]
    teacher: tuple[HookSite, ...]
    shape: tuple[int, ...]
    out: int
    projection: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {
            "student": [site.to_dict() for site in self.student],
            "teacher": [site.to_dict() for site in self.teacher],
            "shape": list(self.shape),
            "out": self.out,
            "projection": self.projection,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeaturePair:
        """Rebuild a pair from `to_dict`."""
        return cls(
            student=tuple(HookSite.from_dict(site) for site in values["student"]),
            teacher=tuple(HookSite.from_dict(site) for site in values["teacher"]),
            shape=tuple(values["shape"]),
            out=int(values["out"]),
            projection=bool(values["projection"]),
        )


def check_outputs(network: nn.Module, teacher: nn.Module, config: DistillationConfig, inputs: Arguments) -> None:
    """Run a network and its teacher once, as they will run in training, and compare what they return.

    Raises:
        ConfigError: The teacher cannot be run on the network's inputs, or returns something else.
    """
    args, kwargs = inputs
    first = next(network.parameters())
    teacher.to(first.device)
    if first.is_floating_point():
        teacher.to(first.dtype)
    with preserved(network), preserved(teacher), torch.no_grad():
        network.train()
        teacher.train(config.teacher.mode == "train")
        try:
            mine = network(*args, **kwargs)
        except ValueError:  # a batch of one sample is too small for norms to train on
            network.eval()
            teacher.eval()
            mine = network(*args, **kwargs)
        try:
            other = teacher(*args, **kwargs)
        except Exception as error:
            raise ConfigError(
                f"`knowledge_distillation.teacher`: {type(teacher).__name__} cannot be run on what the network is "
                f"called with: {error}"
            ) from error
    paired(mine, other, config.type, learns=False)


def teacher_graph(teacher: nn.Module, inputs: Arguments) -> NetworkGraph:
    """Capture the graph of a teacher of another class.

    Raises:
        ConfigError: It cannot be captured.
    """
    args, kwargs = inputs
    try:
        return trace(teacher, lambda: teacher(*args, **kwargs), modes=("eval",))
    except CaptureError as error:
        raise ConfigError(f"`knowledge_distillation.features`: the teacher cannot be captured: {error}") from error


def find_pairs(
    network: nn.Module,
    teacher: nn.Module,
    graphs: tuple[NetworkGraph, NetworkGraph],
    features: Sequence[FeatureConfig],
) -> list[FeaturePair]:
    """Find the tensors that a configuration names.

    Args:
        network: The network.
        teacher: The teacher.
        graphs: Their graphs.
        features: The addresses.

    Raises:
        ConfigError: There is no such tensor, or two cannot be compared.
    """
    pairs = []
    for index, feature in enumerate(features):
        key = f"`knowledge_distillation.features[{index}]`"
        named = feature.teacher or feature.student
        mine, shape = _located(network, graphs[0], feature.student, f"{key}.student")
        other, shape_of_teacher = _located(teacher, graphs[1], named, f"{key}.teacher")
        axis = channel_axis(len(shape))
        if len(shape) < 2 or len(shape) != len(shape_of_teacher):
            raise ConfigError(f"{key}: {list(shape)} cannot be compared with {list(shape_of_teacher)} of the teacher")
        free = {0, axis} if feature.projection else {0}
        if any(a != b for each, (a, b) in enumerate(zip(shape, shape_of_teacher, strict=True)) if each not in free):
            hint = "" if feature.projection else "; `projection: true` maps channels"
            raise ConfigError(f"{key}: {list(shape)} is not the teacher's {list(shape_of_teacher)}{hint}")
        pairs.append(
            FeaturePair(
                student=mine, teacher=other, shape=shape, out=shape_of_teacher[axis], projection=feature.projection
            )
        )
    return pairs


def _located(
    network: nn.Module, graph: NetworkGraph, address: str, key: str
) -> tuple[tuple[HookSite, ...], tuple[int, ...]]:
    name, _, port = address.partition("#")
    try:
        point = InsertionPoint(kind="output", address=name, port=int(port or 0))
        found = sites(graph, network, point)
    except (HookError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error
    if not found:
        raise ConfigError(f"{key}: no hook reaches the output of {address!r}; take another operation")
    return found, tuple(graph[name].outputs[point.port].shape)
