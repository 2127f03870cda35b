"""The op that stands for a quantizer while a network is exported.

Both exporters of torch write it as one node of domain ``lightning_nncf`` that names its quantizer; what the node
becomes is decided afterwards on the ONNX graph, so that no rule has to be written twice.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from lightning_nncf.algorithms.binarization.binarizers import ActivationBinarizer, WeightBinarizer
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.errors import ExportError

__all__ = [
    "DOMAIN",
    "OP_TYPE",
    "Marked",
    "calls_of",
    "is_binary",
    "mark_quantizers",
    "torchscript_symbolic",
    "translation_table",
]

Marked = Quantizer | WeightBinarizer | ActivationBinarizer
"""Modules that an export format writes in its own way; binarizers are quantizers of two levels here."""

DOMAIN = "lightning_nncf"
OP_TYPE = "Quantizer"


@torch.library.custom_op("lightning_nncf::export_marker", mutates_args=())
def _export_marker(x: Tensor, address: str, call: int) -> Tensor:
    return x.clone()


@_export_marker.register_fake
def _export_marker_fake(x: Tensor, address: str, call: int) -> Tensor:
    return torch.empty_like(x)


class _MarkedForward:
    """Replacement of a quantizer's forward: emits the marker and counts the calls of one pass."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.calls = 0
        self.met: dict[int, tuple[int, torch.dtype]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        call = self.calls
        self.calls += 1
        met = (x.ndim, x.dtype)
        if self.met.setdefault(call, met) != met:
            raise ExportError(
                f"quantizer {self.address!r} met a tensor of {met[0]} dimensions and {met[1]} in the exporter's trace, "
                f"but of {self.met[call][0]} dimensions and {self.met[call][1]} when the network runs: the trace takes "
                "another path; use exporter='dynamo'"
            )
        marked: Tensor = torch.ops.lightning_nncf.export_marker(x, self.address, call)
        return marked


def mark_quantizers(network: nn.Module) -> tuple[dict[str, Marked], Callable[[], None]]:
    """Make every enabled quantizer of a network emit a marker instead of quantizing; the network must be a copy.

    Args:
        network: The copy to export.

    Returns:
        The quantizers by address (their path among the network's modules) and a function that sets their call
        counters back, to be called at the start of each pass through the network.
    """
    quantizers: dict[str, Marked] = {}
    marked: list[_MarkedForward] = []
    for address, module in network.named_modules():
        if isinstance(module, Marked) and module.enabled:
            forward = _MarkedForward(address)
            # Set in the instance's dict: whoever holds the quantizer, registered or not, meets the new forward.
            module.__dict__["forward"] = forward
            quantizers[address] = module
            marked.append(forward)

    def restart() -> None:
        for forward in marked:
            forward.calls = 0

    return quantizers, restart


def calls_of(quantizer: Marked) -> int:
    """Return how many calls of a marked quantizer one pass makes."""
    forward = quantizer.__dict__["forward"]
    assert isinstance(forward, _MarkedForward), "set by `mark_quantizers`"
    return len(forward.met)


def is_binary(quantizer: Marked) -> bool:
    """Whether a quantizer has two levels."""
    return not isinstance(quantizer, Quantizer)


@contextmanager
def translation_table() -> Iterator[dict[Any, Callable[..., Any]]]:
    """Provide the translation table for ``torch.onnx.export(dynamo=True)``, with the node's schema registered."""
    from onnxscript.values import Opset

    schema = onnx.defs.OpSchema(
        OP_TYPE,
        DOMAIN,
        1,
        doc="A fake quantizer; lowered before the model is written.",
        inputs=[onnx.defs.OpSchema.FormalParameter("x", "T")],
        outputs=[onnx.defs.OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(double)"], "")],
        attributes=[
            onnx.defs.OpSchema.Attribute("address", onnx.defs.OpSchema.AttrType.STRING, "", required=True),
            onnx.defs.OpSchema.Attribute("call", onnx.defs.OpSchema.AttrType.INT, "", required=True),
        ],
    )
    opset = Opset(DOMAIN, 1)

    def translate(x: Any, address: str, call: int) -> Any:
        return getattr(opset, OP_TYPE)(x, address=address, call=call)

    onnx.defs.register_schema(schema)
    try:
        yield {torch.ops.lightning_nncf.export_marker.default: translate}
    finally:
        onnx.defs.deregister_schema(OP_TYPE, 1, DOMAIN)


@contextmanager
def torchscript_symbolic(opset: int) -> Iterator[None]:
    """Register the marker's symbolic for ``torch.onnx.export(dynamo=False)`` while the context lasts."""
    from torch.onnx import symbolic_helper

    def symbolic(g: Any, x: Any, address: str, call: int) -> Any:
        return g.op(f"{DOMAIN}::{OP_TYPE}", x, address_s=address, call_i=call).setType(x.type())

    name, onnx_api = "lightning_nncf::export_marker", importlib.import_module("torch.onnx")
    onnx_api.register_custom_op_symbolic(name, symbolic_helper.parse_args("v", "s", "i")(symbolic), opset)
    try:
        yield
    finally:
        onnx_api.unregister_custom_op_symbolic(name, opset)
