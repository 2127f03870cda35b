"""Distillation: a loss of the network's outputs, and of tensors inside it, against those of a teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_nncf.algorithms.distillation.config import DistillationConfig
from lightning_nncf.algorithms.distillation.features import FeatureTap
from lightning_nncf.algorithms.distillation.functional import distillation_mse, soft_cross_entropy
from lightning_nncf.algorithms.distillation.outputs import paired
from lightning_nncf.algorithms.distillation.pairs import FeaturePair, check_outputs, find_pairs, teacher_graph
from lightning_nncf.algorithms.distillation.teacher import Teacher, digest_of, make_teacher
from lightning_nncf.algorithms.distillation.watch import CallHooks
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.algorithm import Algorithm
from lightning_nncf.core.registry import register
from lightning_nncf.errors import ConfigError
from lightning_nncf.graph.graph import NetworkGraph
from lightning_nncf.hooks.insertion import insert

__all__ = ["Distillation"]

_LAST = 12
"""Taps see what the network computes with: they come behind quantizers."""


@register(DistillationConfig)
class Distillation(Algorithm):
    """Lets the network learn what its teacher says.

    The teacher runs before each call of the network that gradients may go back through, on the same inputs and in the
    same precision context, without gradients. It is in no state dict and no checkpoint: after a restart it is made
    again from where it came.

    Args:
        config: Settings.
        root: The whole configuration.
    """

    name: ClassVar[str] = "knowledge_distillation"
    priority: ClassVar[int] = 0
    """Before all others: the teacher is a copy of the plain network."""

    config: DistillationConfig

    def __init__(self, config: DistillationConfig, root: NNCFConfig) -> None:
        super().__init__(config, root)
        self.teacher: Teacher | None = None
        self.pairs: list[FeaturePair] = []
        self.taps: list[tuple[FeatureTap, FeatureTap]] = []
        """For each pair what sees the tensor in the network, and what sees it in the teacher."""
        self._origin: dict[str, str] = {}
        self._network: nn.Module | None = None
        self._plain: nn.Module | None = None
        self._answer: Any = None
        self._pending: list[Tensor] = []
        self._stepped = False
        self._hooks = CallHooks(self._ask, self._compare)

    def build(self, network: nn.Module, graph: NetworkGraph) -> None:
        """Make the teacher, check that it fits, and watch the tensors that are to be alike.

        Raises:
            ConfigError: The network is never called itself, or its teacher has other outputs or features.
            CheckpointError: The teacher's weights cannot be read.
        """
        if graph.example_inputs is None:
            raise ConfigError(
                f"`knowledge_distillation` compares what {type(network).__name__} returns, but it is never called "
                "itself, only its parts; name the part to compress with `network=...`"
            )
        teacher = make_teacher(network, self.config.teacher)
        self._origin = digest_of(network) if self._is_own else {}
        check_outputs(network, teacher, self.config, graph.example_inputs)
        if self.config.features:
            graphs = graph, graph if self._is_own_class else teacher_graph(teacher, graph.example_inputs)
            self.pairs = find_pairs(network, teacher, graphs, self.config.features)
        self._set_up(network, teacher)

    def restore(self, network: nn.Module, structure: Mapping[str, Any]) -> None:
        """Make the teacher again, if the plain network is still there to copy, and watch the same tensors."""
        self._origin = dict(structure["origin"])
        self.pairs = [FeaturePair.from_dict(values) for values in structure["pairs"]]
        same = not self._origin or digest_of(network, self._origin["dtype"]) == self._origin
        if self._is_own_class and not self._is_own:
            self._plain = copy.deepcopy(network)
        self._set_up(network, make_teacher(network, self.config.teacher) if self._is_own and same else None)

    def structure(self) -> dict[str, Any]:
        """Return where taps are, and by what the weights of the teacher are recognised."""
        return {"origin": self._origin, "pairs": [pair.to_dict() for pair in self.pairs]}

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Begin to watch the network; training begins.

        Raises:
            ConfigError: The teacher was the network before compression, and that is not there any more.
            CheckpointError: The teacher's weights cannot be read.
        """
        assert self._network is not None
        if self.teacher is None and not self._is_own:
            # Only now: where nobody trains, the files of the teacher need not be there.
            self._teach(make_teacher(self._network if self._plain is None else self._plain, self.config.teacher))
            self._plain = None
        if self.teacher is None:
            raise ConfigError(
                "`knowledge_distillation.teacher` is the network as it was before compression, but the module that "
                "goes on from the checkpoint came with other weights. Load the same weights into the module before "
                "`fit`, as at the beginning, or name their file in `teacher.checkpoint`"
            )
        self.teacher.settle(self._network)
        self._pending, self._stepped = [], False
        self._hooks.attach(self._network)

    def after_optimizer_step(self) -> None:
        """Take note that what nobody has taken belongs to an earlier step."""
        self._stepped = True

    def loss(self) -> Tensor | None:
        """Return the mean loss of the calls since it was last taken, shape [], or nothing if there was none."""
        pending, self._pending = self._pending, []
        return torch.stack(pending).mean() if pending else None

    def strip(self, network: nn.Module) -> None:
        """Stop watching the network."""
        self._hooks.remove(network)

    def summary(self) -> list[str]:
        """Say who teaches what."""
        teacher = self.config.teacher
        who = teacher.class_path or "the network before compression"
        weights = f" with the weights of {teacher.checkpoint}" if teacher.checkpoint else ""
        inside = f", and {len(self.pairs)} tensors inside" if self.pairs else ""
        return [f"Distillation ({self.config.type}) of outputs{inside} from {who}{weights}"]

    @property
    def _is_own(self) -> bool:
        """Whether the teacher is the network itself, as it was."""
        return self._is_own_class and self.config.teacher.checkpoint is None

    @property
    def _is_own_class(self) -> bool:
        return self.config.teacher.class_path is None

    def _set_up(self, network: nn.Module, teacher: nn.Module | None) -> None:
        """Insert taps into the network; those of the teacher come with it."""
        self._network = network
        device = next(network.parameters()).device
        for index, pair in enumerate(self.pairs):
            tap = FeatureTap(pair.shape, pair.out if pair.projection else None, index, self.lr_multiplier).to(device)
            for site in pair.student:
                insert(network, site, tap, algorithm=self.name, priority=_LAST)
            self.taps.append((tap, FeatureTap(pair.shape)))
        if teacher is not None:
            self._teach(teacher)

    def _teach(self, teacher: nn.Module) -> None:
        for pair, (_, tap) in zip(self.pairs, self.taps, strict=True):
            for site in pair.teacher:
                insert(teacher, site, tap, algorithm=self.name, priority=_LAST)
        self.teacher = Teacher(teacher, self.config.teacher)

    def _ask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Let the teacher answer before the network does, which may write into its inputs."""
        assert self.teacher is not None
        if self._stepped:
            self._pending, self._stepped = [], False
        for mine, other in self.taps:
            mine.seen.wanted = other.seen.wanted = True
        self._answer = self.teacher(args, kwargs)

    def _compare(self, result: Any) -> None:
        """Keep the loss of one call."""
        answer, self._answer = self._answer, None
        config = self.config
        losses = [
            config.scale
            * (
                soft_cross_entropy(mine, other, config.temperature)
                if config.type == "softmax"
                else distillation_mse(mine, other)
            )
            for mine, other in paired(result, answer, config.type)
        ]
        for (tap, tap_of_teacher), feature in zip(self.taps, config.features, strict=True):
            mine, other = tap.seen.take(), tap_of_teacher.seen.take()
            tap.seen.wanted = tap_of_teacher.seen.wanted = False
            if mine is not None and other is not None:
                losses.append(feature.scale * distillation_mse(*tap.compared(mine, other)))
        self._pending.append(torch.stack(losses).sum())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a step; a copy watches its network when it is attached."""
        return {**self.__dict__, "_pending": [], "_answer": None, "_hooks": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Watch nothing yet."""
        self.__dict__.update(state)
        self._hooks = CallHooks(self._ask, self._compare)
