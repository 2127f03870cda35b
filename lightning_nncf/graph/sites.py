"""Physical places for compression modules, found from logical points of the graph."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import nn

from lightning_nncf.errors import HookError, near
from lightning_nncf.graph.addresses import frame_of
from lightning_nncf.graph.graph import INPUT, OUTPUT, CallFrame, InsertionPoint, NetworkGraph, OpNode
from lightning_nncf.graph.kinds import BATCH_NORMS, RECTIFIERS, kind_of

__all__ = ["HookSite", "sites"]


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, kw_only=True)
class HookSite:
    """One physical place where a module sees and replaces a tensor; enough to insert it again without a graph.

    Args:
        kind: A ``weight`` or another ``attribute`` of a module, the input or output of a module's call, or of a
            function called in a module's forward.
        module: Path of the module whose calls are hooked.
        holder: Path of the module under which the inserted modules are registered.
        slot: Name of the place below the holder; state-dict keys begin with ``<holder>.lnncf_<slot>``.
        frame: Call path in which the site is active; a weight or attribute is replaced in every call.
        parameter: Name of the weight or attribute in its holder.
        function: Name of the function.
        index: Which call of that function.
        count: How many calls of that function were traced.
        port: Which of the tensors.
        calls: Pairs of caller and module whose calls must be counted to know the call path.
        paths: All traced call paths of the module, when there are several.
        callees: Modules called in the forward of ``module``, whose functions are not its own.
        free: Whether the module was also called from outside any other.
        rectifies: Whether the module is a ReLU or ReLU6 that a module at its output may stand in for: nobody reads
            what it leaves in its argument.
        normalizes: Path of a batch norm whose output goes nowhere but here, for which the module may stand in, too.
    """

    kind: Literal["weight", "attribute", "module_input", "module_output", "op_input", "op_output"]
    module: str
    holder: str
    slot: str
    frame: str
    parameter: str = ""
    function: str = ""
    index: int = 0
    count: int = 0
    port: int = 0
    calls: tuple[tuple[str, str], ...] = ()
    paths: tuple[str, ...] = ()
    callees: tuple[str, ...] = ()
    free: bool = False
    rectifies: bool = False
    normalizes: str = ""

    @property
    def key(self) -> str:
        """Prefix of the state-dict keys."""
        return f"{self.holder}.lnncf_{self.slot}" if self.holder else f"lnncf_{self.slot}"

    def parameter_of(self, network: nn.Module) -> nn.Parameter:
        """Return the parameter whose value a ``weight`` site replaces."""
        return network.get_submodule(self.holder).get_parameter(self.parameter)

    def to_dict(self) -> dict[str, Any]:
        """Return the site as plain values for a checkpoint, without what is at its default."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                plain[field.name] = _plain(value)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HookSite:
        """Rebuild a site from `to_dict`."""
        known = dict(values)
        for name in ("paths", "callees"):
            known[name] = tuple(known.get(name, ()))
        known["calls"] = tuple((caller, module) for caller, module in known.get("calls", ()))
        return cls(**known)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


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
    >>> from lightning_nncf.graph.trace import trace
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
        return _weight_site(network, frame, op, op.parameters[point.port])
    return (_activation_site(graph, network, frame, op, point),)


def _weight_site(network: nn.Module, frame: CallFrame, op: OpNode, parameter: str) -> tuple[HookSite, ...]:
    places = _places_of(network, parameter)
    scope = network.get_submodule(frame.module)
    below = {id(module) for module in scope.modules()}
    # A tied weight has several names: the consumer reads the one at itself, else one below it.
    holder, name = min(
        places,
        key=lambda place: (
            place[0] != frame.module,
            id(network.get_submodule(place[0])) not in below,
            places.index(place),
        ),
    )
    return (HookSite(kind="weight", module=frame.module, holder=holder, slot=name, frame=frame.module, parameter=name),)


def _places_of(network: nn.Module, parameter: str) -> list[tuple[str, str]]:
    wanted = dict(network.named_parameters())[parameter]
    return [
        (path, name)
        for path, module in network.named_modules(remove_duplicate=False)
        for name, value in module._parameters.items()
        if value is wanted
    ]


def _activation_site(
    graph: NetworkGraph, network: nn.Module, frame: CallFrame, op: OpNode, point: InsertionPoint
) -> HookSite:
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
        if frame.inputs.get(key) == 0 and frame.module:
            return HookSite(kind="module_input", holder=holder, slot=f"{above}in{suffix}", **common)
        kind = "op_input"
    index = int(op.address.rpartition(":")[2])
    end = "out" if kind == "op_output" else "in"
    return HookSite(
        kind=kind,
        holder=holder,
        slot=f"{above}{op.function}_{index}_{end}{point.port}{suffix}",
        function=op.function,
        index=index,
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
