"""What PyTorch says to every call of a proof, and how surely."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.export.preparation import FlatNetwork, cpu_copy, cpu_inputs
from lightning_nncf.export.structure import flatten
from lightning_nncf.hooks.insertion import strip
from lightning_nncf.proof.compare import Difference, compare
from lightning_nncf.proof.detections import detections_in
from lightning_nncf.proof.disturbance import Disturbance
from lightning_nncf.proof.sizes import few, other_sizes

__all__ = ["Case", "TorchSide"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call.

    Args:
        label: What is other than in the example; empty for the example.
        tensors: Flat inputs.
        expected: Flat outputs of PyTorch.
    """

    label: str
    tensors: list[Tensor]
    expected: list[Tensor]


class TorchSide:
    """PyTorch's side of a proof.

    Args:
        network: The network; a copy of it is run on the CPU, in float32 and eval mode.
        inputs: The example call ``(args, kwargs)``.
        graph_inputs: Inputs of the file.
        exported: The network as it was exported, where it is another one.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: tuple[Sequence[Any], Mapping[str, Any]],
        graph_inputs: Sequence[onnx.ValueInfoProto],
        exported: nn.Module | None = None,
    ) -> None:
        tensors, self._structure = flatten(cpu_inputs(inputs), "input")
        self._original = network
        self._network = FlatNetwork(cpu_copy(network), self._structure)
        self.exported = self._network if exported is None else FlatNetwork(cpu_copy(exported), self._structure)
        self._sensitivity: dict[str, Difference] = {}
        self._plain: list[Tensor] | None = None
        self.cases = [Case(label="", tensors=tensors, expected=_call(self._network, tensors))]
        self.detections = detections_in(self._network.structure)
        self.refused: list[str] = []
        for label, others, required in other_sizes(tensors, graph_inputs):
            try:
                expected = _call(self._network, others)
            except Exception:
                # Not every network takes every size: lengths have borders that only it knows.
                if required:
                    self.refused.append(label)
                continue
            self.cases.append(Case(label=label, tensors=others, expected=expected))
        small = few(tensors, graph_inputs)
        self.small = Case(label="small", tensors=small, expected=_call(self._network, small))

    @property
    def notes(self) -> tuple[str, ...]:
        """What one should know of the calls."""
        if not self.refused:
            return ()
        return (f"not tried at {', '.join(self.refused)}: the network itself refuses them",)

    def compare(self, outputs: Sequence[Tensor], case: Case) -> Difference:
        """Compare a runtime's outputs with PyTorch's."""
        return compare(outputs, case.expected, self.detections)

    def sensitivity(self, case: Case) -> Difference:
        """Return how far the outputs move when the values around quantizers do, as between two ways to compute them."""
        if case.label not in self._sensitivity:
            self._sensitivity[case.label] = compare(self._disturbed(case.tensors), case.expected, self.detections)
        return self._sensitivity[case.label]

    def plain_difference(self, outputs: Sequence[Tensor]) -> Difference:
        """Compare outputs of the float file for the small call with those of the network without compression."""
        if self._plain is None:
            plain = copy.deepcopy(self._original)
            strip(plain)
            self._plain = _call(FlatNetwork(cpu_copy(plain), self._structure), self.small.tensors)
        return compare(outputs, self._plain, self.detections)

    def _disturbed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        disturbance = Disturbance()

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (disturbance.disturbed(args[0]), *args[1:]) if args else args

        def after(_: nn.Module, __: object, output: Tensor) -> Tensor:
            return disturbance.disturbed(output)

        quantizers = [module for module in self._network.modules() if isinstance(module, Quantizer) and module.enabled]
        handles = [quantizer.register_forward_pre_hook(before) for quantizer in quantizers]
        handles += [quantizer.register_forward_hook(after) for quantizer in quantizers]
        try:
            with disturbance:
                return _call(self._network, tensors)
        finally:
            for handle in handles:
                handle.remove()


def _call(network: FlatNetwork, tensors: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return list(network(*tensors))
