"""Functions of one tensor that are written out in several ops, as ``x * sigmoid(x)``.

swish, h_swish, h_sigmoid, GELU by tanh, RMS norm and their like have one thing in common: a region of pointwise ops
that starts from a single tensor, ends in a single tensor and shares nothing in between. Such a region is one activation
function (or, with a mean inside, one normalization), however it is spelled. Batch norm whose statistics never change is
spelled ``x * scale + bias`` with constants.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_nncf.algorithms.quantization.placement.flow import Flow, Tensor
from lightning_nncf.algorithms.quantization.placement.operators import (
    ACTIVATIONS,
    ELEMENTWISE,
    canonical,
    is_scalar_arithmetic,
    operator_of,
)
from lightning_nncf.graph.graph import OpNode

__all__ = ["ACTIVATION", "BATCH_NORM", "NORMALIZATION", "composites"]

BATCH_NORM = "BatchNorm"
ACTIVATION = "Activation"
NORMALIZATION = "Normalization"

_LARGEST = 24
_UNARY = ACTIVATIONS | frozenset(
    (
        *("pow", "exp", "expm1", "erf", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "abs", "neg"),
        *("clamp", "clip", "softplus", "softsign", "to", "float", "type_as", "clone", "contiguous"),
    )
)
_CASTS = frozenset({"to", "float", "type_as"})
_REDUCTIONS = frozenset({"mean", "sum", "var", "std", "norm"})


def _is_pointwise(op: OpNode) -> bool:
    name = canonical(op.function)
    return not op.parameters and (name in _UNARY or name in _REDUCTIONS or operator_of(op) in ELEMENTWISE)


def _sources(flow: Flow, region: set[str]) -> set[Tensor]:
    edges = (edge for address in region for edge in flow.inputs[address])
    return {(edge.source, edge.output) for edge in edges if edge.source not in region}


def _region_behind(flow: Flow, last: str, position: Mapping[str, int]) -> set[str]:
    """Grow a region backwards from an op until a single tensor feeds it; empty if it never does."""
    region = {last}
    sources = _sources(flow, region)
    if len(sources) < 2:
        return set()
    while len(sources) > 1 and len(region) < _LARGEST:
        latest = max((address for address, _ in sources), key=position.__getitem__)
        shared = any(edge.target not in region for edge in flow.outputs[latest])
        if shared or not _is_pointwise(flow.ops[latest]):
            return set()
        region.add(latest)
        sources = _sources(flow, region)
    return region if len(sources) == 1 else set()


def _only_consumer(flow: Flow, address: str) -> str | None:
    targets = {edge.target for edge in flow.outputs[address]}
    return targets.pop() if len(targets) == 1 else None


def _takes_one_tensor(flow: Flow, address: str, *, parameters: bool) -> bool:
    op = flow.ops[address]
    if len(flow.inputs[address]) != 1:
        return False
    if parameters and canonical(op.function) in _CASTS:
        return True
    return operator_of(op) in ELEMENTWISE and (parameters or is_scalar_arithmetic(op))


def _extended(flow: Flow, region: list[str], *, parameters: bool) -> list[str]:
    """Add the scalar arithmetic (or multiplication with parameters) that follows a region."""
    following = _only_consumer(flow, region[-1])
    while following is not None and _takes_one_tensor(flow, following, parameters=parameters):
        region.append(following)
        following = _only_consumer(flow, following)
    return region


def _scaled_activation(flow: Flow, address: str) -> list[str]:
    """Return an activation function with the scalar arithmetic around it, as in ``relu6(x + 3) / 6``."""
    region = [address]
    while flow.inputs[region[0]]:
        edge = flow.inputs[region[0]][0]
        if _only_consumer(flow, edge.source) is None or not _takes_one_tensor(flow, edge.source, parameters=False):
            break
        region.insert(0, edge.source)
    return _extended(flow, region, parameters=False)


def _takes_constants(flow: Flow, address: str, operator: str) -> bool:
    """Whether an op combines activations with a constant tensor, one value per channel."""
    op = flow.ops[address]
    arriving = flow.activations_into(address)
    if operator_of(op) != operator or len(arriving) != 1 or len(op.inputs) != 2:
        return False
    return bool(op.inputs[1 - arriving[0].port].shape)


def _constant_affine(flow: Flow, address: str) -> list[str]:
    """Return a product with a constant and the sum with another that follows it, empty if there are none."""
    following = _only_consumer(flow, address)
    if following is None or not _takes_constants(flow, address, "Multiply"):
        return []
    return [address, following] if _takes_constants(flow, following, "Add") else []


def composites(flow: Flow) -> list[tuple[str, tuple[str, ...]]]:
    """Return the composite functions of a flow as ``(operator, addresses)``; no op is in two of them."""
    position = {address: index for index, address in enumerate(flow.ops)}
    taken: dict[str, int] = {}
    found: list[tuple[str, tuple[str, ...]]] = []
    for address, op in flow.ops.items():
        if operator_of(op) in ELEMENTWISE and len(flow.inputs[address]) > 1 and not op.parameters:
            region = sorted(_region_behind(flow, address, position), key=position.__getitem__)
            if region:
                reduces = any(canonical(flow.ops[member].function) in _REDUCTIONS for member in region)
                operator = NORMALIZATION if reduces else ACTIVATION
                region = _extended(flow, region, parameters=reduces)
            else:
                operator, region = BATCH_NORM, _constant_affine(flow, address)
        elif operator_of(op) in ELEMENTWISE:
            operator, region = BATCH_NORM, _constant_affine(flow, address)
        elif canonical(op.function) in ACTIVATIONS - {"relu", "prelu"}:
            operator, region = ACTIVATION, _scaled_activation(flow, address)
        else:
            continue
        if len(region) > 1:
            for member in region:
                taken[member] = len(found)
            found.append((operator, tuple(region)))
    return [entry for index, entry in enumerate(found) if all(taken[member] == index for member in entry[1])]
