"""Comparing a runtime with torch layer by layer, each layer on the same inputs.

A deep network, an untrained one above all, turns one integer that fell to the other side of a rounding border into a
large difference at its end. So torch is given the runtime's own values after every quantizer: what then differs at the
next quantizer was made by the layers between the two, and a wrong kernel cannot hide behind, nor blame, the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.export.formats import OPENVINO_DOMAIN, QUANTIZED
from lightning_nncf.export.lowering import label
from lightning_nncf.export.onnx_graph import attribute
from lightning_nncf.export.preparation import FlatNetwork
from lightning_nncf.proof.compare import Tolerance, compare
from lightning_nncf.proof.disturbance import Disturbance

__all__ = ["LayerCheck", "Watch", "check_layers", "watch_layers"]

_NOISE_FACTOR = 3.0


@dataclass(frozen=True, kw_only=True)
class LayerCheck:
    """Agreement of the layers of a file, each on the same inputs.

    Args:
        layers: How many quantizers were compared.
        first: Address of the first quantizer beyond the tolerance, None if there is none.
        steps: Root mean square of its difference in quantization steps, of the worst one if all are within.
        before: The same for the worst quantizer ahead of it.
        output: Relative root mean square of what follows the last quantizers.
        disturbed: How far torch moves from itself there when its values change in the last bits; only looked at where
            something differs.
        same_layers: Whether the file ran on the same integer layers as without being watched.
        passed: Whether all this is tolerable.
    """

    layers: int
    first: str | None
    steps: float
    before: float
    output: float
    disturbed: float
    same_layers: bool
    passed: bool

    def broken(self, tolerance: Tolerance) -> bool:
        """Whether some layer, or what follows the last quantizers, is beyond the tolerance."""
        return self.first is not None or not _tolerable(self.output, self.disturbed, tolerance)

    def amplifies(self, tolerance: Tolerance) -> bool:
        """Whether what follows the last quantizers differs, but no more than torch from itself when disturbed."""
        return not self.output <= tolerance.layer_rms and not self.broken(tolerance)

    def __str__(self) -> str:
        """Write a sentence."""
        if self.first is not None:
            return (
                f"the first diverging layer is the one before {self.first!r}: on the same inputs it is off by "
                f"{self.steps:.2g} quantization steps (RMS), layers before it by at most {self.before:.2g}"
            )
        if not self.passed and self.same_layers:
            return (
                f"all {self.layers} quantized layers agree on the same inputs (within {self.steps:.2g} steps RMS), but "
                f"the layers after the last quantizers differ by {self.output:.2g}"
            )
        if not self.passed:
            return "no layer could be blamed: with its values watched, the runtime used other kernels"
        return f"all {self.layers} quantized layers agree on the same inputs, within {self.steps:.2g} steps (RMS)"


@dataclass(frozen=True, kw_only=True)
class _Watched:
    """A tensor of the file: how its integers become values (float tensors have no zero point), and its step."""

    tensor: str
    scale: Tensor
    zero_point: Tensor | None = None
    axis: int = 1

    def step(self, rank: int) -> Tensor:
        return self._spread(self.scale, rank)

    def values(self, outputs: Mapping[str, Tensor]) -> Tensor:
        found = outputs[self.tensor].float()
        if self.zero_point is None:
            return found
        return (found - self._spread(self.zero_point, found.ndim)) * self.step(found.ndim)

    def _spread(self, parameter: Tensor, rank: int) -> Tensor:
        shape = [1] * rank
        if parameter.numel() > 1:
            shape[self.axis] = -1
        return parameter.float().reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A copy of a file that gives away its quantized activations.

    Args:
        path: The copy.
        output_names: Its outputs, the watched tensors last.
        outputs: How many outputs the file itself has.
        tensors: The watched tensors by the label of their quantizer.
    """

    path: Path
    output_names: tuple[str, ...]
    outputs: int
    tensors: Mapping[str, _Watched]


def watch_layers(model: onnx.ModelProto, path: Path) -> Watch | None:
    """Write a copy of a file that gives away its quantized activations; none if there are none.

    Args:
        model: The file.
        path: Where the copy goes.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = _watch(copied)
    if not tensors:
        return None
    onnx.save(copied, path)
    names = tuple(item.name for item in copied.graph.output)
    return Watch(path=path, output_names=names, outputs=len(model.graph.output), tensors=tensors)


def check_layers(
    watch: Watch,
    values: Sequence[Tensor],
    network: FlatNetwork,
    tensors: Sequence[Tensor],
    tolerance: Tolerance,
    *,
    same_layers: bool,
    detections: Sequence[Mapping[str, int]] = (),
) -> LayerCheck:
    """Compare every activation quantizer of a file with torch on the same inputs.

    Args:
        watch: The watched copy.
        values: Its outputs in the runtime.
        network: A copy of the network behind flat tensors, as it was exported.
        tensors: Flat inputs.
        tolerance: What differences are tolerated.
        same_layers: Whether the copy ran on the same integer layers as the file.
        detections: Outputs that are sets, see `compare`.
    """
    named = dict(zip(watch.output_names, values, strict=True))
    forced, outputs = _run_forced(network, tensors, watch.tensors, named)
    output = compare(values[: watch.outputs], outputs, detections).relative_rms
    beyond = [name for name, size in forced.items() if not size <= tolerance.layer_steps]
    disturbed = 0.0
    if beyond or not output <= tolerance.layer_rms:
        # What moves as much when the same values are computed in another order is nobody's fault.
        noise, moved = _run_forced(network, tensors, watch.tensors, named, disturbance=Disturbance())
        forced_noise = {name: abs(noise.get(name, 0.0) - size) for name, size in forced.items()}
        beyond = [name for name in beyond if not forced[name] <= _NOISE_FACTOR * forced_noise[name]]
        disturbed = compare(moved, outputs, detections).relative_rms
    first = beyond[0] if beyond else None
    names = list(forced)
    ahead = names if first is None else names[: names.index(first)]
    before = max((forced[name] for name in ahead), default=0.0)
    return LayerCheck(
        layers=len(forced),
        first=first,
        steps=before if first is None else forced[first],
        before=before,
        output=output,
        disturbed=disturbed,
        same_layers=same_layers,
        passed=bool(forced) and first is None and same_layers and _tolerable(output, disturbed, tolerance),
    )


def _tolerable(output: float, disturbed: float, tolerance: Tolerance) -> bool:
    return output <= max(tolerance.layer_rms, _NOISE_FACTOR * disturbed)


def _run_forced(
    network: FlatNetwork,
    tensors: Sequence[Tensor],
    watched: Mapping[str, _Watched],
    values: Mapping[str, Tensor],
    *,
    disturbance: Disturbance | None = None,
) -> tuple[dict[str, float], Sequence[Tensor]]:
    """Run torch with the runtime's values behind every quantizer; return differences in steps and the outputs."""
    steps: dict[str, float] = {}
    calls: dict[str, int] = {}
    handles = []
    for address, module in network.network.named_modules():
        if not isinstance(module, Quantizer) or not module.enabled:
            continue

        def force(_: nn.Module, __: object, output: Tensor, *, address: str = address) -> Tensor:
            name = label(address, calls.get(address, 0))
            calls[address] = calls.get(address, 0) + 1
            if name not in watched:
                return output
            given = watched[name].values(values)
            if given.shape != output.shape:
                steps[name] = float("inf")
                return output
            difference = (given - output) / watched[name].step(output.ndim)
            steps[name] = difference.square().mean().sqrt().item()
            return given if disturbance is None else disturbance.disturbed(given)

        handles.append(module.register_forward_hook(force))
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), disturbance or nullcontext():
            outputs = network(*tensors)
    finally:
        for handle in handles:
            handle.remove()
    return steps, outputs


def _watch(model: onnx.ModelProto) -> dict[str, _Watched]:
    """Make the quantized activations outputs of the model; return them by label."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    present = {item.name for item in model.graph.output}
    watched: dict[str, _Watched] = {}

    def constant(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(constants[name]).copy())

    for node in model.graph.node:
        name = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
        if node.op_type == "DequantizeLinear" and name.endswith(QUANTIZED):
            watched[name.removesuffix(QUANTIZED)] = _Watched(
                tensor=name,
                scale=constant(node.input[1]),
                zero_point=constant(node.input[2]),
                axis=attribute(node, "axis", 1),
            )
            element = constants[node.input[2]].data_type
        elif node.domain == OPENVINO_DOMAIN and node.input[0] not in constants:
            low, high = constant(node.input[1]), constant(node.input[2])
            axis = next((axis for axis, size in enumerate(low.shape) if size > 1), 1)
            watched[node.name.removesuffix("/FakeQuantize")] = _Watched(
                tensor=name, scale=((high - low) / (attribute(node, "levels") - 1)).flatten(), axis=axis
            )
            element = TensorProto.FLOAT
        else:
            continue
        if name not in present:
            model.graph.output.append(helper.make_tensor_value_info(name, element, None))
    return watched
