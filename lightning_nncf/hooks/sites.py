"""Physical places for compression modules, found from logical points of the graph."""

from __future__ import annotations

import re
import warnings
from typing import Any, Literal

from torch import nn

from lightning_nncf.errors import HookError, near
from lightning_nncf.graph.addresses import frame_of
from lightning_nncf.graph.graph import INPUT, OUTPUT, CallFrame, InsertionPoint, NetworkGraph, OpNode
from lightning_nncf.graph.kinds import BATCH_NORMS, RECTIFIERS, kind_of
from lightning_nncf.hooks.hook_site import HookSite
from lightning_nncf.hooks.weight_sites import sites_of_reading

__all__ = ["sites"]


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def sites(graph: NetworkGraph, network: nn.Module, point: InsertionPoint) -> tuple[HookSite, ...]:
    """Return the physical places that together make up a logical point.

    Nothing is ever hooked at the call of the network itself, because trainers redirect it: an output of an ``input``
    node becomes the inputs of all its consumers. A weight that reaches its op through other ops is handled at the op.

    Args:
        graph: Captured graph of the network.
        network: The network, for the modules that hold its parameters.
        point: Logical point.

    Returns:
        The places; empty, with a warning, where no hook can reach the tensor.

    Raises:
        HookError: The graph has no such op or the op no such port.

    >>> import torch
    >>> from lightning_nncf.capture.trace import trace
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> graph = trace(net, lambda: net(torch.zeros(1, 3, 8, 8)))
    >>> sites(graph, net, InsertionPoint(kind="weight", address="0/conv2d:0", port=1))[0].key
    '0.lnncf_weight'
    >>> sites(graph, net, InsertionPoint(kind="output", address="/input:0"))[0].key
    '0.lnncf_in'
    """
    if point.address not in graph:
        known = [op.address for op in graph.ops()]
        raise HookError(f"the graph has no operation {point.address!r}; {near(point.address, known)}")
    op = graph[point.address]
    tensors = op.outputs if point.kind == "output" else op.inputs
    if not 0 <= point.port < len(tensors):
        raise HookError(
            f"operation {op.address!r} has {len(tensors)} {point.kind if point.kind == 'output' else 'input'} "
            f"tensor(s), got port {point.port}"
        )
    if op.function == INPUT:
        targets = [edge for edge in graph.outputs_of(op.address) if graph[edge.target].function != OUTPUT]
        points = [InsertionPoint(kind="input", address=edge.target, port=edge.port) for edge in targets]
        return tuple(dict.fromkeys(site for each in points for site in sites(graph, network, each)))
    if op.function == OUTPUT:
        points = [
            InsertionPoint(kind="output", address=edge.source, port=edge.output)
            for edge in graph.inputs_of(op.address)
            if graph[edge.source].function != INPUT
        ]
        return tuple(dict.fromkeys(site for each in points for site in sites(graph, network, each)))
    frame = graph.frames[frame_of(op.address)]
    if frame.path == "" and graph.example_inputs is None:
        warnings.warn(
            f"operation {op.address!r} runs outside the forward of every module and cannot be compressed; "
            "move it into a module's forward",
            stacklevel=2,
        )
        return ()
    if point.kind == "weight" and point.port in op.parameters:
        return sites_of_reading(graph, network, op, point.port)
    if graph.leaves and graph.must_not_learn(point):
        return ()
    site = _activation_site(graph, network, frame, op, point)
    return () if site is None else (site,)


def _activation_site(
    graph: NetworkGraph, network: nn.Module, frame: CallFrame, op: OpNode, point: InsertionPoint
) -> HookSite | None:
    """Return the place of an activation, ``None`` where no hook reaches it: before or after a module's forward."""
    suffix = _suffix(frame)
    holder, above = _holder(network, frame.module)
    common = {"module": frame.module, "frame": frame.path, **_calls(graph, frame)}
    key = (op.address, point.port)
    if point.kind == "output":
        position = frame.outputs.get(key)
        if position is not None and frame.module:
            slot = f"{above}out{position or ''}{suffix}"
            rectifies = kind_of(network.get_submodule(frame.module)) in RECTIFIERS and frame.module not in graph.reread
            normalizes = _batch_norm_of(graph, network, op) if not position else ""
            if not normalizes and rectifies:
                normalizes = _batch_norm_before(graph, network, op)
            return HookSite(
                kind="module_output",
                holder=holder,
                slot=slot,
                port=position,
                rectifies=rectifies,
                normalizes=normalizes,
                **common,
            )
        kind: Literal["op_input", "op_output"] = "op_output"
    else:
        # Further arguments of a module may be left out in another call, which would shift their positions.
        # Attention attends to itself only as long as its three arguments are one.
        if frame.inputs.get(key) == 0 and frame.module and not op.by_hook and "inside" not in op.attributes:
            return HookSite(kind="module_input", holder=holder, slot=f"{above}in{suffix}", **common)
        kind = "op_input"
    if op.index is None:
        return None
    end = "out" if kind == "op_output" else "in"
    return HookSite(
        kind=kind,
        holder=holder,
        slot=f"{above}{op.function}_{op.address.rpartition(':')[2]}_{end}{point.port}{suffix}",
        function=op.function,
        index=op.index,
        count=max(
            other.functions[op.function] for other in _frames_of(graph, frame.module) if op.function in other.functions
        ),
        port=point.port,
        callees=tuple(
            sorted({other.module for other in graph.frames.values() if _caller(graph, other) == frame.module})
        ),
        **common,
    )


def _batch_norm_of(graph: NetworkGraph, network: nn.Module, op: OpNode) -> str:
    """Return the path of the batch norm that an op is, if it is called once and gives what the op gives."""
    frame = graph.frames[op.address.rpartition("/")[0]]
    plain = kind_of(network.get_submodule(frame.module)) in BATCH_NORMS and op.function == "batch_norm"
    if plain and len(_frames_of(graph, frame.module)) == 1 and frame.outputs.get((op.address, 0)) == 0:
        return frame.module
    return ""


def _batch_norm_before(graph: NetworkGraph, network: nn.Module, op: OpNode) -> str:
    """Return the path of the batch norm whose output an op reads, and nobody else does."""
    edges = graph.inputs_of(op.address)
    if len(edges) != 1 or len(graph.outputs_of(edges[0].source)) != 1:
        return ""
    source = graph[edges[0].source]
    return "" if source.address.rpartition("/")[0] not in graph.frames else _batch_norm_of(graph, network, source)


def _holder(network: nn.Module, module: str) -> tuple[str, str]:
    """Return the module to register a slot under and a prefix of the slot's name.

    Containers run or list all their children, so that a slot must not be one of them.
    """
    path = module
    while isinstance(network.get_submodule(path), _CONTAINERS):
        if not path:
            inner = (name for name, child in network.named_modules() if not isinstance(child, _CONTAINERS))
            path = next(inner, "")
            break
        path = path.rpartition(".")[0]
    return path, "" if path == module else re.sub(r"[^0-9A-Za-z]+", "_", module or "root") + "_"


def _suffix(frame: CallFrame) -> str:
    if frame.path == frame.module:
        return ""
    if frame.path == f"{frame.module}@{frame.index}":
        return f"_{frame.index}"
    return "_via_" + re.sub(r"[^0-9A-Za-z]+", "_", frame.path)


def _frames_of(graph: NetworkGraph, module: str) -> list[CallFrame]:
    return [frame for frame in graph.frames.values() if frame.module == module]


def _caller(graph: NetworkGraph, frame: CallFrame) -> str | None:
    return None if frame.caller is None else graph.frames[frame.caller].module


def _calls(graph: NetworkGraph, frame: CallFrame) -> dict[str, Any]:
    """Return what must be counted to tell this call of a module from its others."""
    own = _frames_of(graph, frame.module)
    if len(own) == 1:
        return {}
    virtual = graph.example_inputs is None
    pairs: dict[tuple[str, str], None] = {}
    waiting, done = [frame.module], set[str]()
    while waiting:
        module = waiting.pop()
        frames = _frames_of(graph, module)
        if module in done or len(frames) == 1:
            continue
        done.add(module)
        for other in frames:
            caller = _caller(graph, other)
            if caller is not None and not (virtual and other.caller == ""):
                pairs[caller, module] = None
                waiting.append(caller)
    return {
        "calls": tuple(pairs),
        "paths": tuple(other.path for other in own),
        "free": any(other.caller is None or (virtual and other.caller == "") for other in own),
    }
