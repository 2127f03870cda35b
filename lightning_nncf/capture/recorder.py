"""Records the functions that a running network calls on tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lightning_nncf.capture.attention import ATTENTION, attend, is_self_attention
from lightning_nncf.capture.boundaries import Boundaries
from lightning_nncf.capture.calls import Port, RunningCall
from lightning_nncf.capture.origins import Origin, Origins
from lightning_nncf.capture.values import describe, has_values, replace_tensors, tensors_in
from lightning_nncf.capture.writes import ParameterWrites
from lightning_nncf.graph.addresses import child_call_path, function_name
from lightning_nncf.graph.attributes import attributes_of
from lightning_nncf.graph.graph import INPUT, OUTPUT, CallFrame, Edge, NetworkGraph, OpNode
from lightning_nncf.graph.kinds import RECTIFIERS, kind_of

__all__ = ["Recorder"]


class Recorder(TorchFunctionMode):
    """Writes every function called on tensors, while a call of the network runs, into a graph.

    Args:
        network: Network whose calls are recorded.
        graph: Graph to extend.
        virtual_root: Record everything, also outside the network's own call. Modules called from outside any other
            are then independent of each other: each of their calls has index 0.

    Composite functions (``F.relu``, ``scaled_dot_product_attention``) are one op, except self-attention with its
    projections, whose ops have the attribute ``inside``. Functions that return no tensor and
    updates of buffers (``num_batches_tracked``) are no ops, but count for the index in addresses.
    """

    def __init__(self, network: nn.Module, graph: NetworkGraph, *, virtual_root: bool = False) -> None:
        super().__init__()
        self.graph = graph
        self.mode = ""
        self.root_calls = 0
        self._network = network
        self._virtual = (
            RunningCall(CallFrame(path="", module="", caller=None, index=0), None, ()) if virtual_root else None
        )
        self._paths: dict[int, str] = {}
        self._types: dict[str, str] = {}
        for path, module in network.named_modules():
            self._paths.setdefault(id(module), path)
            self._types.setdefault(path, type(module).__name__)
        self._parameters = {id(parameter): name for name, parameter in network.named_parameters()}
        self.writes = ParameterWrites(network, graph.written)
        self._stack: list[RunningCall] = []
        self._origins = Origins()
        self._boundaries = Boundaries()
        self._edges: set[tuple[str, int, str, int]] = set()

    def start(self, mode: str) -> None:
        """Begin one run in a mode; tensors of earlier runs are let go."""
        self.mode, self._inside = mode, ""
        self._origins.clear()
        self._outsiders = 0
        self._stack[:] = [self._virtual] if self._virtual is not None else []
        self._buffers = {id(buffer) for buffer in self._network.buffers()}
        if self._virtual is not None:
            self.graph.frames.setdefault("", self._virtual.frame)
            self._virtual.functions.clear()
            self._virtual.valued.clear()

    def finish(self) -> None:
        """Settle, after all runs, which tensors pass a module's boundary untouched; forget all tensors."""
        self._origins.clear()
        self._stack.clear()
        self._boundaries.settle(self.graph.frames)

    # Modules

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of every module of the network."""
        is_root = module is self._network
        if not self._stack and not is_root:
            return
        if is_root and self.graph.example_inputs is None and not self._stack:
            copied = replace_tensors((args, kwargs), lambda _, tensor: tensor.detach().clone())
            self.graph.example_inputs = (copied[0], dict(copied[1]))
        path = self._paths[id(module)]
        if not self._stack or self._stack[-1] is self._virtual:
            caller: str | None = None if is_root else ""
            call_path, index = path, 0
        else:
            above = self._stack[-1]
            index = above.calls[path]
            above.calls[path] += 1
            caller = above.frame.path
            call_path = child_call_path(caller, above.frame.module, path, index)
        frame = self.graph.frames.setdefault(
            call_path, CallFrame(path=call_path, module=path, caller=caller, index=index)
        )
        arguments = list(tensors_in(args, kwargs))
        self._stack.append(RunningCall(frame, module, arguments))
        if is_root and sum(running.module is module for running in self._stack) == 1:
            self._enter_root(arguments)

    def _enter_root(self, arguments: list[torch.Tensor]) -> None:
        self.root_calls += 1
        for position, tensor in enumerate(arguments):
            address = f"/{INPUT}:{position}"
            self._merge(OpNode(address=address, function=INPUT, outputs=(describe(tensor),), **self._place("")))
            self._origins.note(tensor, address, 0, None)

    def begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Forward pre-hook of every module, behind those of the user: what they called is not the module's forward."""
        self._turn(module, in_forward=True)

    def end(self, module: nn.Module, args: tuple[Any, ...], result: object) -> None:
        """Forward hook of every module, before those of the user."""
        self._turn(module, in_forward=False)

    def _turn(self, module: nn.Module, *, in_forward: bool) -> None:
        if self._stack and self._stack[-1].module is module:
            self._stack[-1].in_forward = in_forward
            self._stack[-1].begun = True

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> None:
        """Forward hook of every module of the network, also called when its forward raised."""
        while self._stack and self._stack[-1] is not self._virtual:
            running = self._stack.pop()
            if running.module is module:
                break
        else:
            return
        returned = list(tensors_in(result))
        self._boundaries.returned(running, returned, lambda tensor: self._untouched(running, tensor))
        for name, count in running.valued.items():
            running.frame.functions[name] = max(count, running.frame.functions.get(name, 0))
        if module is self._network and all(above.module is not module for above in self._stack):
            for position, tensor in enumerate(returned):
                address = f"/{OUTPUT}:{position}"
                self._merge(OpNode(address=address, function=OUTPUT, inputs=(describe(tensor),), **self._place("")))
                self._connect(tensor, address, 0)

    def _untouched(self, running: RunningCall, tensor: torch.Tensor) -> Port | None:
        """Return which op of a call made a tensor, if nobody has read it since."""
        origin = self._origins.of(tensor)
        return None if origin is None or origin.call is not running or origin.read else (origin.address, origin.output)

    # Functions

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function and record it."""
        kwargs = kwargs or {}
        if not self._stack:
            return func(*args, **kwargs)
        if is_self_attention(func, args, kwargs):
            self._inside = ATTENTION
            with self:
                result = attend(args, kwargs)
            self._inside = ""
            return result
        running = self._stack[-1]
        name = function_name(func)
        index = running.functions[name]
        running.functions[name] += 1
        inputs = list(tensors_in(args, kwargs))
        number = running.valued[name] if running.in_forward and has_values(inputs) else None
        if number is not None:
            running.valued[name] += 1
        versions = [_version(tensor) for tensor in inputs]
        self.writes.prepare(name, args, kwargs, inputs)
        result = func(*args, **kwargs)
        outputs = list(tensors_in(result))
        changed = [tensor for tensor, version in zip(inputs, versions, strict=True) if _version(tensor) != version]
        self.writes.note(name, args, changed, (above.frame.module for above in self._stack if above.begun))
        if not outputs and not changed:
            if name == "requires_grad" and len(args) == 2 and args[1] and (origin := self._origins.of(args[0])):
                self.graph.leaves.add((origin.address, origin.output))
            return result
        if all(id(tensor) in self._buffers for tensor in (*outputs, *changed)):
            return result
        if not changed and any(result is tensor for tensor in inputs):
            if name.endswith("_"):
                return result
            # Nothing was computed (dropout in eval, contiguous of a contiguous tensor). A new object for the same
            # memory tells apart who reads the result and who reads the argument.
            result = result.detach()
            outputs = [result]
        above = running.module
        overwrites = above is not None and kind_of(above) in RECTIFIERS and any(result is tensor for tensor in changed)
        if overwrites:
            result = result.detach()
            outputs = [result]
        self._record(f"{running.frame.path}/{name}:{index}", number, func, args, kwargs, inputs, outputs, changed)
        if overwrites:
            self._origins.overwrite(result, running.frame.module)
        return result

    def _record(
        self,
        address: str,
        index: int | None,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
        changed: list[torch.Tensor],
    ) -> None:
        running = self._stack[-1]
        changed = [tensor for tensor in changed if id(tensor) not in self._buffers]
        results = outputs or changed
        parameters = {
            port: self._parameters[id(tensor)] for port, tensor in enumerate(inputs) if id(tensor) in self._parameters
        }
        self._merge(
            OpNode(
                address=address,
                function=function_name(func),
                inputs=tuple(map(describe, inputs)),
                outputs=tuple(map(describe, results)),
                parameters=parameters,
                index=index,
                by_hook=not running.in_forward,
                lookups={port: reader for port in parameters for reader in self._lookup(inputs[port])},
                attributes=attributes_of(func, args, kwargs) | ({"inside": self._inside} if self._inside else {}),
                **self._place(running.frame.module),
            )
        )
        for port, tensor in enumerate(inputs):
            self._connect(tensor, address, port)
            self._boundaries.read(tensor, (address, port), self._stack)
        for output, tensor in enumerate(results):
            self._boundaries.made((address, output))
            self._origins.note(tensor, address, output, running)
        for tensor in changed:
            # A change in place reaches the tensor it is a view of, too.
            base = tensor._base
            for reached in (tensor, base) if base is not None else (tensor,):
                if id(reached) not in self._parameters and all(reached is not result for result in results):
                    self._origins.note(reached, address, 0, running)

    def _lookup(self, parameter: torch.Tensor) -> Iterator[str | None]:
        """Yield the module that looked up a parameter, unless it is the one that runs: others got it as an argument."""
        reader = len(self._stack) - 1
        while reader >= 0 and id(parameter) in self._stack[reader].positions:
            reader -= 1
        if reader < len(self._stack) - 1:
            yield self._stack[reader].frame.module if reader >= 0 else None

    def _connect(self, tensor: torch.Tensor, target: str, port: int) -> None:
        overwriter = self._origins.overwriter_of(tensor)
        if overwriter is not None:
            self.graph.reread.add(overwriter)
        origin = self._origins.of(tensor)
        if origin is None:
            if self._virtual is None or id(tensor) in self._parameters or id(tensor) in self._buffers:
                return
            origin = self._outside(tensor)
        origin.read = True
        if origin.address == target:
            return
        key = (origin.address, origin.output, target, port)
        if key not in self._edges:
            self._edges.add(key)
            self.graph.connect(
                Edge(source=origin.address, output=origin.output, target=target, port=port, tensor=describe(tensor))
            )

    def _outside(self, tensor: torch.Tensor) -> Origin:
        """Make a tensor that came from nowhere, in a run without a call of the network, one of its inputs."""
        address = f"/{INPUT}:{self._outsiders}"
        self._outsiders += 1
        self._merge(OpNode(address=address, function=INPUT, outputs=(describe(tensor),), **self._place("")))
        return self._origins.note(tensor, address, 0, None)

    def _place(self, module: str) -> dict[str, Any]:
        return {"module": module, "module_type": self._types[module], "modes": frozenset({self.mode})}

    def _merge(self, op: OpNode) -> None:
        if op.address not in self.graph:
            self.graph.add(op)
            return
        known = self.graph[op.address]
        parameters = {**op.parameters, **known.parameters}
        if not op.modes <= known.modes or parameters != known.parameters:
            modes, lookups = known.modes | op.modes, {**op.lookups, **known.lookups}
            self.graph.replace(dataclasses.replace(known, modes=modes, parameters=parameters, lookups=lookups))


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
