"""Finding the layer where a runtime leaves torch's values."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.export.compare import relative_rms
from lightning_nncf.export.formats import OPENVINO_DOMAIN, QUANTIZED
from lightning_nncf.export.lowering import label
from lightning_nncf.export.onnx_graph import attribute
from lightning_nncf.export.runtimes import RuntimeModel
from lightning_nncf.export.writing import read_model

__all__ = ["Divergence", "find_divergence", "record_quantizers"]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Where a runtime leaves the reference.

    Args:
        layer: Address of the first quantizer whose output is beyond the tolerance, None if all are within it and only
            what follows the last one differs.
        relative_rms: Its difference.
        before: The largest difference of all quantizers ahead of it.
    """

    layer: str | None
    relative_rms: float
    before: float

    def __str__(self) -> str:
        """Write a sentence for an error message."""
        if self.layer is None:
            return (
                f"every quantizer agrees (relative RMS up to {self.before:.2g}): the layers after the last one differ"
            )
        return (
            f"the first diverging layer is {self.layer!r} (relative RMS {self.relative_rms:.2g}, "
            f"{self.before:.2g} before it)"
        )


def record_quantizers(network: nn.Module) -> tuple[dict[str, Tensor], list[torch.utils.hooks.RemovableHandle]]:
    """Record the output of every quantizer during the next pass; the network must be a copy.

    Returns:
        Outputs by label, in the order of the calls, filled by the pass; and the handles that end the recording.
    """
    found: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    handles = []
    for address, module in network.named_modules():
        if isinstance(module, Quantizer) and module.enabled:

            def record(_: nn.Module, __: object, output: Tensor, *, address: str = address) -> None:
                found[label(address, calls.get(address, 0))] = output.detach()
                calls[address] = calls.get(address, 0) + 1

            handles.append(module.register_forward_hook(record))
    return found, handles


def find_divergence(
    runtime: type[RuntimeModel],
    path: Path,
    tensors: Sequence[Tensor],
    reference: Mapping[str, Tensor],
    tolerance: float,
    threads: int | None,
) -> Divergence:
    """Compare every activation quantizer of a file with torch, in the order of the calls.

    Args:
        runtime: Runtime in which the file differs.
        path: The file.
        tensors: Flat inputs.
        reference: Torch's outputs by label.
        tolerance: Largest relative root mean square.
        threads: Threads of the runtime.
    """
    with tempfile.TemporaryDirectory() as folder:
        watched = Path(folder) / "watched.onnx"
        model = read_model(path)
        names = _watch(model)
        onnx.save(model, watched)
        loaded = runtime(watched, threads=threads)
        outputs = dict(zip(loaded.output_names, loaded.run(tensors), strict=True))
    before = 0.0
    for name, expected in reference.items():
        if name not in names:
            continue
        difference = relative_rms(names[name].values(outputs), expected)
        if difference > tolerance:
            return Divergence(layer=name, relative_rms=difference, before=before)
        before = max(before, difference)
    return Divergence(layer=None, relative_rms=0.0, before=before)


@dataclass(frozen=True, kw_only=True)
class _Watched:
    """A tensor of the file and how its integers become values; float tensors have no scale."""

    tensor: str
    scale: Tensor | None = None
    zero_point: Tensor | None = None
    axis: int = 1

    def values(self, outputs: Mapping[str, Tensor]) -> Tensor:
        values = outputs[self.tensor].double()
        if self.scale is None or self.zero_point is None:
            return values
        shape = [1] * values.ndim
        if self.scale.ndim:
            shape[self.axis] = -1
        return (values - self.zero_point.double().reshape(shape)) * self.scale.double().reshape(shape)


def _watch(model: onnx.ModelProto) -> dict[str, _Watched]:
    """Make the quantized activations outputs of the model; return them by label."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    present = {item.name for item in model.graph.output}
    watched: dict[str, _Watched] = {}
    for node in model.graph.node:
        name = node.output[0]
        if node.op_type == "QuantizeLinear" and name.endswith(QUANTIZED):
            scale, zero_point = (
                torch.from_numpy(numpy_helper.to_array(constants[source]).copy()) for source in node.input[1:3]
            )
            watched[name.removesuffix(QUANTIZED)] = _Watched(
                tensor=name, scale=scale, zero_point=zero_point, axis=attribute(node, "axis", 1)
            )
            element = TensorProto.UINT8
        elif node.domain == OPENVINO_DOMAIN and node.input[0] not in constants:
            watched[node.name.removesuffix("/FakeQuantize")] = _Watched(tensor=name)
            element = TensorProto.FLOAT
        else:
            continue
        if name not in present:
            model.graph.output.append(helper.make_tensor_value_info(name, element, None))
    return watched
